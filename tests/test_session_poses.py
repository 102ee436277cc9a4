import json

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from jaxm2m import session

pytestmark = pytest.mark.host


@pytest.fixture
def poses():
    result = np.tile(np.eye(4), (5, 1, 1))
    result[:, :3, :3] = Rotation.random(5, rng=np.random.default_rng(0)).as_matrix()
    result[:, :3, 3] = np.random.default_rng(0).uniform(-80, 80, (5, 3))
    return result


def load(path):
    loaded, space = session.load_poses(path)
    assert space is None
    assert loaded.dtype == np.float64
    return loaded


def test_npy(tmp_path, poses):
    path = tmp_path / "poses.npy"
    for values, atol in ((poses, 1e-12), (poses.astype(np.float32), 1e-5), (np.asfortranarray(poses), 1e-12)):
        np.save(path, values)
        np.testing.assert_allclose(load(path), poses, atol=atol)
    np.save(path, poses[0])
    np.testing.assert_allclose(load(path), poses[:1], atol=1e-12)


@pytest.mark.parametrize(
    "header", ["", ",".join(f"m{i}{j}" for i in range(4) for j in range(4)) + "\n", "# made by hand\n"]
)
@pytest.mark.parametrize("delimiter", [",", ";", "\t", " ", ", "])
def test_csv_is_row_major(tmp_path, poses, header, delimiter):
    path = tmp_path / "poses.csv"
    path.write_text(
        header + "\n".join(delimiter.join(map(repr, row.tolist())) for row in poses.reshape(5, 16)) + "\n\n"
    )
    np.testing.assert_allclose(load(path), poses, atol=1e-12)


def test_one_matrix_as_text(tmp_path, poses):
    np.savetxt(tmp_path / "pose.txt", poses[2])
    np.testing.assert_allclose(load(tmp_path / "pose.txt"), poses[2:3], atol=1e-12)


def test_json(tmp_path, poses):
    path = tmp_path / "poses.json"
    path.write_text(json.dumps(poses.tolist()))
    np.testing.assert_allclose(load(path), poses, atol=1e-12)
    path.write_text(json.dumps({"poses": poses[0].tolist(), "space": "MNI152"}))
    loaded, space = session.load_poses(path)
    np.testing.assert_allclose(loaded, poses[:1], atol=1e-12)
    assert space == "MNI152"


def test_poses_that_are_not_rigid_are_named(tmp_path, poses):
    poses[3, :3, :3] *= 1.1
    np.save(tmp_path / "a.npy", poses)
    np.savetxt(tmp_path / "a.csv", poses.reshape(5, 16), delimiter=",")
    (tmp_path / "a.json").write_text(json.dumps(poses.tolist()))
    for name in ("a.npy", "a.csv", "a.json"):
        with pytest.raises(ValueError, match=rf"path: .*{name}, pose 4: scaled, its axes have length 1\.1"):
            session.load_poses(tmp_path / name)
    poses[3] = np.nan
    np.save(tmp_path / "a.npy", poses)
    with pytest.raises(ValueError, match="pose 4: holds NaN; leave"):
        session.load_poses(tmp_path / "a.npy")
    # columns first, as MATLAB would write them
    np.savetxt(tmp_path / "a.csv", poses[:3].transpose(0, 2, 1).reshape(3, 16), delimiter=",")
    with pytest.raises(ValueError, match="pose 1: the centre stands in the last row; transpose"):
        session.load_poses(tmp_path / "a.csv")


def test_bad_files(tmp_path):
    for name, content, message in [
        ("a.csv", "x,y,z\n1,2,3\n", r"line 2: 3 numbers; a pose is 16 numbers in one row"),
        ("a.csv", "a,b\n", "has no row of numbers"),
        ("a.csv", ",".join("1" * 16) + "\n1,x\n", "line 2: not all of it is numbers"),
        ("a.csv", "1 0 0 0\n0 1 0 0\n", "has 2 rows of four numbers"),
        ("a.csv", "1 0 0 0\n" + " ".join("1" * 16), "line 2: 16 numbers"),
        ("a.csv", "", "is empty"),
        ("a.json", "[[1,2", "is not JSON"),
        ("a.json", "[" * 100000, "is not JSON"),
        ("a.json", '{"pose": 1}', "has no key 'poses'"),
        ("a.json", '{"poses": [[1]], "space": 3}', "'space' is 3; it must be text"),
        ("a.json", "[[1, 2], [3]]", "rows of different lengths"),
        ("a.json", "[]", r"holds an array of shape \(0,\)"),
        ("a.npy", "text", "is not a whole .npy file"),
        ("a.txt", "\xff\xfe", "is neither|has no row of numbers"),
    ]:
        (tmp_path / name).write_text(content)
        with pytest.raises(ValueError, match=rf"path: .*{name}.*{message}"):
            session.load_poses(tmp_path / name)
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe1\x00")
    with pytest.raises(ValueError, match=r"a\.txt is not UTF-8 text"):
        session.load_poses(tmp_path / "a.txt")
    (tmp_path / "a.json").write_text('["a"]')
    with pytest.raises(TypeError, match="pass real numbers"):
        session.load_poses(tmp_path / "a.json")


def test_npy_that_promises_too_much_or_hides_objects(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((3, 4, 4)))
    whole = path.read_bytes()
    path.write_bytes(whole[:-8])
    with pytest.raises(ValueError, match=r"is not a whole \.npy file"):
        session.load_poses(path)
    path.write_bytes(whole.replace(b"(3, 4, 4), }        ", b"(999999999, 4, 4), }"))
    with pytest.raises(ValueError, match=r"is not a whole \.npy file"):
        session.load_poses(path)
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"is not a whole \.npy file of numbers"):
        session.load_poses(path)
    np.save(path, np.zeros((4, 3)))
    with pytest.raises(ValueError, match=r"holds an array of shape \(4, 3\); poses are"):
        session.load_poses(path)
