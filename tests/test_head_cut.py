"""Heads that the field of view cuts: each cut is told, whole heads are not, and no skin is where the cut is."""

import numpy as np
import pytest

import jaxm2m as jm
from jaxm2m.head._distance import _find_cut_faces

pytestmark = pytest.mark.host
RADIUS, STEP = 88.0, 2.0
SIDES = {"-x": (0, 0), "+y": (1, 1), "+z": (2, 1), "-z": (2, 0)}


def cut_ball(missing, sides, margin=6.0, step=STEP, radius=RADIUS):
    """Share of a ball in each voxel, with `missing` mm cut off at some faces and air at the others; its affine."""
    low, high = np.full(3, -radius - margin), np.full(3, radius + margin)
    for axis, side in (SIDES[name] for name in sides):
        (high if side else low)[axis] = (radius - missing) * (1 if side else -1)
    shape = tuple(np.round((high - low) / step).astype(int).tolist())
    affine = np.diag([step, step, step, 1.0])
    affine[:3, 3] = low + step / 2
    inside = np.zeros(shape, np.float32)
    for offset in np.stack(np.meshgrid(*[[-0.25, 0.25]] * 3, indexing="ij"), -1).reshape(-1, 3):
        x, y, z = (low[k] + step * (np.arange(n) + 0.5 + offset[k]) for k, n in enumerate(shape))
        inside += (x[:, None, None] ** 2 + y[:, None] ** 2 + z**2 < radius**2) / np.float32(8)
    return inside, affine


@pytest.mark.parametrize("step", [1.0, 2.0])
@pytest.mark.parametrize("missing", [3.0, 7.0, 15.0, 40.0])
@pytest.mark.parametrize("sides", [("+z",), ("-x",), ("+z", "-z"), ("-x", "+y")])
def test_cuts_are_told(missing, sides, step):
    found = _find_cut_faces(cut_ball(missing, sides, step=step)[0], step)
    assert sorted(found) == sorted(SIDES[name] for name in sides)


@pytest.mark.parametrize("step", [1.0, 2.0, 4.0])
@pytest.mark.parametrize("margin", [0.0, 0.5, 1.0, 6.0])
def test_whole_heads_are_not(margin, step):
    assert _find_cut_faces(cut_ball(0.0, (), margin, step)[0], step) == []


def test_an_ear_at_the_border_is_no_cut():
    inside, _ = cut_ball(0.0, (), 12.0)
    middle = inside.shape[1] // 2
    inside[:8, middle - 2 : middle + 2, middle - 15 : middle + 15] = 1  # a plate up to the face -x
    assert _find_cut_faces(inside, STEP) == []


def told(head):
    return sorted(r.split(" its ")[1][:2] for r in head.metadata["remarks"] if "is cut at its" in r)


def test_there_is_no_skin_on_two_cuts():
    inside, affine = cut_ball(10.0, ("+z", "-x"), radius=50.0, step=4.0)
    head = jm.head.from_fractions(inside[None], affine, ["scalp"])
    assert told(head) == ["+z", "-x"]
    for direction in ((0, 0, 1.0), (-1.0, 0, 0)):
        middle = 40.0 * np.array(direction)
        assert float(head.scalp.distance(middle)) < -8  # the head goes on
        near = np.abs(np.asarray(head.scalp.vertices) @ direction - 40.0) < 3.0
        rim = np.linalg.norm(np.asarray(head.scalp.vertices)[near] - middle, axis=1)
        assert rim.min(initial=np.inf) > 25.0  # sqrt(50^2 - 40^2) = 30


def test_a_mesh_that_is_cut():
    whole = jm.head.sphere_mesh(radii=(60.0, 70.0), spacing=12.0, tissues=("skull", "scalp"))
    nodes, tags = np.array(whole.nodes), np.asarray(whole.tissue) + 1
    assert told(jm.head.from_mesh(nodes, whole.elements, tags, ["skull", "scalp"], spacing=4.0)) == []
    # nodes below the plane are moved onto it, as if the field of view had ended there
    nodes[:, 2] = np.maximum(nodes[:, 2], -50.0)
    corners = nodes[whole.elements]
    kept = np.linalg.det(corners[:, 1:] - corners[:, :1]) > 1.0
    cut = jm.head.from_mesh(nodes, whole.elements[kept], tags[kept], ["skull", "scalp"], spacing=4.0)
    assert told(cut) == ["-z"]
    assert float(cut.scalp.distance(np.array([0.0, 0.0, -50.0]))) < -8
