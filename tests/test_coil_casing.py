"""The casing that a coil gets from its conductors, from a file beside it, or from the caller."""

import struct
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bent_coils import COILS, OFFSET, build, exact_distance, surface_points, turn

from jaxm2m import coil as coils
from jaxm2m import efield, head
from jaxm2m.coil._conductors import conductor_points


@pytest.mark.parametrize("name", COILS)
def test_it_follows_the_conductors(name):
    pieces = COILS[name]
    casing = coils.offset_surface(conductor_points([build(pieces)]))
    points, normal = surface_points(casing)
    away = exact_distance(pieces, points)
    facing = normal[:, 2] > 0.5
    assert away[facing].min() > -0.2
    assert away[facing].max() < 0.5
    assert np.abs(away).max() < 3.0
    assert len(casing.vertices) < 8000


def test_it_is_closed_and_faces_outwards():
    casing = coils.offset_surface(conductor_points([build(COILS["double cone"])]))
    v, t = np.asarray(casing.vertices, float), np.asarray(casing.triangles)
    edges, count = np.unique(
        np.sort(np.concatenate([t[:, [0, 1]], t[:, [1, 2]], t[:, [2, 0]]]), axis=1), axis=0, return_counts=True
    )
    assert (count == 2).all()
    assert len(edges) * 2 == 3 * len(t)
    assert np.einsum("ij,ij->i", v[t[:, 0]], np.cross(v[t[:, 1]], v[t[:, 2]])).sum() > 0


def discs(angle, spacing=3.0):
    """Dipoles on two discs that meet at the axis x = 0, each bent by `angle` towards the head."""
    grid = np.stack(np.meshgrid(*2 * [np.arange(-45, 46, spacing)], indexing="ij"), -1).reshape(-1, 2)
    grid = grid[np.linalg.norm(grid, axis=1) <= 43]
    disc = np.column_stack([grid[:, 0] + 46, grid[:, 1], np.zeros(len(grid))]) @ turn(-angle).T
    moment = np.broadcast_to(turn(-angle) @ (0, 0, 1.0), disc.shape)
    flip = np.array([-1.0, 1, 1])
    position = np.concatenate([disc * flip, disc]) + np.array([0, 0, -5])
    return position, np.concatenate([moment * flip, -moment]) * 1e-5


def write_ccd(path, position, moment):
    rows = "\n".join(" ".join(map(repr, row)) for row in np.hstack([position / 1e3, moment]).tolist())
    path.write_text(f"# coil version 1.1;dIdtmax=100\n{len(position)}\n# dipoles\n{rows}\n")
    return path


def test_dipoles_are_discs_across_their_moments(tmp_path):
    position, moment = discs(30.0)
    coil = coils.load(write_ccd(tmp_path / "cone.ccd", position, moment))
    v = np.asarray(coil.casing.vertices, float)
    middle = np.abs(v[:, 0]) < 1.5
    # between the wings the casing is where they meet, not across the mouth of the cone
    assert v[middle][:, 2].max() < 1.5
    # the discs are closed: the casing's face has no holes and no dips between dipoles
    along = (v - (0, 0, -5)) @ turn(-30.0)  # in the frame of the wing at x > 0
    face = (np.linalg.norm(along[:, :2] - (46, 0), axis=1) < 38) & (along[:, 2] > 0) & (v[:, 0] > 8)
    assert abs(along[face, 2] - OFFSET).max() < 0.2
    assert coil.metadata["casing"] == "surface 4 mm off the conductors"


def test_a_double_cone_lies_on_a_head(tmp_path):
    coil = coils.load(write_ccd(tmp_path / "cone.ccd", *discs(30.0)))
    ball = head.sphere(spacing=6.0)
    pose = coils.place(ball.scalp, (0.0, 0.0, 92.0), distance=15.0)
    # of the planes of its wings from the middle of the head, less radius and plastic
    expected = (92 + 15 + 5) * np.cos(np.radians(30)) - 92 - OFFSET
    assert float(coils.clearance(coil, pose, ball.scalp)) == pytest.approx(expected, abs=0.2)
    # its hull is deep in the head there
    hull = replace(coil, casing=coils.hull(np.asarray(coil.elements[0].position)))
    assert float(coils.clearance(hull, pose, ball.scalp)) < -10


@pytest.mark.parametrize("distance", [0.0, 1.0])
def test_flat_coils_touch(tmp_path, distance):
    ball = head.sphere(spacing=6.0)
    position, moment = discs(0.0)
    for coil in (coils.figure8(), coils.load(write_ccd(tmp_path / "flat.ccd", position + np.array([0, 0, 2]), moment))):
        pose = coils.place(ball.scalp, (20.0, 30.0, 80.0), distance=distance)
        coils.check_outside(coil, pose, ball.scalp)
        assert len(efield.check_poses(pose[None], coil, ball.scalp)) == 1
        assert float(coils.clearance(coil, pose, ball.scalp)) == pytest.approx(distance, abs=0.3)
        deeper = coils.move(pose, jnp.array([0, 0, 0.3 + distance, 0, 0, 0]))
        with pytest.raises(ValueError, match="into the head"):
            coils.check_outside(coil, deeper, ball.scalp)


@pytest.mark.optimized
def test_grids_have_their_casing_where_the_current_is(tmp_path):
    import nibabel

    # the extent of the windings is what counts, not how many there are: a third of them takes a third of the time
    coil = coils.figure8(turns=5, sides=16)
    potential = jax.jit(coil.elements[0].potential)
    for spacing in (2.0, 3.0, 5.0):
        axes = [np.arange(-110, 111, spacing), np.arange(-65, 66, spacing), np.arange(-30, 51, spacing)]
        nodes = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
        padded = np.resize(nodes, (-(-len(nodes) // 8192) * 8192, 3)).astype(jnp.result_type(float))
        values = np.concatenate([potential(part) for part in np.split(padded, len(padded) // 8192)])[: len(nodes)]
        affine = np.diag([spacing, spacing, spacing, 1.0])
        affine[:3, 3] = [a[0] for a in axes]
        image = nibabel.Nifti1Image(values.reshape(*map(len, axes), 3).astype(np.float32), affine)
        image.header.set_xyzt_units("mm")
        path = tmp_path / f"grid{spacing:g}.nii.gz"
        nibabel.save(image, path)
        loaded = coils.load(path)
        v, exact = np.asarray(loaded.casing.vertices), np.asarray(coil.casing.vertices)
        # towards the head the face that the windings have; to the sides within a node and the plastic
        assert -2 < v[:, 2].max() - exact[:, 2].max() < 2
        assert np.abs(v.min(axis=0) - exact.min(axis=0)).max() < 5 + spacing
        ball = head.sphere(spacing=8.0)
        coils.check_outside(loaded, coils.place(ball.scalp, (0.0, 0.0, 92.0), distance=4.0), ball.scalp)


BOX = np.array([[x, y, z] for x in (-95.0, 95) for y in (-60.0, 60) for z in (-20.0, -0.5)])
FACES = np.array(
    [
        [0, 1, 3],
        [0, 3, 2],
        [4, 6, 7],
        [4, 7, 5],
        [0, 4, 5],
        [0, 5, 1],
        [2, 3, 7],
        [2, 7, 6],
        [0, 2, 6],
        [0, 6, 4],
        [1, 5, 7],
        [1, 7, 3],
    ]
)


def write_stl(path, vertices=BOX, binary=True, title=b"solid made by a CAD program"):
    corners = np.asarray(vertices)[FACES]
    if binary:
        body = b"".join(struct.pack("<12fH", 0, 0, 0, *c.ravel(), 0) for c in corners)
        path.write_bytes(title.ljust(80, b"\0") + struct.pack("<I", len(corners)) + body)
    else:
        lines = ["solid casing"]
        for c in corners:
            lines += [
                "facet normal 0 0 0",
                "outer loop",
                *(f"vertex {x} {y} {z}" for x, y, z in c),
                "endloop",
                "endfacet",
            ]
        path.write_text("\n".join([*lines, "endsolid casing"]))
    return path


@pytest.mark.parametrize("binary", [True, False])
def test_a_casing_comes_from_an_stl(tmp_path, binary):
    path = write_ccd(tmp_path / "flat.ccd", *discs(0.0))
    beside = write_stl(tmp_path / "Flat.STL", binary=binary)
    coil = coils.load(path)
    np.testing.assert_allclose(np.asarray(coil.casing.vertices).max(axis=0), BOX.max(axis=0))
    assert coil.metadata["casing"] == "Flat.STL"
    if binary:
        beside.write_bytes(beside.read_bytes() + b"colours of the faces")
        assert len(coils.load(path).casing.vertices) == len(coil.casing.vertices)
    # what the caller gives comes first
    other = write_stl(tmp_path / "other.stl", BOX + np.array([0, 0, -1]))
    assert float(coils.load(path, casing=other).casing.vertices[:, 2].max()) == -1.5
    surface = coils.Casing(jnp.asarray(BOX), jnp.asarray(FACES))
    assert coils.load(path, casing=surface).casing is surface
    beside.unlink()
    assert coils.load(path).metadata["casing"] == "surface 4 mm off the conductors"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda p: write_stl(p, BOX / 1000), "seems to be in metres"),
        (lambda p: write_stl(p, BOX + np.array([0, 0, 200])), "another coil or another frame"),
        (lambda p: p.write_bytes(write_stl(p).read_bytes()[:-7]), "truncated"),
        (lambda p: p.write_text(write_stl(p, binary=False).read_text()[:-90]), "truncated"),
        (
            lambda p: p.write_text(write_stl(p, binary=False).read_text().replace("vertex -95.0", "vertex x", 1)),
            "three numbers",
        ),
        (lambda p: write_stl(p, BOX * (np.nan, 1, 1)), "NaN"),
        (lambda p: p.write_text("{}"), "of another kind"),
    ],
)
def test_casings_that_cannot_be_this_coils_are_refused(tmp_path, change, text):
    path = write_ccd(tmp_path / "flat.ccd", *discs(0.0))
    file = tmp_path / "flat.stl"
    change(file)
    with pytest.raises(ValueError, match=f"flat.stl.*{text}"):
        coils.load(path)


def test_poses_are_drawn_back_until_the_casing_is_clear():
    ball, coil = head.sphere(spacing=6.0), coils.figure8()
    pose = np.asarray(coils.place(ball.scalp, (0.0, 30.0, 86.0), distance=5.0))
    deep = np.asarray(coils.move(pose, np.array([0.0, 0, 6.5, 0.1, 0, 0])))
    poses, shift = coils.clear_casing(coil, np.stack([pose, deep]), ball.scalp)
    np.testing.assert_allclose(poses[0], pose, atol=1e-5)
    assert shift[0] == 0
    assert 1 < shift[1] < 12
    np.testing.assert_allclose(np.asarray(poses[1])[:3, :3], deep[:3, :3], atol=1e-5)
    np.testing.assert_allclose(deep[:3, 3] - shift[1] * deep[:3, 2], np.asarray(poses[1])[:3, 3], atol=1e-3)
    gap = np.asarray(coils.clearance(coil, poses, ball.scalp))
    assert gap[1] == pytest.approx(0.5, abs=0.06)
    coils.check_outside(coil, poses, ball.scalp)
    bare = replace(coil, casing=None)
    assert coils.clear_casing(bare, deep[None], ball.scalp)[1] == 0


def test_a_waveform_beside_the_coil_is_kept(tmp_path):
    path = write_ccd(tmp_path / "flat.ccd", *discs(0.0))
    table = tmp_path / "flat.tsv"
    table.write_text("time\tsignal\n0\t1\n1e-4\t-0.5\n2e-4\t0\n")
    assert coils.load(path).metadata["waveform"] == ((0.0, 1.0), (1e-4, -0.5), (2e-4, 0.0))
    for text in (
        "a\tb\n1\t2\n3\t4\n",
        "time\tsignal\n1\t2\n",
        "time\tsignal\n1\t2\n1\tx\n",
        "time\tsignal\n2\t0\n1\t0\n",
    ):
        table.write_text(text)
        with pytest.warns(UserWarning, match="flat.tsv: is no waveform with the columns time"):
            assert "waveform" not in coils.load(path).metadata
