"""What is new in an export: each stimulus once, on files that grow row by row, are cut anywhere, or were changed."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_session_brainsight import export, frame
from test_session_localite import triggers

from jaxm2m.cli import _design_watch
from jaxm2m.cli._design_stimulus import Stimulus
from jaxm2m.cli._design_watch import add_meps, find_new, read_export, read_table

pytestmark = pytest.mark.host

N = 6
BRAINSIGHT, LOCALITE = Path("export.txt"), Path("TriggerMarkers_Coil0.xml")


def brainsight(tmp_path, n=N, *, times=True, targets=1, empty=(), seeds=None):
    rows = []
    for i in range(n):
        values = {} if i in empty else {"EMG Peak-to-peak 1": 100 + i, "EMG Peak-to-peak 2": 7.5 * i}
        if times:
            values |= {"Date": "2021-06-25", "Time": f"10:00:{5 * i:02d}.250"}
        rows.append((frame((seeds or range(n))[i]), values))
    return export(tmp_path, rows, [frame(90 + k) for k in range(targets)], channels=(1, 2)).read_bytes()


def localite(tmp_path, n=N, *, times=True, empty=(), close=True):
    markers = [
        (frame(i), 1000 + 5000 * i if times else "NaN", 62.0, "NaN" if i in empty else 100 + i, 45.0) for i in range(n)
    ]
    data = triggers(tmp_path, markers).read_bytes()
    return data if close else data[: data.rfind(b"</TriggerMarkerList>")]


MADE = {BRAINSIGHT: brainsight, LOCALITE: localite}
CHANNELS = {BRAINSIGHT: ("1", "2"), LOCALITE: ("1",)}


def read(path, data, used, **options):
    rows = read_export(data, path, channels=CHANNELS[path])
    return find_new(used, rows.stimuli, **options)


def check(path, used, n=N):
    """Each stimulus is there, once, in its order, with what belongs to it."""
    assert len(used) == n
    assert len({stimulus.key for stimulus in used}) == n
    np.testing.assert_allclose([stimulus.meps[0] for stimulus in used], 100 + np.arange(n))
    for i, stimulus in enumerate(used):
        centre = frame(i)[:3, 3]
        np.testing.assert_allclose(stimulus.pose[:3, 3], centre, atol=1e-4)


@pytest.mark.parametrize("times", [True, False])
@pytest.mark.parametrize("path", [BRAINSIGHT, LOCALITE])
def test_a_file_that_is_rewritten_whole_with_each_row(tmp_path, path, times):
    used = []
    for n in range(N + 1):
        data = MADE[path](tmp_path, n, times=times)
        new = read(path, data, used).stimuli
        assert len(new) == (n > 0)
        used += new
        assert not read(path, data, used).stimuli
        # a restart: what was used comes from JSON
        used = [Stimulus.unpack(json.loads(json.dumps(stimulus.pack()))) for stimulus in used]
    check(path, used)


@pytest.mark.parametrize("path", [BRAINSIGHT, LOCALITE])
def test_a_file_that_is_cut_anywhere(tmp_path, path):
    """Every few bytes, from nothing to all of it: never a wrong row, each once, and at the end all."""
    data = MADE[path](tmp_path)
    used = []
    for end in [*range(0, len(data), 61), len(data)]:
        used += read(path, data[:end], used).stimuli
    check(path, used)


@pytest.mark.parametrize("path", [BRAINSIGHT, LOCALITE])
@pytest.mark.parametrize("before", range(N))
def test_a_restart_at_every_row(tmp_path, path, before):
    data = MADE[path](tmp_path, before)
    used = list(read(path, data, []).stimuli)
    assert len(used) == before
    used += read(path, MADE[path](tmp_path), used).stimuli
    check(path, used)


def test_a_row_without_a_line_end_waits(tmp_path):
    data = brainsight(tmp_path, 2)
    data = data[: data.index(b"# Session Landmark")]
    assert len(read(BRAINSIGHT, data, []).stimuli) == 2
    # its last number may be longer
    assert len(read(BRAINSIGHT, data.rstrip(b"\n"), []).stimuli) == 1


def test_a_list_of_markers_that_is_not_closed(tmp_path):
    assert len(read(LOCALITE, localite(tmp_path, 3, close=False), []).stimuli) == 3
    assert not read(LOCALITE, localite(tmp_path, 0, close=False), []).stimuli


def test_targets_that_come_meanwhile_are_no_stimuli(tmp_path):
    used = read(BRAINSIGHT, brainsight(tmp_path, 3), []).stimuli
    assert [s.name for s in read(BRAINSIGHT, brainsight(tmp_path, 4, targets=5), used).stimuli] == ["S3"]


def test_stimuli_of_the_same_name_and_time_are_told_apart_by_their_order(tmp_path):
    def markers(n):
        path = triggers(tmp_path, [(frame(i), 7000, 62.0, 100 + i, 45.0) for i in range(n)])
        return read_export(path.read_bytes(), LOCALITE, channels=("1",)).stimuli

    used = find_new([], markers(3)).stimuli
    assert len({stimulus.key for stimulus in used}) == 3
    (new,) = find_new(used, markers(4)).stimuli
    assert new.meps[0] == 103


def test_a_row_that_comes_between_others_is_new(tmp_path):
    """Brainsight sorts by its sessions: going on in an earlier one puts rows in the middle."""
    rows = read_export(brainsight(tmp_path), BRAINSIGHT, channels=("1",)).stimuli
    used = [rows[0], rows[3]]
    assert [s.key for s in find_new(used, rows).stimuli] == [rows[i].key for i in (1, 2, 4, 5)]


@pytest.mark.parametrize("path", [BRAINSIGHT, LOCALITE])
def test_what_was_changed_is_refused(tmp_path, path):
    rows = read_export(MADE[path](tmp_path), path, channels=CHANNELS[path]).stimuli
    used = rows[:4]
    with pytest.raises(ValueError, match=r"^--watch: it holds 3 stimuli, and 4 were used: it shrank; restore"):
        find_new(used, rows[:3])
    with pytest.raises(ValueError, match=r"stimulus 2 \(.*\) is gone since it was used; restore"):
        find_new(used, [rows[0], *rows[2:]])
    pose = rows[1].pose.copy()
    pose[0, 3] += 1.0
    for change, said in (
        ({"pose": pose}, "another position"),
        ({"pose": np.full((4, 4), np.nan)}, "another position"),
        ({"intensity": 80.0}, "another intensity"),
        ({"meps": rows[1].meps + 1}, "other MEPs"),
        ({"meps": rows[1].meps * np.nan}, "other MEPs"),
        ({"meps": None}, "no row of MEPs any more"),
    ):
        with pytest.raises(ValueError, match=rf"stimulus 2 \(.*\) has {said} since it was used"):
            find_new(used, [rows[0], replace(rows[1], **change), *rows[2:]])


def test_an_mep_that_comes_late_stays_missed(tmp_path):
    used = read(BRAINSIGHT, brainsight(tmp_path, 3, empty=(1,)), []).stimuli
    assert np.isnan(used[1].meps).all()
    news = read(BRAINSIGHT, brainsight(tmp_path, 4), used)
    assert [s.name for s in news.stimuli] == ["S3"]
    assert news.remarks == ("an MEP of stimulus 2 (S1) came after it was used, and stays missed",)


def test_the_last_row_waits_a_while_for_its_mep(tmp_path):
    data = brainsight(tmp_path, 3, empty=(1, 2))
    news = read(BRAINSIGHT, data, [], settled=False)
    # the one in the middle is missed: a later stimulus was given
    assert ([s.name for s in news.stimuli], news.waiting) == (["S0", "S1"], 1)
    assert len(read(BRAINSIGHT, data, []).stimuli) == 3


def test_channels_are_taken_by_their_numbers(tmp_path):
    """Not by their order among those with a value: the first may have none yet."""
    rows = [(frame(0), {"EMG Peak-to-peak 3": 90}), (frame(1), {"EMG Peak-to-peak 1": 50, "EMG Peak-to-peak 2": 3})]
    for n, expected in ((1, [[np.nan, 90]]), (2, [[np.nan, 90], [50, np.nan]])):
        data = export(tmp_path, rows[:n], channels=(1, 2, 3)).read_bytes()
        seen = read_export(data, BRAINSIGHT, channels=("1", "3"))
        np.testing.assert_array_equal([s.meps for s in seen.stimuli], expected)
    assert seen.remarks == ("the export's EMG channel 2 is no muscle's and is not read",)


def table(n, names=None, reasons=True):
    head = (["name"] if names else []) + ["mep_FDI_uv", "mep_ADM_uv"] + (["reason_FDI"] if reasons else [])
    lines = [",".join(head)]
    for i in range(n):
        cells = ([names[i]] if names else []) + [str(100 + i), "" if i == 1 else str(10.5 * i)]
        lines.append(",".join(cells + (["background: 30 uV RMS" if i == 2 else ""] if reasons else [])))
    return ("\n".join(lines) + "\n").encode()


@pytest.mark.parametrize("path", [BRAINSIGHT, LOCALITE])
def test_a_table_of_meps_that_is_behind_or_before(tmp_path, path):
    """Either file may be the first to have a row; both are cut somewhere."""
    used = []
    steps = [(0, 0), (0, 2), (1, 2), (3, 2), (3, 2), (3, 3), (5, 4), (6, 6)]
    for n_row, n_mep in steps:
        rows = read_export(MADE[path](tmp_path, n_row), path, channels=()).stimuli
        data = table(n_mep)
        meps = read_table(data + b"99", Path("meps.csv"), ("FDI", "ADM"))
        news = find_new(used, add_meps(rows, meps))
        used += news.stimuli
        assert len(used) == min(n_row, n_mep)
        assert news.waiting == n_row - len(used)
    expected = [[100 + i, 10.5 * i] for i in range(N)]
    expected[1][1] = np.nan
    expected[2][0] = np.nan
    np.testing.assert_array_equal([s.meps for s in used], expected)


def test_a_table_with_names_goes_by_them(tmp_path):
    rows = read_export(brainsight(tmp_path, 4), BRAINSIGHT, channels=()).stimuli
    meps = read_table(table(4, names=["S2", "S0", "S9", "S3"], reasons=False), Path("meps.csv"))
    assert meps.muscles == ("FDI", "ADM")
    news = find_new([], add_meps(rows, meps))
    assert [(s.name, s.meps[0]) for s in news.stimuli] == [("S0", 101), ("S2", 100), ("S3", 103)]
    assert news.waiting == 1
    with pytest.raises(ValueError, match="two rows called 'S2'; give each stimulus one row"):
        read_table(table(4, names=["S2", "S0", "S2", "S3"]), Path("meps.csv"))


@pytest.mark.parametrize("n", [0, 3])
def test_a_table_that_is_cut_anywhere(n):
    data = table(n)
    for end in range(len(data) + 1):
        meps = read_table(data[:end], Path("meps.csv"), ("FDI",))
        assert len(meps.amplitude) == max(0, data[:end].count(b"\n") - 1)


def test_a_stimulus_without_a_position_is_told(tmp_path):
    path = triggers(tmp_path, [(np.eye(4), 1, 60.0, 10, 45.0), (frame(1), 2, 60.0, 20, 45.0)])
    new = read(LOCALITE, path.read_bytes(), []).stimuli
    assert [s.located for s in new] == [False, True]
    again = [Stimulus.unpack(json.loads(json.dumps(stimulus.pack()))) for stimulus in new]
    assert not read(LOCALITE, path.read_bytes(), again).stimuli


@pytest.mark.parametrize(
    ("path", "data", "said"),
    [
        (Path("a.txt"), b"x,y,z\n1,2,3\n", "--watch: a.txt is no Brainsight text export and no Localite XML"),
        (Path("a.xml"), b"<?xml version='1.0'?><LocTMSTriggerData/>", "--watch: a.xml is a LocTMSTriggerData"),
        (Path("a.txt"), b"# Version: 3\n# Sample Name\tIndex\nS1\t1\n", "--watch: a.txt, line 2: the columns"),
    ],
)
def test_what_is_no_export(path, data, said):
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        read_export(data, path)
    assert "/tmp" not in str(caught.value)


def test_a_list_of_targets_is_refused(tmp_path):
    from jaxm2m import session

    path = session.save_targets(tmp_path / "targets.xml", frame(1), space="subject")
    with pytest.raises(ValueError, match="holds targets; give the stimuli, a TriggerMarkers_Coil"):
        read_export(path.read_bytes(), path)


def test_the_newest_recording_of_a_folder(tmp_path):
    folder = tmp_path / "TMSTrigger"
    folder.mkdir()
    nowhere = [(np.eye(4), 1, 60.0, 10, 45.0)]
    somewhere = [(frame(1), 1, 60.0, 10, 45.0)]
    assert _design_watch.find_markers(tmp_path) is None
    for time, one, other in (("101", somewhere, nowhere), ("102", nowhere, somewhere), ("103", nowhere, [])):
        triggers(folder, one, name=f"TriggerMarkers_Coil0_{time}.xml")
        triggers(folder, other, name=f"TriggerMarkers_Coil1_{time}.xml")
    assert _design_watch.find_markers(tmp_path).name == "TriggerMarkers_Coil1_102.xml"
    triggers(folder, somewhere, name="TriggerMarkers_Coil0_104.xml")
    triggers(folder, somewhere, name="TriggerMarkers_Coil1_104.xml")
    with pytest.raises(ValueError, match=r"both TriggerMarkers_Coil0_104.xml and TriggerMarkers_Coil1_104.xml"):
        _design_watch.find_markers(tmp_path)
