"""Pytrees of the package: a structure belongs to one class."""

from pathlib import Path

import jax
import pytest

import jaxm2m
from jaxm2m import cortex
from jaxm2m._pytree import tree

pytestmark = pytest.mark.host


@tree
class Sum:
    a: float
    b: float
    order: int


@tree
class Difference:
    a: float
    b: float
    order: int


def test_classes_of_equal_fields_have_structures_of_their_own():
    # where they compare equal, jax.jit answers now and then with the other class's program
    one, other = jax.tree.structure(Sum(1.0, 2.0, 0)), jax.tree.structure(Difference(1.0, 2.0, 0))
    assert one != other
    assert one == jax.tree.structure(Sum(3.0, 4.0, 0))
    assert one != jax.tree.structure(Sum(1.0, 2.0, 1))
    curves = [cortex.sigmoid(), cortex.weibull(1.1, 4), cortex.hill(0.9, 6)]
    assert all((jax.tree.structure(a) == jax.tree.structure(b)) == (a is b) for a in curves for b in curves)


def test_leaves_go_by_the_fields_names():
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path({"x": Sum(1.0, 2.0, 0)})]
    assert paths == ["['x'].a", "['x'].b"]


def test_no_class_is_registered_another_way():
    sources = [p for p in Path(jaxm2m.__file__).parent.rglob("*.py") if p.name != "_pytree.py"]
    assert [str(p) for p in sources if "register_dataclass" in p.read_text()] == []
