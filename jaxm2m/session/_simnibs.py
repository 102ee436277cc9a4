"""Coil positions of SimNIBS: sessions, lists and simulations as MATLAB files (version 5)."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

from jaxm2m.session._mat5 import BrokenFile, check_mat5
from jaxm2m.session._rigid import make_rigid
from jaxm2m.session._session import Session

_LARGEST = 512 << 20  # bytes, once decompressed


def load_simnibs(path: Path) -> Session:
    """Read the positions of every TMS list in a SimNIBS `.mat` file. See `jaxm2m.session.load`.

    They are in the space of the subject's head mesh, "subject"; dI/dt in A/s. Positions that are given by a centre and
    a direction alone have no matrix before SimNIBS has run.
    """
    content = _read(path)
    positions = [p for tms in _lists(content) for p in _entries(tms, "pos")]
    if not positions:
        raise ValueError(
            f"path: {path} holds no TMS positions (a SESSION with a TMSLIST in `poslist`, or a TMSLIST with `pos`)."
        )
    matrices, names, rates = [], [], []
    for i, position in enumerate(positions):
        matrix = np.asarray(_field(position, "matsimnibs"))
        if matrix.shape == (4, 4) and matrix.dtype.kind in "fiu":
            matrices.append(matrix.astype(np.float64))
        elif matrix.size:
            raise ValueError(f"path: {path}, position {i + 1}: matsimnibs has the shape {matrix.shape}, not (4, 4).")
        else:
            raise ValueError(
                f"path: {path}, position {i + 1} has no matsimnibs: it is given by `centre` and `pos_ydir`, which "
                "SimNIBS turns into a matrix when it runs; load the simnibs_simulation*.mat of that run, or place the "
                "coil anew (coil.place)."
            )
        name = _field(position, "name")
        names.append(str(np.asarray(name).ravel()[0]) if np.size(name) else f"Position {i + 1}")
        rate = np.asarray(_field(position, "didt"), object).ravel()
        rates.append(float(rate[0]) if len(rate) == 1 and isinstance(rate[0], int | float | np.number) else np.nan)
    n = len(matrices)
    missing = np.full(n, np.nan)
    return Session(
        poses=make_rigid(np.array(matrices), lambda i: f"path: {path}, position {i + 1}"),
        space="subject",
        source_space="SimNIBS",
        names=tuple(names),
        kind=("target",) * n,
        target=("",) * n,
        time=missing,
        intensity=missing,
        didt=np.array(rates),
        channels=(),
        meps=np.zeros((n, 0)),
        mep_latency=np.zeros((n, 0)),
        emg=np.zeros((n, 0, 0)),
    )


def format_simnibs(matrices: np.ndarray, names: list[str]) -> bytes:
    """A SimNIBS TMSLIST with a position for each pose, without a coil and without dI/dt."""
    record = np.zeros((1, len(matrices)), [(key, object) for key in ("type", "name", "matsimnibs")])
    for entry, matrix, name in zip(record[0], matrices, names, strict=True):
        entry["type"], entry["name"], entry["matsimnibs"] = "POSITION", name, matrix
    data = io.BytesIO()
    scipy.io.savemat(data, {"type": "TMSLIST", "fnamecoil": "", "pos": record})
    return data.getvalue()


def _read(path: Path) -> dict[str, Any]:
    try:
        check_mat5(path, _LARGEST)
        return scipy.io.loadmat(path, struct_as_record=True, squeeze_me=False)
    except BrokenFile as error:
        raise ValueError(f"path: {path} is no readable MATLAB file: {error}; save it again with SimNIBS.") from None
    except NotImplementedError:
        raise ValueError(
            f"path: {path} is a MATLAB 7.3 file; SimNIBS writes version 5: save it with `save(..., '-v7')`."
        ) from None
    except Exception as error:  # scipy raises what it meets
        raise ValueError(f"path: {path} is no readable MATLAB file ({error}); save it again with SimNIBS.") from None


def _lists(content: dict[str, Any]) -> Iterator[Any]:
    """The TMS lists of a file, in order."""
    if "pos" in content:
        yield content
    for entry in _entries(content, "poslist"):
        if "pos" in (entry.dtype.names or ()):
            yield entry


def _entries(holder: Any, key: str) -> Iterator[Any]:
    """The structures in a field, which is a structure array or a cell array of structures."""
    for entry in np.asarray(_field(holder, key)).ravel():
        if isinstance(entry, np.void):
            yield entry
        elif isinstance(entry, np.ndarray) and entry.dtype.names:
            yield from entry.ravel()


def _field(holder: Any, key: str) -> Any:
    if isinstance(holder, dict):
        return holder.get(key, np.zeros(0))
    return holder[key] if key in (holder.dtype.names or ()) else np.zeros(0)
