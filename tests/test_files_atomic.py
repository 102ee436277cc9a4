import os
import signal
import subprocess
import sys
import time

import pytest

from jaxm2m.files import atomic, lock

pytestmark = pytest.mark.host


def test_atomic_replaces_when_the_block_ends(tmp_path):
    path = tmp_path / "field.nii.gz"
    path.write_text("old")
    with atomic(path) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.name.endswith(".nii.gz")
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["field.nii.gz"]


def test_atomic_leaves_the_old_file_and_nothing_else_when_the_block_raises(tmp_path):
    path = tmp_path / "x.h5"
    path.write_text("old")

    def fail():
        with atomic(path) as temporary:
            temporary.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["x.h5"]


def test_atomic_file_has_ordinary_permissions(tmp_path):
    (tmp_path / "ordinary").write_text("")
    with atomic(tmp_path / "x") as temporary:
        temporary.write_text("")
    assert (tmp_path / "x").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def test_atomic_names_a_missing_folder(tmp_path):
    with (
        pytest.raises(FileNotFoundError, match=r"path: the folder .*nowhere does not exist; make it"),
        atomic(tmp_path / "nowhere" / "x"),
    ):
        pass
    with pytest.raises(IsADirectoryError, match="is a folder"), atomic(tmp_path):
        pass


def test_killed_writer_leaves_the_old_file_whole(tmp_path):
    path = tmp_path / "x"
    path.write_text("old")
    code = (
        "import sys, time\nfrom jaxm2m.files import atomic\n"
        "with atomic(sys.argv[1]) as t:\n t.write_text('half'); print('go', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "go\n"
        process.kill()
    assert path.read_text() == "old"


def test_lock_refuses_a_second_holder_and_frees_itself(tmp_path):
    for path in (tmp_path, tmp_path / "fields.h5"):
        with lock(path), pytest.raises(RuntimeError, match=rf"in use by process {os.getpid()} on .*; wait"), lock(path):
            pass
        with lock(path):
            pass


def test_two_files_have_two_locks(tmp_path):
    with lock(tmp_path / "a"), lock(tmp_path / "b"):
        pass


def test_lock_of_a_killed_process_is_free(tmp_path):
    code = (
        "import sys, time\nfrom jaxm2m.files import lock\n"
        "with lock(sys.argv[1]):\n print('go', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "go\n"
        with pytest.raises(RuntimeError, match=f"process {process.pid} "), lock(tmp_path):
            pass
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while True:
        try:
            with lock(tmp_path):
                return
        except RuntimeError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
