"""Heads of tetrahedra: geometry against NumPy, the raster and surfaces against it, and what is wrong with meshes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mesh_cases import cube, layered

import jaxm2m as jm
from jaxm2m.head import _mesh_check, _mesh_geometry

pytestmark = pytest.mark.host


@pytest.fixture(scope="module")
def head(precision):
    return jm.head.from_mesh(*layered())


def test_what_it_holds(head):
    nodes, elements, tags = layered()
    assert head.tissues == ("grey", "scalp")
    assert head.metadata["tags"] == (2, 5)
    np.testing.assert_array_equal(head.nodes, nodes)
    np.testing.assert_array_equal(head.elements, elements)
    np.testing.assert_array_equal(head.tissue, (tags == 5).astype(int))
    np.testing.assert_allclose(head.conductivity, (0.275, 0.465), rtol=1e-6)
    assert head.anisotropy is None
    assert head.cortex is None
    assert head.volumes() == pytest.approx({"grey": 12**3 / 1000, "scalp": (24**3 - 12**3) / 1000})
    np.testing.assert_allclose(head.element_volumes(), 36.0)
    np.testing.assert_allclose(head.centroids(), nodes[elements].mean(1))
    text = head.summary()
    assert "384 tetrahedra, 125 nodes (24 x 24 x 24 mm)" in text
    assert "grey" in text
    assert "0.275 S/m" in text


def test_raster_and_what_it_gives(head):
    assert head.labels.shape == (24, 24, 24)
    inner = np.zeros((24, 24, 24), bool)
    inner[6:18, 6:18, 6:18] = True
    np.testing.assert_array_equal(head.labels, np.where(inner, 1, 2))
    np.testing.assert_allclose(head.labels_affine[:3, 3], -11.5)
    occupied, affine = head.mask()
    assert occupied.all()
    grey, same = head.fraction_of("grey")
    np.testing.assert_array_equal(grey, inner)
    assert grey.dtype == np.float32
    for given in (affine, same):
        np.testing.assert_array_equal(given, head.labels_affine)
    with pytest.raises(ValueError, match="tissue: 'white'; choose one of 'grey'"):
        head.fraction_of("white")
    element = head.voxel_elements()
    index = np.argwhere(element >= 0)
    centres = index @ affine[:3, :3].T + affine[:3, 3]
    weights = barycentric(head, element[tuple(index.T)], centres)
    assert weights.min() > -1e-8


def test_both_heads_say_what_they_occupy():
    ball = jm.head.sphere((10, 14), 2.0, tissues=("grey", "scalp"))
    occupied, affine = ball.mask()
    np.testing.assert_array_equal(occupied, np.asarray(ball.fractions).sum(0) >= 0.5)
    np.testing.assert_array_equal(affine, ball.affine)
    np.testing.assert_array_equal(ball.fraction_of("scalp")[0], ball.fractions[1])


def barycentric(head, element, points):
    corners = head.nodes[head.elements[element]]
    edges = np.swapaxes(corners[:, 1:] - corners[:, :1], 1, 2)
    inner = np.linalg.solve(edges, (points - corners[:, 0])[..., None])[..., 0]
    return np.concatenate([1 - inner.sum(1, keepdims=True), inner], 1)


def test_locate(head):
    points = np.random.default_rng(0).uniform(-14, 14, (40, 50, 3))
    element, weights = head.locate(points)
    assert element.shape == (40, 50)
    assert weights.shape == (40, 50, 4)
    inside = (np.abs(points) <= 12).all(-1)
    np.testing.assert_array_equal(element >= 0, inside)
    found = head.nodes[head.elements[element[inside]]]
    np.testing.assert_allclose((weights[inside][..., None] * found).sum(1), points[inside], atol=1e-9)
    assert weights[inside].min() >= -1e-8
    assert not weights[~inside].any()
    tissue = head.tissue_at(points)
    np.testing.assert_array_equal(tissue, np.where(inside, np.where(np.abs(points).max(-1) < 6, 0, 1), -1))
    assert head.tissue_at(jnp.zeros(3)) == 0


def test_corners_and_faces_belong_to_an_element(head):
    element, weights = head.locate(head.nodes)
    assert (element >= 0).all()
    np.testing.assert_allclose(weights.max(1), 1, atol=1e-9)


def test_locate_among_small_and_large_elements():
    # one cell of a lattice divided a thousandfold beside cells of 30 mm
    nodes, elements, _ = cube(3, 90.0)
    fine_nodes, fine, _ = cube(30, 30.0)
    middle = np.abs(nodes[elements].mean(1)).max(1) < 15
    nodes, elements = np.concatenate([nodes, fine_nodes]), np.concatenate([elements[~middle], fine + len(nodes)])
    find = _mesh_geometry.Locator(nodes, elements)
    assert len(find.classes) > 1
    rng = np.random.default_rng(1)
    points = np.concatenate([rng.uniform(-50, 50, (3000, 3)), rng.uniform(-16, 16, (1000, 3))])
    element, weights = find(points)
    np.testing.assert_array_equal(element >= 0, (np.abs(points) <= 45).all(1))
    own = element >= 0
    np.testing.assert_allclose((weights[own][..., None] * nodes[elements[element[own]]]).sum(1), points[own], atol=1e-8)


def test_raster_of_elements_of_every_size():
    nodes, elements, _ = cube(3, 7.0, centre=(0.3, -0.2, 5.1))
    shape, affine = _mesh_geometry.fit_grid(nodes.min(0), nodes.max(0), 0.4)
    assert shape == (18, 18, 18)
    number = np.arange(len(elements), dtype=np.int32)
    out = _mesh_geometry.rasterise(nodes, elements, number, shape, affine, -1)
    centres = np.argwhere(out >= -1) @ affine[:3, :3].T + affine[:3, 3]
    element, _ = _mesh_geometry.Locator(nodes, elements)(centres)
    np.testing.assert_array_equal(out.ravel() >= 0, element >= 0)
    # on a face either side may have the centre
    assert (out.ravel() == element).mean() > 0.9


def test_surfaces_of_a_ball():
    """A ball's own distances to half a per cent of a voxel in the mean, normals to a degree."""
    nodes, elements, middle = cube(20, 2.0)
    far, length = np.abs(nodes).max(1, keepdims=True), np.linalg.norm(nodes, axis=1, keepdims=True)
    ball = nodes * far / np.maximum(length, 1e-9) * 30
    tags = np.where(np.abs(middle).max(1) < 0.7, 1, 5)
    head = jm.head.from_mesh(ball, elements, tags, spacing=1.0)
    rng = np.random.default_rng(2)
    axes = rng.normal(size=(500, 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    for surface, radius in ((head.scalp, 30.0), (head.cortex, 21.0)):
        # facets of 3 mm lie up to 0.1 mm under the ball
        distance = np.asarray(surface.distance(axes * radius))
        assert -0.05 < distance.mean() < 0.3
        assert distance.std() < 0.1
        cosine = (np.asarray(surface.normal(axes * radius)) * axes).sum(1)
        assert np.degrees(np.arccos(np.clip(cosine, -1, 1))).mean() < 2


def test_the_raster_stays_in_memory(monkeypatch):
    from jaxm2m.head import _mesh_head

    monkeypatch.setattr(_mesh_head, "_LARGEST", 2000)
    head = jm.head.from_mesh(*layered())
    assert head.labels.size < 4000
    assert any("raster" in remark for remark in head.metadata["remarks"])
    with pytest.raises(ValueError, match="spacing: 1 mm makes a raster"):
        jm.head.from_mesh(*layered(), spacing=1.0)


def test_unused_nodes_are_dropped():
    nodes, elements, tags = layered()
    more = np.concatenate([[[500.0, 0, 0]], nodes, [[-500.0, 0, 0]]])
    head = jm.head.from_mesh(more, elements + 1, tags)
    np.testing.assert_array_equal(head.nodes, nodes)
    np.testing.assert_array_equal(head.elements, elements)


def test_inverted_meshes_are_turned():
    nodes, elements, tags = layered()
    head = jm.head.from_mesh(nodes, elements[:, [1, 0, 2, 3]], tags)
    assert (head.element_volumes() > 0).all()
    assert any("inverted" in remark for remark in head.metadata["remarks"])


def test_tissues_by_the_callers_mapping():
    nodes, elements, tags = layered()
    head = jm.head.from_mesh(nodes, elements, tags, {"skin": 5, "GM": 2})
    assert head.tissues == ("grey", "scalp")
    head = jm.head.from_mesh(nodes, elements, tags, {2: "tumour", 5: "scalp"}, conductivity={"tumour": 0.2})
    assert head.tissues == ("scalp", "tumour")
    assert head.metadata["tags"] == (5, 2)
    # air is left out of the mesh, and the hole is no scalp
    head = jm.head.from_mesh(nodes, elements, tags, {2: "air", 5: "scalp"})
    assert len(head.elements) == (tags == 5).sum()
    assert head.tissue_at(np.zeros(3)) == -1
    assert head.scalp.distance(np.zeros(3)) < -8


def test_conductivity_tensors():
    nodes, elements, tags = layered()
    tensors = np.zeros((len(elements), 3, 3))
    tensors[tags == 2] = np.diag([0.55, 0.275, 0.1])
    tensors[0] = np.nan
    head = jm.head.from_mesh(nodes, elements, tags, tensors=tensors)
    own = (tags == 2) & (np.arange(len(tags)) > 0)
    np.testing.assert_allclose(head.anisotropy[own], np.broadcast_to(np.diag([2, 1, 0.1 / 0.275]), (own.sum(), 3, 3)))
    np.testing.assert_allclose(head.anisotropy[~own], np.broadcast_to(np.eye(3), ((~own).sum(), 3, 3)))
    assert head.anisotropy.dtype == np.float32
    for wrong, what in ((np.diag([1.0, -1, 1]), "not positive"), (np.eye(3) + np.eye(3, k=1), "not symmetric")):
        bad = tensors.copy()
        bad[7] = wrong
        with pytest.raises(ValueError, match=f"1 of 384 conductivity tensors .*number 7: {what}"):
            jm.head.from_mesh(nodes, elements, tags, tensors=bad)
    with pytest.raises(ValueError, match="5 conductivity tensors for 384"):
        _mesh_check.compute_anisotropy(tensors[:5], np.arange(384), np.ones(384), np.arange(384), "mesh")


def test_islands_are_dropped_and_parts_refused():
    nodes, elements, tags = layered(8)
    small, one, _ = cube(1, 2.0, centre=(20.0, 0, 0))
    both = np.concatenate([nodes, small]), np.concatenate([elements, one + len(nodes)])
    head = jm.head.from_mesh(*both, np.concatenate([tags, [5] * 6]))
    np.testing.assert_array_equal(head.elements, elements)
    assert any("6 tetrahedra (0.008 ml) in islands" in remark for remark in head.metadata["remarks"])
    # doubled nodes where tissues meet
    apart = elements.copy()
    apart[tags == 2] += len(nodes)
    with pytest.raises(ValueError, match=r"2 parts that share no node .*merge doubled nodes"):
        jm.head.from_mesh(np.concatenate([nodes, nodes]), apart, tags)


def wrong_node(elements):
    elements = elements.copy()
    elements[3, 1] = 125
    return elements


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda n, e, t: (n, e, np.where(t == 2, 1002, t)), r"tags 1002 are unknown .*map tags to \"air\""),
        (lambda n, e, t: (n, e, t * 0), "tags 0 are unknown"),
        (lambda n, e, t: (n, wrong_node(e), t), r"1 of 384 tetrahedra name a node .*tetrahedron 3 has"),
        (lambda n, e, t: (n, -e, t), "name a node that is not there"),
        (lambda n, e, t: (np.where(n == 12, np.nan, n), e, t), "61 of 125 nodes are NaN"),
        (lambda n, e, t: (n / 1000, e, t), r"0.024 x 0.024 x 0.024 mm; it seems to be in metres"),
        (lambda n, e, t: (n * 1000, e, t), "micrometres"),
        (lambda n, e, t: (n * (1, 1, 0), e, t), "384 of 384 tetrahedra have no volume, the first number 0 at"),
        (
            lambda n, e, t: (n, np.where(np.arange(384)[:, None] == 9, e[:, [1, 0, 2, 3]], e), t),
            r"1 of 384 tetrahedra are turned inside out against the others, the first number 9 at \(",
        ),
        (
            lambda n, e, t: (n, np.where(np.arange(384)[:, None] == 9, e[:, [0, 0, 2, 3]], e), t),
            "1 of 384 tetrahedra have no volume, the first number 9 at",
        ),
        (
            lambda n, e, t: (n, np.concatenate([e, e[9:10, [1, 2, 0, 3]]]), np.append(t, 5)),
            r"1 tetrahedra are there twice \(such as the numbers 9 and 384\)",
        ),
    ],
)
def test_bad_meshes(change, message):
    with pytest.raises(ValueError, match=f"mesh: .*{message}"):
        jm.head.from_mesh(*change(*layered()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda n, e, t: (n[:, :2], e, t), r"nodes of shape \(125, 2\)"),
        (lambda n, e, t: (n, e[:, :3], t), r"elements are int64 of shape \(384, 3\)"),
        (lambda n, e, t: (n, e.astype(float), t), "elements are float64"),
        (lambda n, e, t: (n, e, t[:5]), r"tags are int64 of shape \(5,\) for 384"),
    ],
)
def test_bad_shapes(change, message):
    # behind the annotations, which tests check and users need not
    with pytest.raises(ValueError, match=f"mesh: .*{message}"):
        _mesh_check.check_arrays(*change(*layered()), "mesh")


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"scalp": 5}, r"tags 2 are not in the mapping"),
        ({"scalp": 5, "grey": 2, "white": 1}, "no tetrahedron of white, found tags 2, 5"),
        ({"air": (2, 5)}, "every tetrahedron is air"),
    ],
)
def test_bad_mappings(mapping, message):
    with pytest.raises(ValueError, match=message):
        jm.head.from_mesh(*layered(), mapping)


def test_it_passes_through_jit(head):
    moved = jax.jit(lambda h: h)(head)
    assert moved.tissues == head.tissues
    np.testing.assert_array_equal(moved.elements, head.elements)
    assert (moved.locate(np.zeros((1, 3)))[0] >= 0).all()


def test_without_a_transform(head):
    for call in (head.to_mni, head.from_mni, jm.head.sphere((10, 14), 4.0, tissues=("grey", "scalp")).to_mni):
        with pytest.raises(ValueError, match=r"head: it came without a transform .*MNI"):
            call(np.zeros(3))
