"""Many items in parts: that kills, full disks, second writers and other settings do no harm."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from jaxm2m import files

pytestmark = pytest.mark.host

SETTINGS = {
    "head": files.make_setting("50x60x50 voxels", np.arange(3.0)),
    "tolerance": files.make_setting("1e-05", 1e-5),
}


def begin(path, settings=SETTINGS, **changes):
    sizes = {"count": 5, "size": 2, "unit": "squares", "content": "squares of test_files_parts"}
    return files.open_parts(path, settings, **(sizes | changes))


def store(run, index):
    with run.store(index) as part:
        part["square"] = np.arange(run.count)[run.items(index)] ** 2


def finish(run):
    for i in run.missing:
        store(run, i)
    with run.finish() as file:
        squares = []
        for i in run.indices:
            with run.open(i) as part:
                squares.append(part["square"][()])
        file["square"] = np.concatenate(squares)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "squares.h5"


@pytest.fixture
def unfinished(path):
    """The first of three parts is stored."""
    with begin(path) as run:
        store(run, 0)
    return path


@pytest.fixture
def whole(path):
    with begin(path) as run:
        finish(run)
    return path


def squares(path):
    with files.open_hdf5(path) as file:
        return file["square"][()].tolist()


def visible(folder):
    return sorted(f.name for f in folder.iterdir() if not f.name.startswith("."))


def test_all_parts_become_one_file_and_go(whole):
    assert squares(whole) == [0, 1, 4, 9, 16]
    assert visible(whole.parent) == [whole.name]
    with files.open_hdf5(whole) as file:
        assert files.read_settings(file) == SETTINGS


def test_the_last_part_may_be_smaller(path):
    with begin(path) as run:
        assert list(run.indices) == run.missing == [0, 1, 2]
        assert [run.items(i) for i in run.indices] == [slice(0, 2), slice(2, 4), slice(4, 5)]
        store(run, 2)
        assert run.stored == 1
        assert run.kept == "1 of 5 squares are kept"
        assert run.missing == [0, 1]


def test_a_run_goes_on_from_what_is_stored(unfinished):
    assert files.count_stored(unfinished) == 2
    before = (unfinished.with_name("squares.h5.parts") / "000000.h5").stat().st_mtime_ns
    with begin(unfinished) as run:
        assert run.missing == [1, 2]
        store(run, 1)
        assert run.file(0).stat().st_mtime_ns == before
        finish(run)
    assert squares(unfinished) == [0, 1, 4, 9, 16]


def test_a_run_that_goes_on_keeps_its_division(path):
    with begin(path, batch_size=2, size=4) as run:
        store(run, 0)
    with begin(path, batch_size=1, size=2) as run:
        assert (run.batch_size, run.size, run.missing) == (2, 4, [1])


def test_a_finished_file_is_left_alone(whole):
    before = whole.read_bytes(), whole.stat().st_mtime_ns
    with begin(whole) as run:
        assert run.finished
    assert (whole.read_bytes(), whole.stat().st_mtime_ns) == before
    assert not run.folder.exists()


def test_nothing_is_left_of_a_part_whose_block_raises(unfinished):
    with begin(unfinished) as run:
        with pytest.raises(ZeroDivisionError), run.store(1) as part:
            part["square"] = 1 / 0
        assert visible(run.folder) == ["000000.h5", "run.json"]
        store(run, 1)
        store(run, 2)
        with pytest.raises(ZeroDivisionError), run.finish() as file:
            file["square"] = 1 / 0
        assert visible(run.folder) == ["000000.h5", "000001.h5", "000002.h5", "run.json"]
    assert not unfinished.exists()


def killed(path, code):
    """Run `code` with a run `run` and a function `die`."""
    begin = "files.open_parts(sys.argv[1], settings, count=5, size=2, unit='squares', content='squares')"
    script = (
        "import os, signal, sys, numpy as np\nfrom pathlib import Path\nfrom jaxm2m import files\n"
        "settings = {'head': files.make_setting('50x60x50 voxels', np.arange(3.0))}\n"
        "settings |= {'tolerance': files.make_setting('1e-05', 1e-5)}\n"
        "def die(*_): os.kill(os.getpid(), signal.SIGKILL)\n"
        f"with {begin} as run:\n {code}"
    )
    process = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True)
    assert process.returncode == -signal.SIGKILL, process.stderr


def test_killed_while_a_part_is_written(unfinished):
    killed(unfinished, "os.replace = die\n with run.store(1) as part: part['square'] = np.array([4, 9])")
    folder = unfinished.with_name("squares.h5.parts")
    assert len(list(folder.glob(".*~000001.h5"))) == 1
    assert files.count_stored(unfinished) == 2
    with begin(unfinished) as run:
        assert not list(folder.glob(".*~*"))
        assert run.missing == [1, 2]
        finish(run)
    assert squares(unfinished) == [0, 1, 4, 9, 16]
    assert visible(unfinished.parent) == [unfinished.name]


def test_killed_while_the_file_is_brought_together(unfinished):
    with begin(unfinished) as run:
        store(run, 1)
        store(run, 2)
    killed(unfinished, "with run.finish() as file: file['square'] = np.arange(5); file.flush(); die()")
    assert not unfinished.exists()
    assert files.count_stored(unfinished) == 5
    # whole, but not yet under its name
    unfinished.with_name("squares.h5.parts").joinpath("complete.h5").write_bytes(b"left")
    with begin(unfinished) as run:
        assert run.missing == []
        finish(run)
    assert squares(unfinished) == [0, 1, 4, 9, 16]
    assert visible(unfinished.parent) == [unfinished.name]


def test_parts_that_outlive_the_finished_file_go(whole):
    folder = whole.with_name("squares.h5.parts")
    folder.mkdir()
    run = {"settings": SETTINGS, "batch": 1, "part": 2, "total": 5}
    (folder / "run.json").write_text(json.dumps(run))
    (folder / "000000.h5").write_bytes(b"any")
    with begin(whole) as run:
        assert run.finished
    assert visible(whole.parent) == [whole.name]


def test_killed_before_the_run_was_described(path):
    folder = path.with_name("squares.h5.parts")
    folder.mkdir()
    (folder / ".abc~run.json").write_text("{")
    with begin(path) as run:
        assert visible(folder) == ["run.json"]
        finish(run)
    assert squares(path) == [0, 1, 4, 9, 16]


def test_a_damaged_part_and_one_of_another_run_are_missing(unfinished):
    with begin(unfinished) as run:
        store(run, 1)
        store(run, 2)
        os.truncate(run.file(1), run.file(1).stat().st_size // 2)
        with h5py.File(run.file(2), "r+") as file:
            file.attrs["run"] = "another"
        assert run.missing == [1, 2]
        finish(run)
    assert squares(unfinished) == [0, 1, 4, 9, 16]


@pytest.mark.parametrize("state", ["unfinished", "whole"])
def test_other_settings_are_refused_and_named(state, request):
    path = request.getfixturevalue(state)
    remedy = "delete squares.h5." if state == "whole" else "delete the folder squares.h5.parts."
    same_words = SETTINGS | {"head": files.make_setting("50x60x50 voxels", np.arange(3.0) + 1e-12)}
    for settings, words in (
        (same_words, "another head;"),
        (SETTINGS | {"tolerance": files.make_setting("1e-06", 1e-6)}, "another tolerance (1e-05 then, 1e-06 now);"),
        (SETTINGS | {"dtype": files.make_setting("float64")}, "another dtype (unknown then, float64 now);"),
        ({"head": same_words["head"]}, "another head, tolerance (1e-05 then, unknown now);"),
    ):
        with pytest.raises(ValueError, match="was begun with another") as error, begin(path, settings):
            pass
        assert str(error.value).startswith(f"path: {path} was begun with {words}")
        assert str(error.value).endswith(remedy)
    if state == "unfinished":
        assert files.count_stored(path) == 2
        with pytest.raises(ValueError, match="begun with 5 squares, not 6"), begin(path, count=6):
            pass


def test_two_writers_are_refused(unfinished):
    with begin(unfinished), pytest.raises(RuntimeError, match="in use by process"), begin(unfinished):
        pass


def test_a_full_disk_keeps_what_is_stored(unfinished, monkeypatch):
    write = Path.write_bytes

    def full(self, data):
        write(self, bytes(data)[:100])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))

    with begin(unfinished) as run:
        with monkeypatch.context() as patch:
            patch.setattr(Path, "write_bytes", full)
            with pytest.raises(OSError, match=r"no space left on the disk of .*; 2 of 5 squares are kept: make room"):
                store(run, 1)
        assert visible(run.folder) == ["000000.h5", "run.json"]
        store(run, 1)
        store(run, 2)
        with monkeypatch.context() as patch:
            patch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1 << 20}))
            with pytest.raises(OSError, match="5 of 5 squares are kept"), run.finish():
                pass
        # in the middle of HDF5's writing it is told in words only
        with pytest.raises(OSError, match="5 of 5 squares are kept"), run.finish():
            raise RuntimeError("file write failed: errno = 28, error message = 'No space left on device'")
        assert run.missing == []
        finish(run)
    assert squares(unfinished) == [0, 1, 4, 9, 16]


def test_other_errors_stay_what_they_are(unfinished):
    with begin(unfinished) as run:
        store(run, 1)
        store(run, 2)
        with pytest.raises(RuntimeError, match=r"^something else$"), run.finish():
            raise RuntimeError("something else")


def test_a_disk_that_will_be_full_is_told_early(unfinished, monkeypatch):
    with begin(unfinished) as run:
        run.check_room(0)
        size = run.file(0).stat().st_size
        for free, enough in ((5 * size, True), (5 * size - 1, False)):  # two parts more, and three in the file
            monkeypatch.setattr("shutil.disk_usage", lambda _, free=free: type("Usage", (), {"free": free}))
            if enough:
                run.check_room(0)
            else:
                with pytest.raises(OSError, match=r"5 squares need about .* GB more"):
                    run.check_room(0)


def test_what_is_not_a_run_is_left_alone(path):
    path.write_text("no HDF5")
    with pytest.raises(FileExistsError, match="holds no squares of test_files_parts"), begin(path):
        pass
    path.unlink()
    with h5py.File(path, "w") as file:
        file.attrs["settings"] = json.dumps(["not", "settings"])
    with pytest.raises(FileExistsError, match="holds no squares"), begin(path):
        pass
    path.unlink()
    folder = path.with_name("squares.h5.parts")
    folder.mkdir()
    (folder / "mine.txt").write_text("keep")
    with pytest.raises(FileExistsError, match="holds no unfinished run"), begin(path):
        pass
    assert visible(folder) == ["mine.txt"]
    assert files.count_stored(path) == 0


def test_somebody_elses_file_in_the_folder_stays(unfinished):
    folder = unfinished.with_name("squares.h5.parts")
    (folder / "mine.txt").write_text("keep")
    with begin(unfinished) as run:
        finish(run)
    assert visible(folder) == ["mine.txt"]


def test_names_that_cannot_be_written_are_refused(tmp_path):
    with pytest.raises(ValueError, match="does not end in"):
        files.check_output(tmp_path / "a.nii")
    with pytest.raises(FileNotFoundError, match="make it first"):
        files.check_output(tmp_path / "nowhere" / "a.h5")
    (tmp_path / "folder.h5").mkdir()
    with pytest.raises(IsADirectoryError, match="name a file in it"):
        files.check_output(tmp_path / "folder.h5")
    with pytest.raises(ValueError, match="size: 0"), begin(tmp_path / "a.h5", size=0):
        pass
    assert files.check_output(str(tmp_path / "a.h5")) == tmp_path / "a.h5"


def test_differences_compare_content_not_words():
    a = {"head": files.make_setting("a head", 1)}
    assert files.describe_differences(a, {"head": files.make_setting("a head", 1)}) == ""
    assert files.describe_differences(a, {"head": files.make_setting("a head", 2)}) == "head"
    assert files.describe_differences(a, {"head": files.make_setting("b", 1)}) == "head (a head then, b now)"


def of_version_0_1(settings):
    """Settings as version 0.1 wrote them."""
    return {name: {"is": entry["value"], "sha256": entry["sha256"]} for name, entry in settings.items()}


def test_settings_of_version_0_1_are_read(whole):
    with h5py.File(whole, "r+") as file:
        file.attrs["settings"] = json.dumps(of_version_0_1(SETTINGS))
    with files.open_hdf5(whole) as file:
        assert files.read_settings(file) == SETTINGS
    with begin(whole) as run:
        assert run.finished


def test_a_run_of_version_0_1_goes_on(unfinished):
    folder = unfinished.with_name("squares.h5.parts")
    record = json.loads((folder / "run.json").read_text())
    old = of_version_0_1(SETTINGS)
    (folder / "run.json").write_text(json.dumps(record | {"settings": old}))
    with h5py.File(folder / "000000.h5", "r+") as file:
        file.attrs["run"] = files.fingerprint(old, record["batch"], record["part"])
    assert files.count_stored(unfinished) == 2
    with begin(unfinished) as run:
        assert run.missing == [1, 2]
    changed = SETTINGS | {"tolerance": files.make_setting("1e-06", 1e-6)}
    with pytest.raises(ValueError, match="another tolerance \\(1e-05 then, 1e-06 now\\)"), begin(unfinished, changed):
        pass
