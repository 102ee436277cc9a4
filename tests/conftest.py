"""What every test stands on: both precisions, checked annotations, data files.

Precision
    Every test runs twice, in float32 and in float64: `test_x[float32]`, `test_x[float64]`. `-k float32` picks one;
    so does the environment variable `JAX_ENABLE_X64=0|1`, which jax itself reads. Opt out with a marker or a fixture:

    - `@pytest.mark.float64`, or the fixture `x64`: float64 only (central differences, exact identities);
    - `@pytest.mark.float32`: float32 only;
    - `@pytest.mark.host`: nothing numerical in JAX (files, errors, the command line): once, JAX as it starts.

    `pytestmark = pytest.mark.host` at the top of a file speaks for the whole file. A fixture wider than a test that
    holds JAX arrays must request `precision` (the string "float32", "float64" or "host"), so that it is built anew
    for each; never keep arrays in a module global or in `functools.cache`. `tolerance(1e-5, 1e-12)` gives the number
    that belongs to the running precision.

Annotations
    jaxtyping and beartype check every annotated function of the package. Pytrees made by `jaxm2m._pytree.tree` are
    exempt at construction, since JAX rebuilds them with batched leaves and placeholders.

Speed
    `python -m pytest` runs the default set, `python -m pytest -m ""` all tests: `@pytest.mark.slow` marks the rest,
    whole or in one precision (`@pytest.mark.slow("float64")`), or a file that goes a line from end to end
    (`pytestmark`). What runs in both precisions runs in float64 with the rest. Nearly all of the time is compiling, so
    programs are compiled without optimisation; `@pytest.mark.optimized` asks for it where a test computes longer than
    it compiles (four times faster then). All are kept between runs in `.jax_cache`: JAX looks them up by the program,
    its flags and the version of jaxlib, and the numbers are the same to the bit (`test_compilation_cache.py`).
    `XLA_FLAGS=""` and `JAX_ENABLE_COMPILATION_CACHE=0` give what a user's process does. Slow tests that have not begun
    when the clock (s since 1970) passes `JAXM2M_SLOW_UNTIL` are skipped, with that reason.

Data
    `data("coils/x.ccd")` is the path of a file that a user would bring, or skips the test with the reason. Files are
    looked for under the environment variable `JAXM2M_TEST_DATA`, else in `../shared/data`.
"""

import gc
import os
import time
from importlib.metadata import version
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:
    # two workers on two cores: NumPy's threads would only fight (jax's own pool is shared by the system)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")
os.environ.setdefault("MPLBACKEND", "agg")
# nearly all of the tests' time is compiling: what most of them run is small, and needs no optimising
if "XLA_FLAGS" not in os.environ:
    os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    if version("jaxlib").startswith("0.10."):  # another jaxlib would not start with a flag that it does not know
        os.environ["XLA_FLAGS"] = "--xla_cpu_use_fusion_emitters=false"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).resolve().parents[1] / ".jax_cache"))
# all: the many small ones take longer to compile than to read
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# XLA complains of each kept program that it names features of the processor by other words
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

jaxtyping.install_import_hook("jaxm2m", "beartype.beartype")

import jaxm2m._pytree  # noqa: E402  (after the hook, before any room)

_make_tree = jaxm2m._pytree.tree


def _unchecked_tree(cls):
    cls = _make_tree(cls)
    cls.__no_type_check__ = True
    return cls


jaxm2m._pytree.tree = _unchecked_tree

_MARKERS = {
    "float32": "run in float32 only",
    "float64": "run in float64 only",
    "host": "nothing numerical in JAX: run once",
}
# of all tests, a minute and more on two cores: a long file that came last would run alone, on one core
_LONG = (
    "test_cli_demo",
    "test_notebooks",
    "test_cli_design",
    "test_muscle_sources",
    "test_placement_optimize",
    "test_lowering",
    "test_muscle_compare",
    "test_efield_tetrahedra",
    "test_design_loop",
    "test_cli_place_muscle",
    "test_efield_basis",
    "test_efield_derivatives",
    "test_cli_basis",
    "test_cli_place",
    "test_efield_uncertainty",
    "test_muscle_compare_sources",
    "test_muscle_source_tracker",
    "test_population_directory",
    "test_head_surface",
    "test_design_plan",
    "test_muscle_regression",
    "test_population_train",
    "test_compilation_cache",
    "test_design_threshold",
)
_SLOW_UNTIL = float(os.environ.get("JAXM2M_SLOW_UNTIL", "inf"))
_unoptimized = os.environ.get("JAX_DISABLE_MOST_OPTIMIZATIONS", "0").lower() in ("1", "true", "yes", "on")


def pytest_configure(config):
    for name, meaning in _MARKERS.items():
        config.addinivalue_line("markers", f"{name}: {meaning}")
    config.addinivalue_line("markers", "optimized: computes longer than it compiles, so compiled with optimisation")
    config.addinivalue_line("markers", "slow(*precisions): not in the default set, or not in these precisions")


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items):
    """Take the mark of single precisions off the other ones, and begin with the files that take longest."""
    for node in {node for item in items for node in item.listchain()}:
        node.own_markers = [m for m in node.own_markers if not (m.name == "slow" and m.args)]
    result = yield
    items.sort(key=lambda item: _LONG.index(item.path.stem) if item.path.stem in _LONG else len(_LONG))
    return result


def pytest_collection_finish():
    """What stays to the end need not be gone through again with every collection of garbage."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    # before any fixture: what a fixture compiles is compiled as its first test is
    quick = _unoptimized and not item.get_closest_marker("optimized")
    jax.config.update("jax_disable_most_optimizations", quick)
    if time.time() > _SLOW_UNTIL and item.get_closest_marker("slow"):
        pytest.skip("slow, and JAXM2M_SLOW_UNTIL has passed: this machine had no time left for it")


def pytest_generate_tests(metafunc):
    wanted = [name for name in _MARKERS if metafunc.definition.get_closest_marker(name)]
    if "x64" in metafunc.fixturenames:
        wanted = ["float64"]
    if not wanted:
        wanted = ["float32", "float64"]
    if "JAX_ENABLE_X64" in os.environ:
        other = "float32" if _started_in_x64 else "float64"
        wanted = [name for name in wanted if name != other] or [
            pytest.param(wanted[0], marks=pytest.mark.skip(f"JAX_ENABLE_X64 leaves {wanted[0]} out"))
        ]
    slow = {name for mark in metafunc.definition.iter_markers("slow") for name in mark.args}
    if wanted == ["float32", "float64"]:
        slow.add("float64")
    wanted = [pytest.param(name, marks=pytest.mark.slow) if name in slow else name for name in wanted]
    # the session's scope makes pytest run one precision after the other, and rebuild shared fixtures between them
    metafunc.parametrize("precision", wanted, indirect=True, scope="session")


_started_in_x64 = jax.config.jax_enable_x64


@pytest.fixture(scope="session", autouse=True)
def precision(request):
    """The running precision, "float32", "float64" or "host"."""
    name = request.param
    jax.config.update("jax_enable_x64", {"float32": False, "float64": True, "host": _started_in_x64}[name])
    yield name
    jax.config.update("jax_enable_x64", _started_in_x64)


@pytest.fixture(scope="module", autouse=True)
def _forgetful():
    """What a file compiled goes with it: all of it would fill the memory of a small machine."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="session", autouse=True)
def _casings():
    """The surface round the same windings is made once: half a second, for each of very many coils."""
    from jaxm2m.coil import _casing

    make, kept = _casing.offset_surface, {}

    def offset_surface(points, thickness=_casing.THICKNESS, dtype=None):
        key = np.asarray(points, float).tobytes(), float(thickness), jnp.dtype(dtype or jnp.result_type(float)).name
        if key not in kept:
            casing = make(points, thickness, dtype)
            kept[key] = np.asarray(casing.vertices), np.asarray(casing.triangles)
        return _casing.Casing(*map(jnp.asarray, kept[key]))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_casing, "offset_surface", offset_surface)
        yield


@pytest.fixture
def x64(precision):
    """Makes the test run in float64 only."""
    assert precision == "float64"


@pytest.fixture
def tolerance(precision):
    """`tolerance(single, double)`: the one of the two that belongs to the running precision."""
    return lambda single, double: double if precision == "float64" else single


@pytest.fixture(scope="session")
def data():
    """`data(relative)`: the path of a file among the users' files, or a skip that says what is missing."""
    folder = Path(os.environ.get("JAXM2M_TEST_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")

    def find(relative: str) -> Path:
        path = folder / relative
        if not path.exists():
            pytest.skip(f"no {relative} under {folder}; set JAXM2M_TEST_DATA to the folder that holds it")
        return path

    return find
