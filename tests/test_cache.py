"""Where things are kept that could be made again: the cache folder, and compiled programs in it."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest

from jaxm2m import _cache, files
from jaxm2m.head import _distance

pytestmark = pytest.mark.host

PROGRAM = """
from jaxm2m._cache import keep_programs
folder = keep_programs()
import jax, jax.numpy as jnp
read = []
jax.monitoring.register_event_listener(lambda name, **_: read.append(name.endswith("/cache_hits")))
x = jax.jit(lambda x: jnp.sin(x) @ jnp.cos(x).T)(jnp.ones((8, 8)))
print(folder, sum(read), float(x[0, 0]).hex())
"""


def run(**variables):
    """Folder, programs read from it, and the number, of a process that keeps its programs."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_", "TF_"))} | variables
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM],
        env=environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    folder, read, value = done.stdout.split()
    return folder, int(read), value


@pytest.fixture
def unset(monkeypatch, tmp_path):
    """A process in which the user has set nothing, and its cache folder."""
    for name in list(os.environ):
        if name.startswith(("JAX_", "XLA_", "TF_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("JAXM2M_CACHE", str(tmp_path))
    return tmp_path


def test_the_next_process_compiles_nothing_and_gives_the_same_numbers(tmp_path):
    folder, read, value = run(JAXM2M_CACHE=str(tmp_path))
    assert folder.startswith(str(tmp_path / "programs"))
    assert read == 0
    kept = {p.name for p in (tmp_path / "programs").rglob("*-cache")}
    assert kept
    again = run(JAXM2M_CACHE=str(tmp_path))
    assert again[1] > 0
    assert (again[0], again[2]) == (folder, value)
    assert {p.name for p in (tmp_path / "programs").rglob("*-cache")} == kept
    # a program that was cut short is compiled anew without a word
    for path in (tmp_path / "programs").rglob("*-cache"):
        path.write_bytes(path.read_bytes()[:40])
    assert run(JAXM2M_CACHE=str(tmp_path)) == (folder, 0, value)


@pytest.mark.parametrize("name", ["JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE"])
def test_settings_of_the_user_hold(unset, monkeypatch, name):
    monkeypatch.setenv(name, "0")
    assert _cache.keep_programs() is None
    assert not list(unset.iterdir())


def test_what_is_kept_is_what_would_be_made(unset):
    values, made = np.arange(6.0).reshape(2, 3), []

    def load(most=1 << 20):
        return files.load_or_make(
            "kind", "k" * 64, lambda: made.append(1) or values, read=lambda file: file["a"][()],
            write=lambda file, a: file.create_dataset("a", data=a), most=most,
        )  # fmt: skip

    for _ in range(2):
        np.testing.assert_array_equal(load(), values)
    assert len(made) == 1
    (path,) = (unset / "kind").iterdir()
    path.write_bytes(path.read_bytes()[:100])  # cut short: made again
    np.testing.assert_array_equal(load(), values)
    np.testing.assert_array_equal(load(), values)
    assert len(made) == 2
    load(most=1)  # more than may be kept: it is neither read nor left there
    assert len(made) == 3
    assert not list((unset / "kind").iterdir())
    (unset / "kind").rmdir()
    (unset / "kind").write_text("in the way")
    np.testing.assert_array_equal(load(), values)


def test_surfaces_of_the_standard_head_are_kept_and_those_of_a_person_are_not(unset):
    occupancy = np.zeros((24, 24, 24), np.float32)
    occupancy[6:18, 6:18, 6:18] = 1
    frame = np.diag([2.0, 2.0, 2.0, 1.0])
    person, _ = _distance.build_scalp(occupancy, frame, padding=8.0)
    assert not list(unset.iterdir())
    for _ in range(2):
        kept, _ = _distance.build_scalp(occupancy, frame, padding=8.0, keep=True)
        np.testing.assert_array_equal(kept.coefficients, person.coefficients)
        assert len(list((unset / "surfaces").iterdir())) == 1


def test_a_folder_that_cannot_be_made_is_done_without(unset, monkeypatch):
    (unset / "file").write_text("x")
    monkeypatch.setenv("JAXM2M_CACHE", str(unset / "file"))
    assert _cache.keep_programs() is None


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="the system has no owners of files")
def test_a_folder_that_others_could_fill_is_done_without(unset, monkeypatch):
    folder = _cache.programs_folder()
    folder.mkdir(parents=True)
    for mode in (0o770, 0o757):
        folder.chmod(mode)
        assert _cache.keep_programs() is None
    folder.chmod(0o700)
    user = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: user + 1)
    assert _cache.keep_programs() is None
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ


def test_the_oldest_programs_go(tmp_path, monkeypatch):
    monkeypatch.setattr(_cache, "_MOST", 250)
    for age, name in enumerate(("new", "middle", "old")):
        (tmp_path / name).write_bytes(b"0" * 100)
        os.utime(tmp_path / name, (time.time() - 100 * age,) * 2)
    _cache._remove_oldest(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["middle", "new"]


def test_each_kind_of_processor_has_its_folder(unset, monkeypatch):
    here = _cache.programs_folder()
    assert here == _cache.programs_folder()
    assert here.parent == unset / "programs"
    monkeypatch.setattr("platform.machine", lambda: "another")
    assert _cache.programs_folder() != here


def test_commands_keep_programs_unless_told_not_to(tmp_path):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")} | {"JAXM2M_CACHE": str(tmp_path)}

    def programs(*options):
        done = subprocess.run(
            [sys.executable, "-c", "from jaxm2m.cli import main; main()", *options, "doctor"],
            env=environment | {"COLUMNS": "300"}, capture_output=True, text=True, check=True, timeout=120,
        )  # fmt: skip
        return next(line for line in done.stdout.splitlines() if line.startswith("programs"))

    assert str(tmp_path / "programs") in programs()
    assert "each start compiles anew" in programs("--no-compile-cache")
