"""Tetrahedra of label volumes: faces match, nothing is inverted or lost, interfaces lie where they are."""

import numpy as np
import pytest

import jaxm2m as jm
from jaxm2m.head import _bisection, _mesh_repair, _tetrahedralise

pytestmark = pytest.mark.host
FACES = [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]


def faces(elements):
    """Faces (n, 3) and how many elements have each."""
    return np.unique(np.sort(elements[:, FACES].reshape(-1, 3), axis=1), axis=0, return_counts=True)


def assert_conforming(elements):
    """Each face belongs to one or two elements, and the single ones close: every edge of theirs is shared."""
    of, count = faces(elements)
    assert set(count.tolist()) == {1, 2}
    outer = of[count == 1]
    edges = np.sort(outer[:, [[0, 1], [1, 2], [0, 2]]].reshape(-1, 2), axis=1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] % 2 == 0).all()


def dihedral(nodes, elements):
    x = nodes[elements]
    normals = []
    for i, j, k in ((1, 2, 3), (0, 3, 2), (0, 1, 3), (0, 2, 1)):
        n = np.cross(x[:, j] - x[:, i], x[:, k] - x[:, i])
        normals.append(n / np.linalg.norm(n, axis=1, keepdims=True))
    return np.degrees(
        np.arccos([np.clip(-(normals[i] * normals[j]).sum(1), -1, 1) for i in range(4) for j in range(i)])
    )


@pytest.fixture(scope="module")
def ball():
    voxels = jm.head.sphere((20, 27, 30, 35, 40), spacing=2.0, centre=(0.3, -0.4, 0.7))
    return voxels, jm.head.tetrahedralise(voxels)


def test_lattice_of_two_sizes_conforms():
    random = np.random.default_rng(0)
    for fine in (random.random((5, 4, 6)) < 0.4, np.zeros((3, 3, 3), bool), np.ones((3, 3, 3), bool)):
        used = np.ones_like(fine)
        nodes, elements = _bisection.build_lattice(fine, used)
        assert_conforming(elements)
        volume = np.linalg.det(nodes[elements][:, 1:] - nodes[elements][:, :1]) / 6
        assert volume.min() > 0
        # all but the pyramids outside
        size = 2 * np.array(fine.shape)
        outer = [n for a in range(3) for n in (np.take(fine, 0, a), np.take(fine, -1, a))]
        open_ = sum(np.where(face, 4 * 0.5 / 3, 4 / 3).sum() for face in outer)
        assert volume.sum() == pytest.approx(np.prod(size) - open_)
        assert dihedral(nodes, elements).min() > 30


def test_faces_match_and_nothing_is_flat(ball):
    _, mesh = ball
    assert_conforming(mesh.elements)
    assert mesh.element_volumes().min() > 0
    angles = dihedral(mesh.nodes, mesh.elements)
    assert angles.min() > 2
    assert angles.max() < 176
    assert np.percentile(angles, 0.1) > 5
    assert _mesh_repair.roundness(mesh.nodes[mesh.elements]).min() > 0.03


def test_tissues_keep_their_volumes(ball):
    voxels, mesh = ball
    assert mesh.tissues == voxels.tissues
    for name, ml in voxels.volumes().items():
        assert mesh.volumes()[name] == pytest.approx(ml, rel=0.04), name
    assert np.array_equal(np.asarray(mesh.conductivity), np.asarray(voxels.conductivity))
    assert mesh.scalp is voxels.scalp


def test_interfaces_lie_on_the_spheres(ball):
    _, mesh = ball
    of, where = np.unique(np.sort(mesh.elements[:, FACES].reshape(-1, 3), axis=1), axis=0, return_inverse=True)
    low, high = np.full(len(of), 9), np.full(len(of), -1)
    tissue = np.repeat(mesh.tissue, 4)
    np.minimum.at(low, where.ravel(), tissue)
    np.maximum.at(high, where.ravel(), tissue)
    order = {name: k for k, name in enumerate(mesh.tissues)}
    shells = ("white", "grey", "csf", "skull", "scalp")
    for inner, outer, radius in zip(shells[:-1], shells[1:], (20, 27, 30, 35), strict=True):
        pair = sorted((order[inner], order[outer]))
        on = (low == pair[0]) & (high == pair[1])
        assert on.sum() > 100
        off = np.abs(np.linalg.norm(mesh.nodes[of[on]] - (0.3, -0.4, 0.7), axis=-1) - radius)
        assert np.sqrt((off**2).mean()) < 0.12, (inner, outer)
        assert np.percentile(off, 99) < 0.6, (inner, outer)


@pytest.mark.slow
def test_elements_are_coarser_away_from_the_brain():
    mesh = jm.head.tetrahedralise(jm.head.sphere((20, 24, 60), spacing=2.0, tissues=("white", "grey", "scalp")))
    depth = np.linalg.norm(mesh.centroids(), axis=1)
    size = mesh.element_volumes()
    assert np.median(size[(depth > 38) & (depth < 55)]) > 6 * np.median(size[(depth > 10) & (depth < 18)])


def test_labels_and_their_affine():
    random = np.random.default_rng(3)
    turn, _ = np.linalg.qr(random.standard_normal((3, 3)))
    turn *= np.sign(np.linalg.det(turn))
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn, (30.0, -20.0, 5.0)
    index = np.stack(np.meshgrid(*3 * [np.arange(44)], indexing="ij"), -1)
    r = np.linalg.norm(index - (21.2, 22.4, 20.3), axis=-1)
    labels = np.select([r < 9, r < 14, r < 18], [3, 2, 1], 0)
    voxels = jm.head.from_labels(labels, affine, ("scalp", "grey", "white"), spacing=2.0)
    mesh = jm.head.tetrahedralise(voxels, 2.0)
    assert_conforming(mesh.elements)
    middle = affine[:3, :3] @ (21.2, 22.4, 20.3) + affine[:3, 3]
    for tissue, low, high in (("white", 0, 9), ("grey", 9, 14), ("scalp", 14, 18)):
        own = mesh.tissue == mesh.tissues.index(tissue)
        volume = mesh.element_volumes()[own]
        assert volume.sum() == pytest.approx(4 / 3 * np.pi * (high**3 - low**3), rel=0.03)
        assert np.average(mesh.centroids()[own], axis=0, weights=volume) == pytest.approx(middle, abs=0.1)


def test_a_sheet_thinner_than_the_lattice_stays_whole():
    """Two voxels of csf between grey matter, on a lattice of 3 mm: no grey element touches grey across it."""
    labels = np.ones((40, 40, 40), np.uint8)
    labels[8:32, 8:32, 8:32] = 3
    labels[8:32, 8:32, 19:21] = 2
    head = jm.head.from_labels(labels, np.diag([1.0, 1, 1, 1]), ("scalp", "csf", "grey"), spacing=2.0)
    mesh = jm.head.tetrahedralise(head, 3.0)
    assert_conforming(mesh.elements)
    assert mesh.volumes()["csf"] == pytest.approx(head.volumes()["csf"], rel=0.15)
    middle = np.array([(x, y, 19.5) for x in range(11, 29) for y in range(11, 29)], float)
    found = mesh.tissue_at(middle)
    assert (found == mesh.tissues.index("csf")).mean() > 0.97


def test_materials_that_meet_in_an_edge_conform():
    """Four materials about a line, by the largest of four linear levels."""
    direction = np.array([(1, 0.3), (-0.2, 1), (-1, -0.4), (0.1, -1)])
    nodes, elements = _bisection.build_lattice(np.ones((5, 5, 5), bool), np.ones((5, 5, 5), bool))
    nodes, elements, material = _tetrahedralise.conform(
        lambda x: (x[:, :2] - (5.2, 4.7)) @ direction.T, nodes, elements
    )
    assert_conforming(elements)
    corners = nodes[elements]
    volume = np.linalg.det(corners[:, 1:] - corners[:, :1]) / 6
    assert volume.min() > 0
    at = ((corners.mean(1)[:, :2] - (5.2, 4.7)) @ direction.T).argmax(1)
    assert volume[at != material].sum() < 2e-3 * volume.sum()


def test_a_tissue_too_small_is_told():
    labels = np.ones((30, 30, 30), np.uint8)
    labels[8:22, 8:22, 8:22] = 2
    labels[15, 15, 15] = 3
    head = jm.head.from_labels(labels, np.eye(4), ("scalp", "grey", "blood"), spacing=2.0)
    mesh = jm.head.tetrahedralise(head, 4.0)
    assert mesh.tissues == ("grey", "scalp")
    assert "blood: too little for an element, left out" in mesh.metadata["remarks"]


def test_same_mesh_each_time():
    head = jm.head.sphere((10, 14), spacing=2.0, tissues=("grey", "scalp"))
    one, other = jm.head.tetrahedralise(head), jm.head.tetrahedralise(head)
    assert np.array_equal(one.nodes, other.nodes)
    assert np.array_equal(one.elements, other.elements)


def test_wrong_spacings(ball):
    voxels, _ = ball
    with pytest.raises(ValueError, match="spacing"):
        jm.head.tetrahedralise(voxels, -1.0)
    with pytest.raises(ValueError, match=r"spacing: 0\.2 mm makes about"):
        jm.head.tetrahedralise(voxels, 0.2)


def test_repair_makes_flat_and_inverted_elements_round():
    nodes, elements = _bisection.build_lattice(np.ones((4, 4, 4), bool), np.ones((4, 4, 4), bool))
    random = np.random.default_rng(1)
    inner = np.flatnonzero(((nodes > 2) & (nodes < 6)).all(1))
    flat = nodes.copy()
    flat[inner] += random.uniform(-0.35, 0.35, (len(inner), 3))
    before = _mesh_repair.roundness(flat[elements])
    assert before.min() < 0
    after = _mesh_repair.roundness(_mesh_repair.repair(flat, elements)[elements])
    assert after.min() > 0.05
