"""Coil files: what they say, round trips, and every way they can be broken."""

import base64
import json
import warnings
import zlib

import jax.numpy as jnp
import nibabel as nib
import numpy as np
import pytest

from jaxm2m import coil as jc

pytestmark = pytest.mark.optimized

AHEAD = np.array([[0.0, 0.0, 40.0]])
# a little figure-8: E along +y under its centre
ROWS = [(-0.02, 0.0, -0.005, 0.0, 0.0, -1e-4), (0.02, 0.0, -0.005, 0.0, 0.0, 1e-4)]


def ccd(folder, rows=ROWS, count=None, header="# Little version 1.0;dIdtmax=100.0;coilname=Little;brand=None"):
    path = folder / "little.ccd"
    body = "\n".join(" ".join(map(repr, row)) for row in rows)
    path.write_text(f"{header}\n{len(rows) if count is None else count}\n# centers and moments\n{body}\n")
    return path


def pack(array, dtype=float):
    return base64.b64encode(zlib.compress(np.ascontiguousarray(array, dtype).tobytes())).decode()


def tcd(folder, name="little.tcd", **changes):
    rows = np.array(ROWS)
    element = {"stimulator": 0, "type": 1, "points": (rows[:, :3] * 1e3).tolist(), "values": rows[:, 3:].tolist()}
    content = {"name": "Little", "coilElementList": [element], "stimulatorList": [{"name": "S", "maxdIdt": 1.2e8}]}
    content |= changes
    path = folder / name
    path.write_text(json.dumps(content))
    return path


def element_of(path):
    return json.loads(path.read_text())["coilElementList"][0]


def a_of(coil, x=AHEAD, didt=1.0):
    return np.asarray(jc.vector_potential(coil, np.eye(4), x, didt=didt))


def some_points(n=30):
    return np.random.default_rng(0).uniform([-40, -40, 10], [40, 40, 60], (n, 3))


# -- .ccd --------------------------------------------------------------------------------------------------------------


def test_ccd_is_read_in_its_units(tmp_path):
    coil = jc.load(ccd(tmp_path))
    np.testing.assert_allclose(coil.elements[0].position, [[-20, 0, -5], [20, 0, -5]], rtol=1e-6)
    np.testing.assert_allclose(coil.elements[0].moment[:, 2], [-1e-4, 1e-4], rtol=1e-6)
    np.testing.assert_allclose(coil.didt_max, [1e8])  # the file has A/us
    assert coil.metadata["name"] == "Little"
    assert coil.casing is not None
    assert coil.metadata["casing"] == "surface 4 mm off the conductors"


def test_ccd_without_a_largest_rate_says_nan(tmp_path):
    for header in ("# Little version 1.0", "# Little;dIdtmax=None", "no header at all"):
        path = ccd(tmp_path, header=header if header.startswith("#") else "# x")
        assert np.isnan(jc.load(path).didt_max[0])


def test_ccd_round_trip(tmp_path, tolerance):
    coil = jc.load(ccd(tmp_path))
    path = jc.save(coil, tmp_path / "again.ccd")
    again = jc.load(path)
    for a, b in zip(coil.elements[0].__dict__.values(), again.elements[0].__dict__.values(), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance(1e-6, 1e-14))
    np.testing.assert_allclose(again.didt_max, coil.didt_max)
    assert again.metadata["name"] == "Little"
    assert not [p for p in tmp_path.iterdir() if p.suffix not in (".ccd",)]  # nothing temporary is left


@pytest.mark.host
def test_save_refuses_what_a_ccd_cannot_hold(tmp_path):
    with pytest.raises(ValueError, match=r"Segments; a \.ccd holds dipoles only"):
        jc.save(jc.figure8(), tmp_path / "f.ccd")
    with pytest.raises(ValueError, match=r"does not end in \.ccd"):
        jc.save(jc.load(ccd(tmp_path)), tmp_path / "f.tcd")
    two = jc.Coil((), None, jnp.zeros(2), jc.figure8().metadata)
    with pytest.raises(ValueError, match="2 stimulators"):
        jc.save(two, tmp_path / "f.ccd")
    assert not (tmp_path / "f.ccd").exists()


@pytest.mark.host
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 3}, "announces 3 dipoles but holds 2; the file is truncated"),
        ({"count": 1}, "announces 1 dipoles but holds 2; the file is not consistent"),
        ({"count": "two"}, "line 2 is 'two'"),
        ({"count": 0}, "announces 0 dipoles"),
        ({"rows": [(*ROWS[0][:5], float("nan"))]}, "line 4 holds NaN"),
        ({"rows": [ROWS[0][:5]]}, "line 4 holds 5 numbers"),
        ({"rows": [("a", *ROWS[0][1:])]}, "line 4 holds .*expected six numbers"),
        ({"rows": [(-20.0, *ROWS[0][1:])]}, "20 m from the origin; .*metres"),
        ({"rows": [(*ROWS[0][:3], 0.0, 0.0, 0.0)]}, "every dipole moment is zero"),
        ({"header": "# x;dIdtmax=-3"}, "dIdtmax='-3'"),
        ({"header": "# x;dIdtmax=fast"}, "dIdtmax='fast'"),
    ],
)
def test_broken_ccd(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=rf"little\.ccd: .*{message}|little\.ccd: {message}"):
        jc.load(ccd(tmp_path, **arguments))


@pytest.mark.host
def test_a_suffix_of_either_case_finds_its_reader(tmp_path):
    path = ccd(tmp_path).rename(tmp_path / "LITTLE.CCD")
    assert jc.load(path).metadata["name"] == "Little"
    assert {".ccd", ".tcd", ".nii.gz", ".nii"} <= set(jc.SUFFIXES)


def test_wrong_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        jc.load(tmp_path / "nowhere.ccd")
    (tmp_path / "coil.stl").write_text("solid")
    with pytest.raises(ValueError, match=r"coil\.stl"):
        jc.load(tmp_path / "coil.stl")
    for suffix in (".ccd", ".tcd", ".nii.gz", ".nii"):
        (tmp_path / f"empty{suffix}").write_bytes(b"")
        with pytest.raises((ValueError, OSError), match=f"empty{suffix}"):
            jc.load(tmp_path / f"empty{suffix}")
        (tmp_path / f"noise{suffix}").write_bytes(bytes(range(256)) * 20)
        with pytest.raises((ValueError, OSError), match=f"noise{suffix}"):
            jc.load(tmp_path / f"noise{suffix}")
    (tmp_path / "comment.ccd").write_text("# only\n# comments\n")
    with pytest.raises(ValueError, match="holds no numbers"):
        jc.load(tmp_path / "comment.ccd")


def test_a_coil_that_points_backwards_warns_and_flips(tmp_path):
    backwards = [(*row[:5], -row[5]) for row in ROWS]
    path = ccd(tmp_path, backwards)
    with pytest.warns(UserWarning, match=r"little\.ccd: E .* points along -y .*flip=True"):
        coil = jc.load(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        flipped = jc.load(path, flip=True)
        good = jc.load(ccd(tmp_path))
    assert a_of(coil)[0, 1] > 0 > a_of(flipped)[0, 1]
    np.testing.assert_array_equal(flipped.elements[0].moment, good.elements[0].moment)
    turned = [(row[1], row[0], *row[2:]) for row in ROWS]
    with pytest.warns(UserWarning, match=r"points along [+-]x .*rotate its poses"):
        jc.load(ccd(tmp_path, turned))


# -- .tcd --------------------------------------------------------------------------------------------------------------


def test_tcd_dipoles_equal_the_ccd_plain_and_packed(tmp_path, tolerance):
    reference = jc.load(ccd(tmp_path))
    plain = jc.load(tcd(tmp_path))
    np.testing.assert_allclose(plain.didt_max, [1.2e8])  # A/s in this format
    rows = np.array(ROWS)
    packed = {"stimulator": 0, "type": 1, "points": pack(rows[:, :3] * 1e3), "values": pack(rows[:, 3:])}
    packed = jc.load(tcd(tmp_path, coilElementList=[packed]))
    for coil in (plain, packed):
        np.testing.assert_allclose(a_of(coil), a_of(reference), rtol=tolerance(1e-5, 1e-12), atol=1e-13)
    assert plain.metadata["stimulators"] == ("S",)


def ring(n=40, radius=30.0, z=-5.0, centre=0.0):
    angle = 2 * np.pi * np.arange(n + 1) / n
    points = np.column_stack([centre + radius * np.cos(angle), radius * np.sin(angle), np.full(n + 1, z)])
    return points[:-1], points[1:]


@pytest.mark.filterwarnings("ignore:.*points along")
def test_tcd_segments_by_midpoint_and_by_start(tmp_path, tolerance):
    start, end = ring(centre=30.0)
    coils = []
    for points in ((start + end) / 2, start):
        element = {"stimulator": 0, "type": 2, "points": points.tolist(), "values": (end - start).tolist()}
        coils.append(jc.load(tcd(tmp_path, coilElementList=[element])))
    for coil in coils:
        np.testing.assert_allclose(coil.elements[0].start, start, atol=tolerance(1e-4, 1e-11))
        np.testing.assert_allclose(coil.elements[0].end, end, atol=tolerance(1e-4, 1e-11))
    flipped = jc.load(tcd(tmp_path, coilElementList=[element]), flip=True)
    np.testing.assert_allclose(a_of(flipped), -a_of(coils[1]), atol=1e-12)


@pytest.mark.filterwarnings("ignore:.*points along")
def test_tcd_grid_with_any_affine(tmp_path, tolerance):
    reference = jc.load(ccd(tmp_path))
    turn = np.array([[0, -1.0, 0], [1, 0, 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn * 4.0
    affine[:3, 3] = [40.0, -40.0, 20.0]
    index = np.stack(np.meshgrid(*[np.arange(21)] * 3, indexing="ij"), -1)
    values = a_of(reference, (index @ affine[:3, :3].T + affine[:3, 3]).reshape(-1, 3)).reshape(21, 21, 21, 3)
    plain = {"type": 3, "data": values.tolist(), "affine": affine.tolist()}
    packed = {"type": 3, "data": pack(values), "shape": [21, 21, 21, 3], "affine": pack(affine)}
    x = np.random.default_rng(0).uniform([-25, -25, 30], [25, 25, 70], (30, 3))
    for element in (plain, packed):
        coil = jc.load(tcd(tmp_path, coilElementList=[element]))
        np.testing.assert_allclose(a_of(coil, x), a_of(reference, x), atol=2e-3 * np.abs(values).max())


@pytest.mark.filterwarnings("ignore:.*points along")
def test_tcd_stimulators_casings_and_deformations(tmp_path, tolerance):
    base = {"type": 1, "points": [[10.0, 0, -5]], "values": [[0, 0, 1e-4]]}
    box = np.array([[x, y, z] for x in (0.0, 4) for y in (0.0, 4) for z in (-9.0, -5)])
    faces = np.array([[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1], [2, 3, 7], [2, 7, 6],
                      [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3]])  # fmt: skip
    coil = jc.load(
        tcd(
            tmp_path,
            coilElementList=[
                base | {"stimulator": 1, "deformations": [0, 1], "elementCasing": 0},
                base | {"stimulator": 0},
            ],
            stimulatorList=[{"name": "A", "maxdIdt": 1e8}, {"name": "B"}],
            deformList=[
                {"deformRange": 0, "type": "x"},
                {"initial": 90.0, "range": [0, 90], "type": "rot2p", "point1": [0, 0, 0], "point2": [0, 0, 1]},
            ],
            deformRangeList=[{"initial": 5.0, "range": [0.0, 10.0]}],
            coilModels=[{"points": box.tolist(), "faces": faces.tolist()}, {"points": pack(box), "faces": pack(faces)}],
            coilCasing=1,
            limits=[[-300, 300], [-200, 200], [-100, 300]],
            resolution=[1, 1, 1],
        )
    )
    # moved by 5 mm along x, then turned by 90 degrees about z
    np.testing.assert_allclose(coil.elements[0].position, [[0, 15, -5]], atol=1e-5)
    np.testing.assert_allclose(coil.elements[1].position, [[10, 0, -5]], atol=1e-5)
    assert [e.stimulator for e in coil.elements] == [1, 0]
    np.testing.assert_allclose(coil.didt_max, [1e8, np.nan])
    vertices = np.asarray(coil.casing.vertices)
    assert len(vertices) == 16
    np.testing.assert_allclose(vertices[:8].max(axis=0), [4, 4, -5], atol=1e-5)
    np.testing.assert_allclose(vertices[8:].max(axis=0), [0, 9, -5], atol=1e-5)
    assert coil.metadata["limits"][0] == [-300, 300]
    # faces as integers too
    model = [{"points": pack(box), "faces": pack(faces, np.int64)}]
    integer = jc.load(tcd(tmp_path, coilModels=model, coilCasing=0))
    np.testing.assert_array_equal(integer.casing.triangles, faces)


def bomb():
    return base64.b64encode(zlib.compress(bytes(64 << 20), 9)).decode()


GOOD = {"stimulator": 0, "type": 1, "points": [[0, 0, -5.0]], "values": [[0, 0, 1.0]]}


@pytest.mark.host
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"coilElementList": []}, "no `coilElementList`"),
        ({"coilElementList": [7]}, r"coilElementList\[0\]: is int"),
        ({"coilElementList": [GOOD | {"type": 9}]}, "type 9; known are"),
        ({"coilElementList": [GOOD | {"stimulator": 4}]}, "stimulator = 4 points outside a list of 1"),
        ({"coilElementList": [GOOD | {"points": None}]}, "`points` is missing"),
        ({"coilElementList": [GOOD | {"points": "!!!"}]}, "`points` is not valid base64"),
        ({"coilElementList": [GOOD | {"points": "QUJDRA=="}]}, "`points`"),
        ({"coilElementList": [GOOD | {"points": pack(np.ones(300))[:-40]}]}, "`points`"),
        ({"coilElementList": [GOOD | {"points": base64.b64encode(zlib.compress(b"12345")).decode()}]}, "5 bytes"),
        ({"coilElementList": [GOOD | {"points": [[0, 0], [1]]}]}, "not a regular array"),
        ({"coilElementList": [GOOD | {"points": [[0, 0, float("nan")]]}]}, "NaN"),
        ({"coilElementList": [GOOD | {"points": [[0, 0, 1, 2]]}]}, "rows of three"),
        ({"coilElementList": [GOOD | {"points": [[0, 0, 1], [0, 0, 2]]}]}, "2 points but 1 values"),
        ({"coilElementList": [GOOD | {"values": [[0, 0, 0]]}]}, "every entry of `values` is zero"),
        ({"coilElementList": [GOOD | {"elementCasing": 0}]}, "elementCasing = 0 points outside a list of 0"),
        ({"coilElementList": [GOOD | {"deformations": [0]}]}, "points outside a list of 0"),
        ({"coilElementList": [GOOD | {"type": 3, "data": [[[[1, 2, 3]]]], "affine": np.eye(4).tolist()}]}, "shape"),
        ({"coilElementList": [GOOD | {"type": 3, "data": pack(np.ones(24)), "affine": np.eye(4).tolist()}]}, "flat"),
        ({"coilElementList": [GOOD | {"type": 3, "data": pack(np.ones(24)), "affine": [[0] * 4] * 4}]}, "invertible"),
        ({"stimulatorList": [{"maxdIdt": "fast"}]}, "maxdIdt = 'fast'"),
        ({"stimulatorList": {"maxdIdt": 1}}, "`stimulatorList` is dict"),
        ({"deformList": [{"type": "x"}]}, "no initial setting"),
        ({"deformList": [{"type": "bend", "initial": 0.0}]}, "type 'bend'"),
        ({"deformList": [{"type": "rot2p", "initial": 0.0, "point1": [0, 0, 0], "point2": [0, 0, 0]}]}, "different"),
        ({"coilModels": [{"points": [[0, 0, 0]], "faces": [[0, 1, 2]]}]}, "points outside the 1 points"),
        ({"limits": [[0, 1]]}, "`limits` must hold 3x2"),
    ],
)
def test_broken_tcd(tmp_path, changes, message):
    with pytest.raises(ValueError, match=rf"little\.tcd.*{message}"):
        jc.load(tcd(tmp_path, **changes))


@pytest.mark.host
def test_enormous_tcd_arrays_are_refused_before_they_are_held(tmp_path):
    import tracemalloc

    path = tcd(tmp_path, coilElementList=[GOOD | {"points": bomb(), "values": bomb()}])
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"little\.tcd.*`points`.*more than"):
            jc.load(path)
        assert tracemalloc.get_traced_memory()[1] < 130 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.host
def test_truncated_tcd(tmp_path):
    path = tcd(tmp_path)
    path.write_text(path.read_text()[:-20])
    with pytest.raises(ValueError, match=r"little\.tcd is not JSON"):
        jc.load(path)
    path.write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"little\.tcd is not JSON"):
        jc.load(path)
    path.write_text("[1, 2]")
    with pytest.raises(ValueError, match="coilElementList"):
        jc.load(path)


# -- .nii.gz -----------------------------------------------------------------------------------------------------------


def grid_file(folder, values, affine, name="little.nii.gz"):
    path = folder / name
    image = nib.Nifti1Image(np.asarray(values, np.float32), affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return path


def little_grid(folder, spacing=4.0, count=31):
    coil = jc.load(ccd(folder))
    affine = np.diag([-spacing, spacing, spacing, 1.0])
    affine[:3, 3] = [spacing * (count - 1) / 2, -spacing * (count - 1) / 2, -20.0]
    index = np.stack(np.meshgrid(*[np.arange(count)] * 3, indexing="ij"), -1)
    x = index @ affine[:3, :3].T + affine[:3, 3] + 0.0
    values = np.nan_to_num(a_of(coil, x.reshape(-1, 3)))
    return coil, values.reshape(count, count, count, 3), affine


@pytest.mark.parametrize("name", ["little.nii.gz", "little.nii"])
def test_grid_coil_equals_its_dipoles(tmp_path, name):
    coil, values, affine = little_grid(tmp_path)
    grid = jc.load(grid_file(tmp_path, values, affine, name))
    x = np.random.default_rng(0).uniform([-40, -40, 20], [40, 40, 80], (100, 3))
    a, b = a_of(coil, x), a_of(grid, x)
    assert np.abs(a - b).max() < 1e-2 * np.abs(a).max()
    assert np.isnan(grid.didt_max[0])
    assert grid.casing is not None
    flipped = jc.load(grid_file(tmp_path, -values, affine, name), flip=True)
    np.testing.assert_allclose(a_of(flipped, x), b, atol=1e-5 * np.abs(b).max())


@pytest.mark.host
def test_broken_grids(tmp_path):
    values = np.ones((6, 6, 6, 3))
    affine = np.diag([10.0, 10, 10, 1])
    wrong = values.copy()
    wrong[0, 0, 0, 0] = np.nan
    for v, a, message in (
        (values[..., :2], affine, "expected|has shape"),
        (values[..., 0], affine, "has shape"),
        (wrong, affine, "NaN"),
        (0 * values, affine, "zero everywhere"),
        (values, np.diag([0.01, 0.01, 0.01, 1]), "metres"),
    ):
        with pytest.raises(ValueError, match=rf"little\.nii\.gz.*({message})"):
            jc.load(grid_file(tmp_path, v, a))
    path = grid_file(tmp_path, np.random.default_rng(0).normal(size=(20, 20, 20, 3)), affine)
    path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises((ValueError, OSError), match=r"little\.nii\.gz"):
        jc.load(path)


# -- the files of users ------------------------------------------------------------------------------------------------


def test_magstim(data, tmp_path, tolerance):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        coil = jc.load(data("coils/Magstim_70mm_Fig8.ccd"))
    assert coil.elements[0].size == 2712
    e = -a_of(coil, didt=1e6)[0]
    assert abs(e[1] - 0.988) < 5e-4
    assert np.abs(e[[0, 2]]).max() < 1e-5
    with pytest.raises(ValueError, match="carries no largest dI/dt"):
        jc.calibrate(coil)
    again = jc.load(jc.save(coil, tmp_path / "again.ccd"))
    np.testing.assert_allclose(again.elements[0].position, coil.elements[0].position, rtol=tolerance(1e-6, 1e-14))
    for size, bound in ((6.0, 2.5e-3), (8.0, 3e-3)):
        few = jc.cluster(coil, size)
        x = some_points()
        x[:, 2] += 5.0
        a, b = a_of(coil, x), a_of(few, x)
        assert np.linalg.norm(a - b) < bound * np.linalg.norm(a)


@pytest.mark.filterwarnings("ignore:.*points along")
def test_grid_twin_of_the_test_coil(data):
    dipoles, grid = jc.load(data("coils/testcoil.ccd")), jc.load(data("coils/testcoil.nii.gz"))
    np.testing.assert_allclose(dipoles.didt_max, [1e8])
    # 10 mm nodes stand within 1 mm of the dipoles: what they hold must not ring beyond its neighbours
    x = np.random.default_rng(0).uniform(-80, 80, (3000, 3))
    r = np.linalg.norm(x, axis=1)
    a, b = a_of(dipoles, x), a_of(grid, x)
    for near, far, bound in ((55, 70, 0.04), (70, 100, 0.01)):
        shell = (r > near) & (r < far)
        assert np.linalg.norm((a - b)[shell]) < bound * np.linalg.norm(a[shell])


def test_two_stimulators(data):
    with pytest.warns(UserWarning, match="first stimulator.* points along -y"):
        coil = jc.load(data("coils/two_stimulator_example_coil.tcd"))
    assert [e.size for e in coil.elements] == [2100, 2100]
    np.testing.assert_allclose(coil.didt_max, [1.2222e8, 1.0245e8])
    # the same figure-8 twice, the second turned by 90 degrees and 4 mm further away
    x = np.array([[0.0, 0.0, 40.0]])
    first = a_of(coil, x - [0, 0, 4], np.array([1.0, 0.0]))[0]
    second = a_of(coil, x - [0, 0, 8], np.array([0.0, 1.0]))[0]
    np.testing.assert_allclose(np.linalg.norm(first), np.linalg.norm(second), rtol=1e-3)
    assert abs(first @ second) < 0.01 * np.linalg.norm(first) * np.linalg.norm(second)
    # currents close on themselves: div A = 0, and no net dipole-free drift far away
    assert float(jnp.abs(jnp.sum(coil.elements[0].end - coil.elements[0].start, axis=0)).max()) < 1e-2


@pytest.mark.parametrize("encoding", ["utf-8-sig", "latin-1"])
def test_a_ccd_in_other_encodings(tmp_path, encoding):
    path = ccd(tmp_path, header="# Little version 1.0;dIdtmax=100.0;coilname=Little;brand=Bücher")
    expected = jc.load(path)
    path.write_bytes(path.read_text(encoding="utf-8").encode(encoding))
    coil = jc.load(path)
    assert coil.metadata["brand"] == "Bücher"
    np.testing.assert_array_equal(a_of(coil), a_of(expected))


@pytest.mark.parametrize("rate", ["100e6", "1e-4"])
def test_a_largest_rate_that_is_a_million_off(tmp_path, rate):
    with pytest.raises(ValueError, match=r"dIdtmax=.* stimulators reach some 50 to 200 A/us; correct its unit"):
        jc.load(ccd(tmp_path, header=f"# Little version 1.0;dIdtmax={rate}"))
    with pytest.raises(ValueError, match=r"maxdIdt is .* correct its unit"):
        jc.load(tcd(tmp_path, stimulatorList=[{"name": "s", "maxdIdt": float(rate) * 1e6}]))
    with pytest.raises(ValueError, match=r"^source is .* correct its unit"):
        jc.calibrate(float(rate) * 1e6)


def test_arrays_that_are_packed_otherwise_are_told(tmp_path):
    data = base64.b64encode(b"BLZ1" + bytes(64)).decode()
    element = {"stimulator": 0, "type": 3, "data": data, "shape": [4, 4, 4, 3], "affine": np.eye(4).tolist()}
    with pytest.raises(
        ValueError, match=r"`data` is packed, but not by zlib or gzip .*42 4c 5a 31.*plain lists of numbers"
    ):
        jc.load(tcd(tmp_path, coilElementList=[element]))


@pytest.mark.host
def test_a_grid_of_the_magnetic_field_is_doubtful(tmp_path):
    coil = jc.figure8(sides=8, layers=1, turns=3)
    axis = np.arange(-80.0, 81, 8)
    nodes = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    affine = np.diag([8.0, 8, 8, 1])
    affine[:3, 3] = axis[0]
    for field, doubtful in ((jc.vector_potential, False), (jc.magnetic_field, True)):
        values = np.asarray(field(coil, np.eye(4), nodes, didt=9.0)).reshape(*3 * (len(axis),), 3)
        path = tmp_path / "coil.nii.gz"
        nib.save(nib.Nifti1Image(values.astype(np.float32), affine), path)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            jc.load(path)
        assert any("B is in T" in str(w.message) for w in caught) == doubtful
