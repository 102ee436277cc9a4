import json
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxm2m
from jaxm2m import _jaxlib_check
from jaxm2m._pytree import StaticMetadata, tree

ROOT = Path(__file__).resolve().parents[1]


def in_a_fresh_process(code: str) -> dict:
    """What `code` leaves in `result`, run without this suite's hooks."""
    code = "import json\n" + code + "\nprint(json.dumps(result))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.host
def test_import_is_light_and_changes_nothing():
    result = in_a_fresh_process(
        """
import sys, warnings
import jax
settings = dict(jax.config.values)
before = list(warnings.filters)
import jaxm2m
from jaxm2m import _jaxlib_check
result = {
    "config": [k for k, v in jax.config.values.items() if settings.get(k, v) != v],
    "warnings": warnings.filters != before,
    "rooms": [m for m in sys.modules if m.startswith("jaxm2m.") and m.count(".") == 1 and not m.startswith("jaxm2m._")],
    "heavy": [m for m in ("pandas", "matplotlib", "h5py", "nibabel", "scipy", "sklearn", "mne") if m in sys.modules],
}
from jax._src import xla_bridge
result["devices"] = xla_bridge.backends_are_initialized()
"""
    )
    assert result == {"config": [], "warnings": False, "rooms": [], "heavy": [], "devices": False}


@pytest.mark.host
def test_every_room_loads_on_first_use_without_starting_a_device_or_changing_jax():
    result = in_a_fresh_process(
        """
import jax
settings = dict(jax.config.values)
import jaxm2m
from jaxm2m import _jaxlib_check
result = {name: getattr(jaxm2m, name).__name__ for name in jaxm2m.__all__}
assert set(jaxm2m.__all__) <= set(dir(jaxm2m))
from jax._src import xla_bridge
result["devices"] = xla_bridge.backends_are_initialized()
result["config"] = [k for k, v in jax.config.values.items() if settings.get(k, v) != v]
"""
    )
    assert result.pop("devices") is False
    assert result.pop("config") == []
    assert result == {name: f"jaxm2m.{name}" for name in jaxm2m.__all__}


@pytest.mark.host
def test_what_a_room_exports_exists():
    for room in jaxm2m.__all__:
        module = getattr(jaxm2m, room)
        assert module.__doc__
        for name in module.__all__:
            exported = getattr(module, name)
            # a table or a number cannot carry a docstring of its own
            documented = callable(exported) or isinstance(exported, ModuleType)
            assert not documented or exported.__doc__, f"{room}.{name} has no docstring"


@pytest.mark.host
def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="module 'jaxm2m' has no attribute 'heads'"):
        _ = jaxm2m.heads


@pytest.mark.host
def test_one_version_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert jaxm2m.__version__ == project["version"]
    assert f"\nversion: {project['version']}\n" in (ROOT / "CITATION.cff").read_text()


@tree
class Coil:
    moments: jax.Array
    casing: jax.Array | None
    layers: int
    metadata: StaticMetadata


def coil(name, scale=1.0, layers=3):
    return Coil(scale * jnp.ones((4, 3)), None, layers, StaticMetadata(name=name))


def test_another_name_compiles_nothing():
    traces = []

    @jax.jit
    def total(coil):
        traces.append(coil.layers)
        return coil.moments.sum() * coil.layers

    assert total(coil("one")) == 36
    assert total(coil("another", 2.0)) == 72
    assert traces == [3]
    assert total(coil("one", layers=4)) == 48
    assert traces == [3, 4]


def test_notes_travel_with_the_tree():
    one = coil("one")
    doubled = jax.tree.map(lambda x: 2 * x, one)
    assert doubled.metadata["name"] == "one"
    np.testing.assert_array_equal(doubled.moments, 2 * one.moments)
    assert jax.tree.structure(one) == jax.tree.structure(coil("another"))
    assert jax.tree.structure(one) != jax.tree.structure(coil("one", layers=4))
    # two trees of different names combine
    summed = jax.tree.map(jnp.add, one, coil("another"))
    np.testing.assert_array_equal(summed.moments, 2 * one.moments)
    stacked = jax.tree.map(lambda *x: jnp.stack(x), one, coil("another"))
    np.testing.assert_array_equal(jax.vmap(lambda c: c.moments.sum())(stacked), [12, 12])


def test_derivatives_are_with_respect_to_every_array():
    gradient = jax.grad(lambda c: (c.moments**2).sum())(coil("one"))
    np.testing.assert_array_equal(gradient.moments, 2 * np.ones((4, 3)))
    assert gradient.layers == 3
    assert gradient.metadata["name"] == "one"


@pytest.mark.host
def test_trees_and_notes_are_read_only():
    one = coil("one")
    with pytest.raises(AttributeError):
        one.layers = 4
    with pytest.raises(TypeError):
        one.metadata["name"] = "other"
    assert dict(one.metadata) == {"name": "one"}
    assert StaticMetadata(a=1) == StaticMetadata(a=2) != {"a": 2}
    assert hash(StaticMetadata(a=1)) == hash(StaticMetadata(a=2))
    assert "float32[4, 3]" in repr(one)


@pytest.mark.float32
def test_compiled_sums_are_right():
    """jaxlib 0.10.2's are not: results would be wrong without a word."""
    assert _jaxlib_check.sums_are_right()
