"""Small recordings in the layouts that laboratories and makers write, with the values known: for tests and benchmarks.

`CASES` are functions of a folder that write a file and say how it is loaded and what is right: numbers, names, rate and
unit, or a word of the refusal that names the fix. `judge` loads one and says "right", "refused" or what is wrong.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import scipy.io

SFREQ = 2000.0
NAMES = ("FDI", "ADM", "APB")
N = 600
X = (np.random.default_rng(23).normal(size=(N, 3)) * [80, 30, 120]).round(3)
TIME = np.arange(N) / SFREQ


@dataclass(frozen=True)
class Expected:
    """How a file is loaded and what is right of it: numbers, or a refusal."""

    path: Path
    options: dict[str, Any] = field(default_factory=dict)
    values: Any = None
    channels: tuple[str, ...] = NAMES
    sfreq: float = SFREQ
    unit: str = ""
    refusal: str = ""


CASES: dict[str, Callable[[Path], Expected]] = {}


def case(function: Callable[[Path], Expected]) -> Callable[[Path], Expected]:
    """Enter a case under the name of its function."""
    CASES[function.__name__.replace("_", " ")] = function
    return function


def judge(name: str, folder: Path) -> str:
    """Load a case; "right", "refused" as it should be, or what is wrong."""
    from jaxm2m import session

    expected = CASES[name](folder)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded = session.load_emg(expected.path, **expected.options)
    except (ValueError, TypeError, ImportError) as error:
        if expected.refusal and expected.refusal in str(error):
            return "refused"
        return f"refused by {error}"
    if expected.refusal:
        return f"read as {loaded!r}, not refused"
    values = X if expected.values is None else expected.values
    if loaded.channels != expected.channels:
        return f"channels {loaded.channels}"
    if abs(loaded.sfreq / expected.sfreq - 1) > 1e-3:
        return f"rate {loaded.sfreq}"
    if loaded.unit != expected.unit:
        return f"unit {loaded.unit!r}"
    if loaded.samples.shape != values.shape or np.abs(loaded.samples - values).max() > 2e-3 * np.abs(values).max():
        return f"values of shape {loaded.samples.shape}"
    return "right"


def _rows(*columns: Any, delimiter: str = ",", decimal: str = ".", form: str = ".6f") -> list[str]:
    def cell(value: Any) -> str:
        return value if isinstance(value, str) else format(value, form if isinstance(value, float) else "")

    table = zip(*[c.tolist() if isinstance(c, np.ndarray) else c for c in columns], strict=True)
    return [delimiter.join(cell(v).replace(".", decimal) for v in row) for row in table]


def _write(path: Path, *parts: str | list[str], encoding: str = "utf-8") -> Path:
    lines = [line for part in parts for line in ([part] if isinstance(part, str) else part)]
    path.write_bytes(("\n".join(lines) + "\n").encode(encoding))
    return path


@case
def time_column(folder: Path) -> Expected:
    return Expected(_write(folder / "a.csv", "time,FDI,ADM,APB", _rows(TIME, *X.T)))


@case
def index_column_of_pandas(folder: Path) -> Expected:
    pd.DataFrame(X, columns=list(NAMES)).to_csv(folder / "a.csv")
    return Expected(folder / "a.csv", {"sfreq": SFREQ})


@case
def names_are_numbers_of_pandas(folder: Path) -> Expected:
    pd.DataFrame(X).to_csv(folder / "a.csv", index=False)
    return Expected(folder / "a.csv", {"sfreq": SFREQ}, channels=("0", "1", "2"))


@case
def index_and_numbers_of_pandas(folder: Path) -> Expected:
    pd.DataFrame(X).to_csv(folder / "a.csv")
    return Expected(folder / "a.csv", {"sfreq": SFREQ}, channels=("0", "1", "2"))


@case
def sample_column(folder: Path) -> Expected:
    path = _write(folder / "a.csv", "sample,FDI,ADM,APB", _rows(np.arange(1, N + 1), *X.T))
    return Expected(path, {"sfreq": SFREQ})


@case
def frame_column_beside_time(folder: Path) -> Expected:
    path = _write(folder / "a.csv", "Frame,Time (s),FDI,ADM,APB", _rows(np.arange(N), TIME, *X.T))
    return Expected(path)


@case
def counter_that_starts_anew(folder: Path) -> Expected:
    path = _write(folder / "a.csv", "Counter,FDI,ADM,APB", _rows(np.arange(N) % 128, *X.T))
    return Expected(path, {"sfreq": SFREQ})


@case
def time_without_names(folder: Path) -> Expected:
    return Expected(_write(folder / "a.csv", _rows(TIME, *X.T)), {"sfreq": SFREQ}, channels=("1", "2", "3"))


@case
def time_without_names_and_no_rate(folder: Path) -> Expected:
    return Expected(_write(folder / "a.csv", _rows(TIME, *X.T)), refusal="rises by 0.0005")


@case
def time_without_names_and_a_wrong_rate(folder: Path) -> Expected:
    return Expected(_write(folder / "a.csv", _rows(TIME, *X.T)), {"sfreq": 1000}, refusal="correct one of them")


@case
def time_in_ms_by_its_name(folder: Path) -> Expected:
    return Expected(_write(folder / "a.csv", "time_ms,FDI,ADM,APB", _rows(1e3 * TIME, *X.T)))


@case
def time_in_ms_without_saying_so(folder: Path) -> Expected:
    return Expected(_write(folder / "a.csv", "time,FDI,ADM,APB", _rows(1e3 * TIME, *X.T)), refusal="sfreq=2000")


@case
def time_of_every_sensor(folder: Path) -> Expected:
    names = "Sensor 1 TIME,FDI,Sensor 2 TIME,ADM,Sensor 3 TIME,APB"
    return Expected(_write(folder / "a.csv", names, _rows(TIME, X[:, 0], TIME, X[:, 1], TIME, X[:, 2])))


@case
def delsys_emgworks(folder: Path) -> Expected:
    slow = np.arange(N // 8) / (SFREQ / 8)
    pad = [""] * (N - len(slow))
    columns = [TIME, X[:, 0] * 1e-6, [*slow.tolist(), *pad], [*np.sin(slow).tolist(), *pad], TIME, X[:, 1] * 1e-6]
    names = '"X[s]","FDI: EMG 1 [V]","X[s]","FDI: ACC X 1 [g]","X[s]","ADM: EMG 2 [V]"'
    path = _write(folder / "a.csv", names, _rows(*columns, form=".10f"))
    return Expected(path, values=X[:, :2] * 1e-6, channels=("FDI: EMG 1", "ADM: EMG 2"), unit="V")


@case
def delsys_trigno_discover(folder: Path) -> Expected:
    preamble = ["Application:,Trigno Discover", "Date/Time:,1/2/2026 10:00", "Trial Length (seconds):,0.3", ""]
    preamble += ["FDI (81729),,,", "sensor mode: 40,,,"]
    names = "EMG 1 Time Series (s),EMG 1 (mV),EMG 2 Time Series (s),EMG 2 (mV)"
    rates = "2000.0000 Hz,,2000.0000 Hz,"
    path = _write(folder / "a.csv", preamble, names, rates, _rows(TIME, X[:, 0], TIME, X[:, 1]))
    return Expected(path, values=X[:, :2], channels=("EMG 1", "EMG 2"), unit="mV")


@case
def vicon_nexus(folder: Path) -> Expected:
    force = np.round(700 + np.sin(TIME), 3)
    head = ["Devices", "2000", ",,Plate 1 - Force,Delsys Trigno,,", "Frame,Sub Frame,Fz,FDI,ADM,APB", ",,N,V,V,V"]
    body = _rows(np.arange(N) // 20 + 1, np.arange(N) % 20, force, *(X.T * 1e-6), form=".9f")
    tail = ["", "Trajectories", "100", ",,a:LASI,,", "Frame,Sub Frame,X,Y,Z", ",,mm,mm,mm", "1,0,1.0,2.0,3.0"]
    return Expected(_write(folder / "a.csv", head, body, tail), values=X * 1e-6, unit="V")


@case
def vicon_nexus_without_devices(folder: Path) -> Expected:
    head = ["Trajectories", "100", ",,a:LASI,,", "Frame,Sub Frame,X,Y,Z", ",,mm,mm,mm"]
    body = _rows(np.arange(N) + 1, np.zeros(N, int), *X.T)
    return Expected(_write(folder / "a.csv", head, body), refusal="a block of Devices")


@case
def names_twice_below_the_names_of_sensors(folder: Path) -> Expected:
    head = ["Application:,Trigno Discover", "", "FDI (81729),,ADM (81730),"]
    names = "EMG 1 Time Series (s),EMG 1 (mV),EMG 1 Time Series (s),EMG 1 (mV)"
    path = _write(folder / "a.csv", head, names, _rows(TIME, X[:, 0], TIME, X[:, 1]))
    return Expected(path, values=X[:, :2], channels=("FDI (81729): EMG 1", "ADM (81730): EMG 1"), unit="mV")


@case
def excel_with_its_separator_and_exponents(folder: Path) -> Expected:
    body = _rows(TIME, *X.T, delimiter=";", decimal=",", form=".9E")
    return Expected(_write(folder / "a.csv", "sep=;", "Time;FDI;ADM;APB", body))


@case
def one_column_without_a_name(folder: Path) -> Expected:
    return Expected(_write(folder / "a.txt", _rows(X[:, 0])), {"sfreq": SFREQ}, values=X[:, :1], channels=("1",))


@case
def times_of_the_day(folder: Path) -> Expected:
    clock = [f"10:{int(t) // 60:02d}:{t % 60:09.6f}" for t in TIME]
    return Expected(_write(folder / "a.csv", "Time,FDI,ADM,APB", _rows(clock, *X.T)))


@case
def channels_of_several_rates(folder: Path) -> Expected:
    slow = [*(np.arange(N // 2) / (SFREQ / 2)).tolist(), *[""] * (N - N // 2)]
    half = [*X[: N // 2, 1].tolist(), *[""] * (N - N // 2)]
    return Expected(_write(folder / "a.csv", "X[s],FDI,X[s],ADM", _rows(TIME, X[:, 0], slow, half)), refusal="picks:")


@case
def one_of_several_rates(folder: Path) -> Expected:
    expected = channels_of_several_rates(folder)
    return Expected(expected.path, {"picks": ["FDI"]}, values=X[:, :1], channels=("FDI",))


@case
def names_with_blanks_between_blanks(folder: Path) -> Expected:
    path = _write(folder / "a.txt", "time left TA right TA2", _rows(TIME, X[:, 0], X[:, 1], delimiter=" "))
    return Expected(path, refusal="names with blanks")


@case
def words_in_the_last_column(folder: Path) -> Expected:
    path = _write(folder / "a.csv", "time,FDI,ADM,APB,what", _rows(TIME, *X.T, ["rest"] * N))
    return Expected(path, refusal="column what is numbers (rest)")


@case
def words_in_the_last_column_and_picks(folder: Path) -> Expected:
    return Expected(words_in_the_last_column(folder).path, {"picks": list(NAMES)})


@case
def labels_beside_the_muscles(folder: Path) -> Expected:
    path = _write(folder / "a.csv", "time|class|FDI|ADM|APB", _rows(TIME, np.arange(N) // 300, *X.T, delimiter="|"))
    return Expected(path)


@case
def force_and_angle_beside_the_muscles(folder: Path) -> Expected:
    columns = [TIME, X[:, 0], np.sin(9 * TIME), X[:, 1], np.cos(9 * TIME), X[:, 2]]
    return Expected(_write(folder / "a.csv", "time,FDI,Force,ADM,knee angle,APB", _rows(*columns)))


@case
def noraxon_preamble(folder: Path) -> Expected:
    head = ["Type,EMG", "Last name,Doe", "Measurement date,01.02.2026", "Frequency,2000 Hz", ""]
    names = '"Time,s","FDI,uV","ADM,uV","APB,uV"'
    return Expected(_write(folder / "a.csv", head, names, _rows(TIME, *X.T)), unit="uV")


@case
def noraxon_with_semicolons_and_decimal_commas(folder: Path) -> Expected:
    body = _rows(TIME, *X.T, delimiter=";", decimal=",")
    return Expected(_write(folder / "a.csv", "Name;Doe", "", "Time,s;FDI,uV;ADM,uV;APB,uV", body), unit="uV")


@case
def units_row(folder: Path) -> Expected:
    path = _write(folder / "a.txt", "Time\tFDI\tADM\tAPB", "s\tmV\tmV\tmV", _rows(TIME, *X.T, delimiter="\t"))
    return Expected(path, unit="mV")


@case
def units_in_latin_1(folder: Path) -> Expected:
    path = _write(
        folder / "a.txt", "Time [s];FDI [µV];ADM [µV];APB [µV]", _rows(TIME, *X.T, delimiter=";"), encoding="latin-1"
    )
    return Expected(path, unit="uV")


@case
def units_that_differ(folder: Path) -> Expected:
    columns = [TIME, X[:, 0], X[:, 1] * 1e-3, X[:, 2]]
    return Expected(_write(folder / "a.csv", "Time (s),FDI (uV),ADM (mV),APB (uV)", _rows(*columns)), unit="uV")


@case
def utf_16(folder: Path) -> Expected:
    return Expected(
        _write(folder / "a.txt", "Time\tFDI\tADM\tAPB", _rows(TIME, *X.T, delimiter="\t"), encoding="utf-16")
    )


@case
def tab_at_every_rows_end(folder: Path) -> Expected:
    body = [row + "\t" for row in _rows(TIME, *X.T, delimiter="\t")]
    return Expected(_write(folder / "a.txt", "Time\tFDI\tADM\tAPB", body))


@case
def comma_at_every_rows_end(folder: Path) -> Expected:
    return Expected(_write(folder / "a.csv", [row + "," for row in ["time,FDI,ADM,APB", *_rows(TIME, *X.T)]]))


@case
def decimal_commas_between_commas(folder: Path) -> Expected:
    body = _rows(*X.T, decimal=",")
    return Expected(
        _write(folder / "a.csv", "FDI,ADM,APB", body), {"sfreq": SFREQ}, refusal="give each column one name"
    )


@case
def decimal_commas_between_blanks(folder: Path) -> Expected:
    path = _write(folder / "a.txt", "FDI ADM APB", _rows(*X.T, delimiter="  ", decimal=","))
    return Expected(path, {"sfreq": SFREQ})


@case
def names_twice(folder: Path) -> Expected:
    return Expected(_write(folder / "a.csv", "time,FDI,FDI,ADM", _rows(TIME, *X.T)), refusal="FDI named more than once")


@case
def numpy_savetxt(folder: Path) -> Expected:
    np.savetxt(folder / "a.txt", np.column_stack([TIME, X]), header="time FDI ADM APB")
    return Expected(folder / "a.txt")


@case
def heart_and_breath_beside_the_muscles(folder: Path) -> Expected:
    columns = [TIME, X[:, 0], 5 * X[:, 1], X[:, 1], np.sin(TIME), X[:, 2]]
    return Expected(_write(folder / "a.csv", "time,FDI,ECG,ADM,Resp chest,APB", _rows(*columns)))


@case
def opensim_storage(folder: Path) -> Expected:
    head = ["emg", "version=1", f"nRows={N}", "nColumns=4", "inDegrees=no", "endheader"]
    return Expected(_write(folder / "a.sto", head, "time\tFDI\tADM\tAPB", _rows(TIME, *X.T, delimiter="\t")))


@case
def a_preamble_of_numbers(folder: Path) -> Expected:
    head = [f"{i},{i},{i},{i}" for i in range(5)]
    path = _write(folder / "a.csv", head, "time,FDI,ADM,APB", _rows(TIME, *X.T))
    return Expected(path, {"skiprows": 5})


@case
def a_preamble_of_numbers_without_skipping(folder: Path) -> Expected:
    head = [f"{i},{i},{i},{i}" for i in range(5)]
    return Expected(_write(folder / "a.csv", head, "time,FDI,ADM,APB", _rows(TIME, *X.T)), refusal="numbers")


@case
def numpy_file_of_trials_last(folder: Path) -> Expected:
    np.save(folder / "a.npy", np.zeros((1000, 3, 20)))
    return Expected(folder / "a.npy", {"sfreq": SFREQ}, refusal="axes:")


@case
def numpy_file_of_channels_before_samples(folder: Path) -> Expected:
    np.save(folder / "a.npy", np.stack([X[:300].T, X[300:].T]))
    options = {"sfreq": SFREQ, "axes": "trial channel sample", "channels": NAMES}
    return Expected(folder / "a.npy", options)


@case
def matlab_one_variable_a_muscle(folder: Path) -> Expected:
    scipy.io.savemat(folder / "a.mat", dict(zip(NAMES, X.T[:, :, None], strict=True)) | {"dt": 1 / SFREQ})
    return Expected(folder / "a.mat")


@case
def matlab_cells_of_trials(folder: Path) -> Expected:
    cells = np.empty(2, object)
    cells[0], cells[1] = X[:250], X[250:]
    names = np.array(NAMES, object)
    scipy.io.savemat(folder / "a.mat", {"trials": cells, "fs_kHz": SFREQ / 1000, "labels": names})
    return Expected(folder / "a.mat")


@case
def matlab_structures_of_channels(folder: Path) -> Expected:
    fields = [("name", object), ("data", object)]
    channels = np.array([(n, x[:, None]) for n, x in zip(NAMES, X.T, strict=True)], fields)
    scipy.io.savemat(folder / "a.mat", {"ch": channels, "fs": SFREQ})
    return Expected(folder / "a.mat")


@case
def matlab_of_biopac(folder: Path) -> Expected:
    content = {"data": X, "isi": 0.5, "isi_units": "ms", "labels": np.array(NAMES, object)}
    scipy.io.savemat(folder / "a.mat", content | {"units": np.array(["mV"] * 3, object), "start_sample": 0.0})
    return Expected(folder / "a.mat", unit="mV")


@case
def matlab_of_spike2(folder: Path) -> Expected:
    def channel(name: str, x: np.ndarray) -> dict[str, Any]:
        return {"title": name, "units": "mV", "interval": 1 / SFREQ, "start": 0.0, "length": float(N), "values": x}

    scipy.io.savemat(folder / "a.mat", {f"V12_Ch{i}": channel(NAMES[i], X[:, i]) for i in range(3)})
    return Expected(folder / "a.mat", unit="mV")


@case
def matlab_of_labchart(folder: Path) -> Expected:
    ends = np.arange(1, 4)[:, None] * float(N)
    content = {"data": X.T.reshape(1, -1), "datastart": ends - N + 1, "dataend": ends, "titles": np.array(NAMES)}
    content |= {"samplerate": np.full((3, 1), SFREQ), "unittext": np.array(["mV"]), "unittextmap": np.ones((3, 1))}
    scipy.io.savemat(folder / "a.mat", content)
    return Expected(folder / "a.mat", unit="mV")


@case
def matlab_rate_in_khz_without_saying_so(folder: Path) -> Expected:
    scipy.io.savemat(folder / "a.mat", {"emg": X, "fs": SFREQ / 1000})
    return Expected(folder / "a.mat", refusal="sfreq=2000")


@case
def hdf5_with_times_in_its_table(folder: Path) -> Expected:
    with h5py.File(folder / "a.h5", "w") as file:
        file["emg"] = np.column_stack([TIME, X])
    return Expected(folder / "a.h5", {"sfreq": SFREQ, "channels": NAMES})


@case
def intan(folder: Path) -> Expected:
    return Expected(_write(folder / "a.rhd", "x"), refusal="neo")


@case
def clock_beside_time(folder: Path) -> Expected:
    clock = [f"10:00:{t:06.3f}" for t in TIME]
    return Expected(_write(folder / "a.csv", "Timestamp,time,FDI,ADM,APB", _rows(clock, TIME, *X.T)))


@case
def words_among_the_numbers(folder: Path) -> Expected:
    body = _rows(TIME, *X.T)
    body[450] = body[450].replace(f"{X[450, 1]:.6f}", "overload")
    return Expected(_write(folder / "a.csv", "time,FDI,ADM,APB", body), refusal="column ADM is numbers (overload)")
