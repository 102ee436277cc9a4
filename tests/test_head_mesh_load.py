"""Meshes from files: what other programs write is read to the last bit, and what is broken is told."""

import contextlib

import nibabel
import numpy as np
import pytest
from mesh_cases import binary_22, cube, layered, surface, text_22, version_41

import jaxm2m as jm
from jaxm2m.head import _gmsh

pytestmark = pytest.mark.host


def write(folder, data, name="head.msh"):
    path = folder / name
    path.write_bytes(data)
    return path


def load(path):
    """A head whose surfaces nobody asks for: coarse."""
    return jm.head.load(path, 6.0)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("grouped", [False, True])
def test_version_22_binary(tmp_path, order, grouped):
    nodes, elements, tags = layered()
    mesh = _gmsh.read_gmsh(
        write(tmp_path, binary_22(*layered(), triangles=surface(nodes), grouped=grouped, order=order))
    )
    np.testing.assert_array_equal(mesh.nodes, nodes)
    np.testing.assert_array_equal(mesh.elements, elements)
    np.testing.assert_array_equal(mesh.tags, tags)
    np.testing.assert_array_equal(mesh.numbers, np.arange(3, 3 + len(elements)))
    assert mesh.tensors is None


def test_version_22_text(tmp_path):
    nodes, elements, tags = layered()
    data = text_22(nodes, elements, tags, triangles=surface(nodes))
    for text in (data, data.replace(b"\n", b"\r\n")):
        mesh = _gmsh.read_gmsh(write(tmp_path, text))
        np.testing.assert_array_equal(mesh.nodes, nodes)
        np.testing.assert_array_equal(mesh.elements, elements)
        np.testing.assert_array_equal(mesh.tags, tags)


@pytest.mark.parametrize(("binary", "order"), [(False, "<"), (True, "<"), (True, ">")])
def test_version_41(tmp_path, binary, order):
    nodes, elements, tags = layered()
    mesh = _gmsh.read_gmsh(write(tmp_path, version_41(nodes, elements, tags, binary=binary, order=order)))
    sort = np.argsort(tags, kind="stable")
    np.testing.assert_array_equal(mesh.nodes, nodes)
    np.testing.assert_array_equal(mesh.elements, elements[sort])
    np.testing.assert_array_equal(mesh.tags, tags[sort])


def test_numbers_of_nodes_with_gaps(tmp_path):
    nodes, elements, tags = layered()
    numbers = np.random.default_rng(0).permutation(10 * len(nodes))[: len(nodes)] + 1
    mesh = _gmsh.read_gmsh(write(tmp_path, binary_22(nodes, elements, tags, numbers=numbers)))
    np.testing.assert_array_equal(mesh.elements, elements)
    numbers[5] = numbers[90]
    with pytest.raises(ValueError, match="two nodes one number"):
        _gmsh.read_gmsh(write(tmp_path, binary_22(nodes, elements, tags, numbers=numbers)))


@pytest.mark.parametrize("writer", [binary_22, text_22])
@pytest.mark.parametrize("components", [6, 9])
def test_conductivity_tensors(tmp_path, writer, components):
    nodes, elements, tags = layered()
    rng = np.random.default_rng(0)
    factor = rng.normal(size=(len(elements), 3, 3))
    tensors = factor @ factor.transpose(0, 2, 1) + 0.1 * np.eye(3)
    values = tensors.reshape(-1, 9)
    if components == 6:
        values = values[:, [0, 1, 2, 4, 5, 8]]
    data = [("magnE", np.ones((len(elements), 1))), ("conductivity tensor", values), ("E", values[:, :3])]
    path = write(tmp_path, writer(nodes, elements, tags, triangles=surface(nodes), data=data))
    np.testing.assert_allclose(_gmsh.read_gmsh(path).tensors, tensors)
    head = load(path)
    scalar = np.asarray(head.conductivity)[head.tissue][:, None, None]
    np.testing.assert_allclose(scalar * head.anisotropy, tensors, rtol=1e-5, atol=1e-6)
    # some elements only
    data[1] = (data[1][0], values[:100])
    path = write(tmp_path, writer(nodes, elements, tags, data=data))
    found = _gmsh.read_gmsh(path).tensors
    np.testing.assert_allclose(found[:100], tensors[:100])
    assert np.isnan(found[100:]).all()
    path = write(tmp_path, writer(nodes, elements, tags, data=[data[1], ("cond", values)]))
    with pytest.raises(ValueError, match="several sets of conductivity tensors"):
        _gmsh.read_gmsh(path)


def test_load(tmp_path):
    nodes, elements, tags = layered()
    path = write(tmp_path, binary_22(nodes, elements, tags, triangles=surface(nodes)))
    head = jm.head.load(path)
    assert isinstance(head, jm.head.MeshHead)
    assert head.tissues == ("grey", "scalp")
    assert head.space == "subject"
    assert head.metadata["source"] == "head.msh"
    head = jm.head.load(path, 2.0, labels={"white": 2, "scalp": 5}, conductivity={"white": 0.2}, space="MNI152")
    assert head.labels.shape == (12, 12, 12)
    assert head.tissues == ("white", "scalp")
    assert float(head.conductivity[0]) == pytest.approx(0.2)
    np.testing.assert_array_equal(head.to_mni(np.ones((2, 3))), 1)
    with pytest.raises(ValueError, match="crop"):
        jm.head.load(path, crop=((0, 0, 0), 10.0))


@pytest.mark.parametrize("name", ["meshes/sphere3.msh", "meshes/sphere3_v4_1_ascii.msh"])
@pytest.mark.slow
def test_a_real_mesh(data, name):
    head = jm.head.load(data(name), 2.0)
    assert head.tissues == ("csf", "skull", "scalp")
    assert len(head.elements) == 22704
    assert len(head.nodes) == 4556
    volume = head.volumes()
    # facets of 5 to 10 mm lie inside the balls
    assert sum(volume.values()) == pytest.approx(4 / 3 * np.pi * 95**3 / 1000, rel=0.01)
    assert volume["csf"] == pytest.approx(4 / 3 * np.pi * 85**3 / 1000, rel=0.01)
    np.testing.assert_array_equal(head.tissue_at(np.diag([0.0, 87.5, 92.5])), [0, 1, 2])
    np.testing.assert_array_equal(head.locate(head.centroids())[0], np.arange(22704))


def cases():
    nodes, elements, tags = layered()
    good = binary_22(nodes, elements, tags, triangles=surface(nodes))
    text = text_22(nodes, elements, tags)
    at = good.index(b"$Elements") + 14  # the first element's header
    head = good[: good.index(b"$Nodes")]
    yield "not Gmsh", b"solid head\n" * 9, "is not a Gmsh mesh"
    yield "version 1", b"$NOD\n3\n" + text, "is not a Gmsh mesh"
    yield "version 4.0", text.replace(b"2.2 0 8", b"4 0 8"), "version 4 .*save it as 2.2 or 4.1"
    yield "other numbers", text.replace(b"2.2 0 8", b"2.2 0 4"), "numbers of 4 bytes"
    yield "no version", text.replace(b"2.2 0 8", b"two"), "broken first section"
    yield "no elements", good[: good.index(b"$Elements")], "has no section \\$Elements"
    yield "no nodes", head + good[good.index(b"$Elements") :], "has no section \\$Nodes"
    yield "surfaces alone", binary_22(nodes, elements[:0], tags[:0], triangles=surface(nodes)), "surfaces alone"
    yield "nothing", binary_22(nodes, elements[:0], tags[:0]), "no elements"
    yield "no tags", binary_22(nodes, elements, 0 * tags), "no physical tag"
    yield "many nodes", good.replace(b"$Nodes\n125\n", b"$Nodes\n9999999999999\n"), "declares 9999999999999 entries"
    yield "many elements", good.replace(b"$Elements\n386\n", b"$Elements\n9999999999\n"), "declares 9999999999 elements"
    yield "more elements", good.replace(b"$Elements\n386\n", b"$Elements\n387\n"), "\\$Elements"
    yield (
        "fewer elements",
        good.replace(b"$Elements\n386\n", b"$Elements\n385\n"),
        "at the end of its section \\$Elements",
    )
    yield "fewer in text", text.replace(b"$Elements\n384\n", b"$Elements\n383\n"), "more than it declares"
    yield "fewer nodes in text", text.replace(b"$Nodes\n125\n", b"$Nodes\n124\n"), "more than it declares"
    yield "negative", good.replace(b"$Nodes\n125\n", b"$Nodes\n-125\n"), "declares -125 entries"
    yield "no count", good.replace(b"$Nodes\n125\n", b"$Nodes\nmany\n"), "a count was expected"
    yield "strange element", good[:at] + b"\x63\x00\x00\x00" + good[at + 4 :], "unknown kind"
    yield "huge block", good[: at + 4] + b"\xff\xff\xff\x7f" + good[at + 8 :], "unknown kind"
    yield "huge tags", good[: at + 8] + b"\xff\xff\xff\x7f" + good[at + 12 :], "unknown kind"
    data = text_22(nodes, elements, tags, data=[("cond", np.ones((384, 9)))])
    yield (
        "huge head",
        data.replace(b"$ElementData\n1\n", b"$ElementData\n999999999999\n"),
        "declares 999999999999 lines",
    )
    yield "words", text.replace(b"\n3 -", b"\nthree -", 1), "no number"
    yield "cut text", text[: len(text) // 3], "cut off or broken"
    yield "four", version_41(nodes, elements, tags, binary=True).replace(b"4.1 1 8", b"4.1 0 8"), "broken"


@pytest.mark.parametrize(("data", "message"), [pytest.param(*case[1:], id=case[0]) for case in cases()])
def test_broken_files(tmp_path, data, message):
    path = write(tmp_path, data)
    with pytest.raises(ValueError, match=message) as error:
        jm.head.load(path)
    assert str(path) in str(error.value)


def test_a_node_that_is_not_there(tmp_path):
    nodes, elements, tags = layered()
    data = text_22(nodes, elements, tags).replace(b"\n7 ", b"\n1007 ", 1)
    with pytest.raises(ValueError, match=r"tetrahedra that name a node which is not there \(number \d+ names node 7\)"):
        jm.head.load(write(tmp_path, data))


def test_other_solids(tmp_path):
    nodes, _, _ = cube(1)
    lines = text_22(nodes, np.zeros((0, 4), int), []).replace(
        b"$Elements\n0\n", b"$Elements\n1\n1 5 2 1 1 1 2 3 4 5 6 7 8\n"
    )
    with pytest.raises(ValueError, match="holds hexahedra"):
        jm.head.load(write(tmp_path, lines))


@pytest.mark.parametrize("make", ["22", "41", "text", "41 text"])
def test_files_cut_anywhere(tmp_path, make):
    """No cut is taken for a whole mesh, and none ends in anything but a message."""
    nodes, elements, tags = layered(2)
    data = {
        "22": lambda: binary_22(nodes, elements, tags),
        "41": lambda: version_41(nodes, elements, tags, binary=True),
        "text": lambda: text_22(nodes, elements, tags),
        "41 text": lambda: version_41(nodes, elements, tags, binary=False),
    }[make]()
    for end in range(1, len(data) - 14, 23):
        with pytest.raises(ValueError, match="path: "):
            _gmsh.read_gmsh(write(tmp_path, data[:end]))


@pytest.mark.parametrize("make", ["22", "41"])
def test_bytes_changed_anywhere(tmp_path, make):
    """A damaged file is read with other numbers or refused; nothing else comes out, and nothing large is made."""
    nodes, elements, tags = layered(2)
    data = binary_22(nodes, elements, tags) if make == "22" else version_41(nodes, elements, tags, binary=True)
    rng = np.random.default_rng(0)
    for _ in range(300):
        damaged = np.frombuffer(data, np.uint8).copy()
        damaged[rng.integers(len(data), size=3)] = rng.integers(256, size=3)
        path = write(tmp_path, damaged.tobytes())
        with contextlib.suppress(ValueError):
            mesh = _gmsh.read_gmsh(path)
            assert len(mesh.elements) <= len(data)


def test_other_programs_write_the_same(tmp_path):
    meshio = pytest.importorskip("meshio")
    nodes, elements, tags = layered()
    order = np.argsort(tags, kind="stable")
    kept, tags = elements[order].astype(np.int32), tags[order].astype(np.int32)
    mesh = meshio.Mesh(nodes, [("tetra", kept)], cell_data={"gmsh:physical": [tags], "gmsh:geometrical": [tags]})
    for binary in (True, False):
        meshio.write(tmp_path / "a.msh", mesh, file_format="gmsh22", binary=binary)
        found = _gmsh.read_gmsh(tmp_path / "a.msh")
        np.testing.assert_array_equal(found.nodes, nodes)
        np.testing.assert_array_equal(found.elements, kept)
        np.testing.assert_array_equal(found.tags, tags)


# SimNIBS folders


def field(path, function, affine, shape=(12, 12, 12), **change):
    """A deformation: in every voxel `function` of its place."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    values = function(index @ affine[:3, :3].T + affine[:3, 3]).astype(np.float32)
    path.parent.mkdir(exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(change.get("values", values), affine), path)


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "m2m_ernie"
    made.mkdir()
    write(made, binary_22(*layered()), "ernie.msh")
    return made


GRID = np.array([[4.0, 0, 0, -22], [0, 4, 0, -22], [0, 0, 4, -22], [0, 0, 0, 1]])


def test_folder(folder, tmp_path):
    head = load(folder)
    assert head.metadata["source"] == "ernie.msh"
    assert "mni" not in head.metadata
    # among others
    write(folder, b"", "other.msh")
    assert load(folder).metadata["source"] == "ernie.msh"
    # as older versions left it
    (folder / "other.msh").unlink()
    (folder / "ernie.msh").rename(tmp_path / "ernie.msh")
    assert load(folder).metadata["source"] == "ernie.msh"
    (tmp_path / "ernie.msh").rename(folder / "some.msh")
    assert load(folder).metadata["source"] == "some.msh"
    write(folder, b"", "other.msh")
    with pytest.raises(ValueError, match=r"holds 2 meshes \(other.msh, some.msh\)"):
        load(folder)


def test_folder_without_a_mesh(folder):
    (folder / "ernie.msh").unlink()
    with pytest.raises(ValueError, match="neither a mesh"):
        load(folder)
    labels = np.zeros((12, 12, 12), np.uint8)
    for label, edge in ((5, 1), (4, 2), (3, 3), (2, 4), (1, 5)):
        labels[edge:-edge, edge:-edge, edge:-edge] = label
    nibabel.save(nibabel.Nifti1Image(labels, GRID), folder / "final_tissues.nii.gz")
    field(folder / "toMNI" / "Conform2MNI_nonl.nii.gz", lambda p: p + 1, GRID)
    head = load(folder)
    assert isinstance(head, jm.head.Head)
    np.testing.assert_allclose(head.to_mni(np.zeros((2, 3))), 1, atol=1e-5)


def test_electrodes_of_the_folder_come_first(folder):
    """ "C3" went through MNI space, 3.5 mm in the median from the folder's own position."""
    own = folder / "eeg_positions"
    own.mkdir()
    rows = "Fiducial,0,10,0,Nz\nElectrode,-9.5,2.0,6.0,C3\nReferenceElectrode,1.0,0.5,14.0,Cz\n"
    (own / "EEG10-10_UI_Jurak_2007.csv").write_text(rows)
    (own / "EEG10-10_Other.csv").write_text("Electrode,9.5,2.0,6.0,C3\nElectrode,0,9,0,Fpz\n")
    head = load(folder)
    np.testing.assert_allclose(jm.head.electrode(head, "c3"), head.scalp.find_nearest((-9.5, 2, 6)), atol=1e-6)
    assert jm.head.electrode_source(head, "C3") == (
        "the head's own positions, eeg_positions/EEG10-10_UI_Jurak_2007.csv"
    )
    assert "EEG10-10_Other.csv" in jm.head.electrode_source(head, "Fpz")
    assert jm.head.electrode_source(head, "Oz") == "the 10-05 system in MNI space"
    (own / "EEG10-10_Other.csv").write_text("Electrode,9.5,two,6.0,C4\n")
    with pytest.raises(ValueError, match=r"EEG10-10_Other\.csv, line 1: no position in mm"):
        load(folder)


def test_to_mni_and_back(folder):
    def bent(p):
        return p @ np.diag([1.1, 0.9, 1.0]) + (3, -5, 7)

    def straight(p):
        return (p - (3, -5, 7)) @ np.diag([1 / 1.1, 1 / 0.9, 1.0])

    field(folder / "toMNI" / "Conform2MNI_nonl.nii.gz", bent, GRID)
    field(folder / "toMNI" / "MNI2Conform_nonl.nii.gz", straight, GRID @ np.diag([-1, 1, 1, 1]) + 0.0)
    head = load(folder)
    points = np.random.default_rng(0).uniform(-12, 12, (4, 5, 3))
    there = head.to_mni(points)
    assert there.shape == points.shape
    np.testing.assert_allclose(there, bent(points), atol=1e-4)
    inside = -np.abs(points) * (1, 0, 0) + points * (0, 1, 1) - (26, 0, 0)
    np.testing.assert_allclose(head.from_mni(inside), straight(inside), atol=1e-4)
    with pytest.raises(ValueError, match="points: 1 of 2 lie beyond the transform Conform2MNI_nonl"):
        head.to_mni(np.array([[0.0, 0, 0], [100, 0, 0]]))


def test_one_field_serves_one_way(folder):
    field(folder / "toMNI" / "Conform2MNI_nonl.nii", lambda p: p, GRID)
    head = load(folder)
    head.to_mni(np.zeros(3))
    with pytest.raises(ValueError, match=r"without a transform from MNI space.*MNI2Conform_nonl"):
        head.from_mni(np.zeros(3))


def test_the_matrix_of_older_folders(folder):
    matrix = np.array([[1.1, 0, 0, 3], [0, 0.9, 0.1, -5], [0, -0.1, 1, 7], [0, 0, 0, 1]])
    (folder / "toMNI").mkdir()
    path = folder / "toMNI" / "MNI2conform_12DOF.txt"
    np.savetxt(path, matrix)
    head = load(folder)
    points = np.random.default_rng(0).uniform(-12, 12, (6, 3))
    np.testing.assert_allclose(head.from_mni(points), points @ matrix[:3, :3].T + matrix[:3, 3])
    np.testing.assert_allclose(head.to_mni(head.from_mni(points)), points, atol=1e-9)
    for wrong in ("nothing", "1 0 0", "0 " * 16, "nan " * 16):
        path.write_text(wrong)
        with pytest.raises(ValueError, match=r"12DOF\.txt is no 4x4 matrix"):
            load(folder)


def test_electrodes_by_name(folder):
    """A head that knows its way from MNI space knows where standard electrodes are."""
    pytest.importorskip("mne")
    nodes, elements, _ = cube(8, 200.0)
    tags = np.full(len(elements), 5)
    write(folder, binary_22(nodes, elements, tags), "ernie.msh")
    head = jm.head.load(folder, 6.0)
    with pytest.raises(ValueError, match="its space is 'subject'"):
        jm.head.electrode(head, "Cz")
    (folder / "toMNI").mkdir()
    found = []
    for shift in (0.0, 20.0):
        matrix = np.eye(4)
        matrix[0, 3] = shift
        np.savetxt(folder / "toMNI" / "MNI2conform_12DOF.txt", matrix)
        found.append(jm.head.electrode(jm.head.load(folder, 6.0), "Cz"))
    assert found[0][2] == pytest.approx(100, abs=1)
    assert abs(found[0][0]) < 3
    np.testing.assert_allclose(found[1] - found[0], (20, 0, 0), atol=0.5)


def test_what_is_no_deformation(folder):
    field(folder / "toMNI" / "MNI2Conform_nonl.nii.gz", lambda p: p, GRID, values=np.zeros((12, 12, 12), np.float32))
    with pytest.raises(ValueError, match=r"MNI2Conform_nonl.nii.gz has shape \(12, 12, 12\)"):
        load(folder)
