import jax.numpy as jnp
import numpy as np
import pytest

from jaxm2m._pytree import StaticMetadata, tree
from jaxm2m.files import fingerprint

pytestmark = pytest.mark.host


def test_equal_content_is_equal():
    values = np.arange(6.0, dtype=np.float32).reshape(2, 3)
    assert fingerprint(values) == fingerprint(values.copy()) == fingerprint(jnp.asarray(values))
    assert fingerprint(np.asfortranarray(values)) == fingerprint(values)
    assert fingerprint(values.astype(">f4")) == fingerprint(values)
    assert fingerprint({"a": 1, "b": 2.0}) == fingerprint({"b": 2.0, "a": 1})
    assert len(fingerprint(values)) == 64


def test_fingerprint_is_stable_between_processes_and_versions():
    expected = "596b49effd14d424492c80c174e2a223e74b7f3fe49b157f978d7b96dedaed6e"
    assert fingerprint("a", 1, 2.5, None, True, np.arange(3, dtype=np.int32), {"k": (1, 2)}) == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("ab", "c"), ("a", "bc")),
        ((1,), (1.0,)),
        ((1,), ("1",)),
        ((True,), (1,)),
        ((None,), ()),
        (([1], 2), ([1, 2],)),
        ((np.zeros((2, 3)),), (np.zeros((3, 2)),)),
        ((np.zeros(2, np.float32),), (np.zeros(2, np.float64),)),
        ((np.array([0.0, 1.0]),), (np.array([0.0, 1.0 + 1e-15]),)),
        ((np.zeros((0, 3)),), (np.zeros((3, 0)),)),
        (({"a": 1},), ({"a": 2},)),
    ],
)
def test_different_content_is_different(one, other):
    assert fingerprint(*one) != fingerprint(*other)


def test_pytrees_count_without_their_notes():
    @tree
    class Coil:
        moments: jnp.ndarray
        turns: int
        metadata: StaticMetadata

    coil = Coil(np.ones((4, 3)), 9, StaticMetadata(name="one"))
    assert fingerprint(coil) == fingerprint(Coil(np.ones((4, 3)), 9, StaticMetadata(name="another")))
    assert fingerprint(coil) != fingerprint(Coil(np.ones((4, 3)), 8, StaticMetadata(name="one")))
    assert fingerprint(coil) != fingerprint(Coil(np.zeros((4, 3)), 9, StaticMetadata(name="one")))


def test_unknown_objects_are_refused():
    with pytest.raises(TypeError, match="fingerprint: found function; pass"):
        fingerprint(fingerprint)
    with pytest.raises(TypeError, match="Python objects"):
        fingerprint(np.array([fingerprint], dtype=object))
