import gzip
import struct
import tracemalloc
import zlib

import h5py
import nibabel
import numpy as np
import pytest

from jaxm2m.files import check_nifti_size, inflate, open_hdf5, read_nifti

pytestmark = pytest.mark.host

AFFINE = np.array([[-2.0, 0, 0, 90], [0, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1]])


@pytest.mark.parametrize("wbits", [15, 31])
def test_inflate(wbits):
    data = bytes(range(256)) * 100
    packer = zlib.compressobj(wbits=wbits)
    packed = packer.compress(data) + packer.flush()
    assert inflate(packed, len(data)) == data
    with pytest.raises(ValueError, match="casing: more than 25,599 bytes"):
        inflate(packed, len(data) - 1, "casing")
    with pytest.raises(ValueError, match="cut off"):
        inflate(packed[:-5], len(data))


def test_inflate_refuses_a_bomb_without_holding_it():
    bomb = zlib.compress(bytes(200 << 20), 9)
    tracemalloc.start()
    with pytest.raises(ValueError, match="more than 1,000 bytes"):
        inflate(bomb, 1000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 << 20


@pytest.mark.parametrize("data", [b"", b"not compressed at all"])
def test_inflate_names_broken_data(data):
    with pytest.raises(ValueError, match=r"points: .*(broken|cut off)"):
        inflate(data, 100, "points")


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, ">i2", np.float32, np.float64])
def test_read_nifti_returns_what_was_written(tmp_path, name, dtype):
    values = np.arange(60).reshape(3, 4, 5).astype(dtype)
    nibabel.save(nibabel.Nifti1Image(values, AFFINE), tmp_path / name)
    read, affine = read_nifti(tmp_path / name)
    np.testing.assert_array_equal(read, values)
    np.testing.assert_array_equal(affine, AFFINE)
    assert read.dtype == np.dtype(dtype).newbyteorder("=")
    assert read.flags.c_contiguous


def test_read_nifti_2_and_scaled_integers(tmp_path):
    values = np.linspace(-1, 1, 27).reshape(3, 3, 3)
    image = nibabel.Nifti2Image(values, AFFINE)
    image.set_data_dtype(np.int16)
    nibabel.save(image, tmp_path / "a.nii.gz")
    read, _ = read_nifti(tmp_path / "a.nii.gz")
    assert read.dtype == np.float64
    np.testing.assert_allclose(read, values, atol=5e-5)
    # the limit is on what is held in memory: eight bytes a number, not two
    with pytest.raises(ValueError, match="over the limit"):
        read_nifti(tmp_path / "a.nii.gz", limit=27 * 8 - 1)


@pytest.mark.parametrize(("unit", "factor"), [("meter", 1e3), ("mm", 1.0), ("micron", 1e-3), (None, 1.0)])
def test_affine_is_in_mm(tmp_path, unit, factor):
    image = nibabel.Nifti1Image(np.zeros((2, 2, 2), np.uint8), AFFINE)
    if unit:
        image.header.set_xyzt_units(unit)
    nibabel.save(image, tmp_path / "a.nii")
    np.testing.assert_allclose(read_nifti(tmp_path / "a.nii")[1][:3], AFFINE[:3] * factor)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_truncated_nifti(tmp_path, name):
    path = tmp_path / name
    nibabel.save(nibabel.Nifti1Image(np.random.default_rng(0).integers(0, 99, (20, 20, 20), np.uint8), AFFINE), path)
    whole = path.read_bytes()
    for length in (len(whole) - 10, len(whole) // 2, 200, 10):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=rf"labels: .*{name}.*(cut off|not a readable NIfTI|broken)"):
            read_nifti(path, name="labels")
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=rf"labels: .*{name} is empty"):
        read_nifti(path, name="labels")


def test_not_nifti(tmp_path):
    for name, content in (
        ("a.nii", b"hello" * 200),
        ("b.nii.gz", b"hello" * 200),
        ("c.nii.gz", gzip.compress(b"x" * 999)),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=rf"path: .*{name} .*NIfTI"):
            read_nifti(tmp_path / name)
    with pytest.raises(ValueError, match=r"a\.mgz is not one of \.nii, \.nii\.gz"):
        read_nifti(tmp_path / "a.mgz")
    with pytest.raises(FileNotFoundError, match=r"gone\.nii does not exist"):
        read_nifti(tmp_path / "gone.nii")


@pytest.mark.parametrize("compress", [False, True])
def test_nifti_that_declares_more_than_it_holds(tmp_path, compress):
    header = nibabel.Nifti1Image(np.zeros((2, 2, 2), np.uint8), AFFINE).header
    header.set_data_shape((1200, 1200, 1200))
    header["vox_offset"] = 352
    data = header.binaryblock + bytes(4) + bytes(1000)
    path = tmp_path / ("a.nii.gz" if compress else "a.nii")
    path.write_bytes(gzip.compress(data) if compress else data)
    with pytest.raises(ValueError, match="1200 x 1200 x 1200 values do; it was cut off"):
        check_nifti_size(path)
    with pytest.raises(ValueError, match=r"1\.6 GB in memory, over the limit of 1\.0 GB; crop"):
        check_nifti_size(path, limit=1 << 30)


def test_nifti_with_a_header_of_gigabytes(tmp_path):
    header = bytearray(nibabel.Nifti1Image(np.zeros((2, 2, 2), np.uint8), AFFINE).header.binaryblock)
    struct.pack_into("<f", header, 108, 2e9)
    (tmp_path / "a.nii").write_bytes(bytes(header) + bytes(100))
    with pytest.raises(ValueError, match="declares a header of 2e\\+09 bytes"):
        read_nifti(tmp_path / "a.nii")


def test_nifti_of_the_wrong_kind(tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.zeros((2, 2, 2), np.complex64), AFFINE), tmp_path / "a.nii")
    with pytest.raises(ValueError, match="holds complex64; save it as real numbers"):
        read_nifti(tmp_path / "a.nii")
    flat = AFFINE.copy()
    flat[2] = 0
    image = nibabel.Nifti1Image(np.zeros((2, 2, 2), np.uint8), None)
    image.header["sform_code"] = 1
    image.header["srow_x"], image.header["srow_y"], image.header["srow_z"] = flat[:3]
    nibabel.save(image, tmp_path / "b.nii")
    with pytest.raises(ValueError, match=r"b\.nii has an affine that is not invertible; set"):
        read_nifti(tmp_path / "b.nii")


def test_open_hdf5(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["group/values"] = np.arange(10.0)
        file["text"] = "words"
        file["again"] = file["group"]  # a hard link
        file["group/loop"] = file["group"]
        file.create_dataset("empty", (0, 3), "f8")
    with open_hdf5(path) as file:
        assert file["group/values"][3] == 3
        assert file.mode == "r"
    with pytest.raises(ValueError, match="over the limit"):
        open_hdf5(path, limit=10)


def test_open_hdf5_refuses_what_points_elsewhere(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = np.zeros(3)
    (tmp_path / "raw").write_bytes(bytes(80))

    def external_link(file):
        file["deep/link"] = h5py.ExternalLink("other.h5", "/x")

    def soft_link(file):
        file["deep/link"] = h5py.SoftLink("/nowhere")

    def external_data(file):
        file.create_dataset("deep/link", (10,), "f8", external=[(str(tmp_path / "raw"), 0, 80)])

    def virtual_data(file):
        layout = h5py.VirtualLayout((3,), "f8")
        layout[:] = h5py.VirtualSource("other.h5", "x", (3,))
        file.create_virtual_dataset("deep/link", layout)

    def references(file):
        file.create_dataset("deep/link", (1,), h5py.ref_dtype)

    def ragged(file):
        file.create_dataset("deep/link", (1,), h5py.vlen_dtype(np.float64))

    def compound(file):
        file.create_dataset("deep/link", (1,), np.dtype([("a", "f8"), ("b", h5py.ref_dtype)]))

    for make in (external_link, soft_link, external_data, virtual_data, references, ragged, compound):
        path = tmp_path / f"{make.__name__}.h5"
        with h5py.File(path, "w") as file:
            make(file)
        with pytest.raises(ValueError, match=rf"fields: .*{make.__name__}\.h5 has .* at /deep/link; write"):
            open_hdf5(path, name="fields")


def test_open_hdf5_bad_files(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["x"] = np.random.default_rng(0).normal(size=10000)
    whole = path.read_bytes()
    path.write_bytes(whole[:5000])
    with pytest.raises(ValueError, match=r"a\.h5 cannot be opened \(it was cut off\)"):
        open_hdf5(path)
    path.write_bytes(b"text, not HDF5" * 100)
    with pytest.raises(ValueError, match="is not an HDF5 file"):
        open_hdf5(path)
    with h5py.File(path, "w") as file:  # 8 TB declared, nothing written
        file.create_dataset("x", (10**6, 10**6), "f8", chunks=(100, 100))
    with pytest.raises(ValueError, match=r"declares 7450\.6 GB, over the limit of 64\.0 GB"):
        open_hdf5(path)


def test_users_files(data):
    values, affine = read_nifti(data("heads/colin27_labels_1mm.nii.gz"))
    assert values.shape == (181, 217, 181)
    assert values.dtype == np.uint8
    np.testing.assert_array_equal(affine[:3, 3], (-90, -126, -72))
    with open_hdf5(data("emg/rat_locomotion.h5")) as file:
        assert file["train_data"].shape == (151, 112, 12)
