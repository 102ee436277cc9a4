import io
import os
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from jaxm2m import _check
from jaxm2m._progress import progress_bar


def rigid(n, seed=0):
    poses = np.tile(np.eye(4), (n, 1, 1))
    poses[:, :3, :3] = Rotation.random(n, rng=np.random.default_rng(seed)).as_matrix()
    poses[:, :3, 3] = np.random.default_rng(seed).normal(size=(n, 3)) * 50
    return poses


def test_rigid_poses_pass_unchanged():
    poses = rigid(6).reshape(2, 3, 4, 4)
    np.testing.assert_array_equal(_check.pose(poses), poses)
    on_device = jnp.asarray(poses)
    assert _check.pose(on_device) is on_device
    np.testing.assert_array_equal(_check.pose(np.eye(4, dtype=int)), np.eye(4))
    _check.pose(np.round(poses, 3))


def sheared(m):
    m[:3, 0] += 0.1 * m[:3, 1]
    m[:3, 0] /= np.linalg.norm(m[:3, 0])


def scaled(m):
    m[:3, :3] *= 1.5


def metres(m):
    m[:3] *= 1e-3


def uneven(m):
    m[:3, 2] *= 1.2


def left_handed(m):
    m[:3, 2] *= -1


def transposed(m):
    m[:] = m.T.copy()


def last_row(m):
    m[3, 3] = 2


def nan(m):
    m[1, 3] = np.nan


@pytest.mark.host
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (sheared, "sheared, two of its axes meet at 84.29 degrees; they must be perpendicular"),
        (scaled, "scaled, its axes have length 1.5; divide"),
        (metres, "scaled, its axes have length 0.001; the axes are in metres"),
        (uneven, "axes of lengths 1, 1, 1.2; x, y and z must be unit vectors"),
        (left_handed, "left-handed; x must be y cross z"),
        (transposed, "the centre stands in the last row; transpose"),
        (last_row, "last row 0, 0, 0, 2; it must be 0, 0, 0, 1"),
        (nan, "holds NaN or infinity; leave poses"),
    ],
)
def test_pose_defects_are_named(spoil, message):
    poses = rigid(6).reshape(2, 3, 4, 4)
    spoil(poses[1, 2])
    with pytest.raises(ValueError, match=rf"^start\[1, 2\]: {message}"):
        _check.pose(poses, "start")
    with pytest.raises(ValueError, match=rf"^pose: {message}"):
        _check.pose(poses[1, 2])


@pytest.mark.host
@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 4, 3), ()])
def test_pose_shape(shape):
    with pytest.raises(ValueError, match=r"pose: shape .*; a pose is a 4x4 matrix"):
        _check.pose(np.zeros(shape))


def test_traced_values_are_checked_by_shape_alone():
    @jax.jit
    def f(pose, points):
        return _check.pose(pose)[..., :3, 3].sum() + _check.points(points).sum() + _check.positive(points, "d").sum()

    assert f(jnp.zeros((4, 4)), -jnp.ones((5, 3))) == -30
    with pytest.raises(ValueError, match="a pose is a 4x4 matrix"):
        f(jnp.zeros((4, 3)), jnp.ones((5, 3)))
    with pytest.raises(ValueError, match="last axis must hold x, y, z"):
        f(jnp.zeros((4, 4)), jnp.ones((3, 5)))


@pytest.mark.host
def test_numbers():
    assert _check.points([[1, 2, 3]]).shape == (1, 3)
    with pytest.raises(ValueError, match=r"points: 2 of 6 values are NaN or infinite \(first at \[0, 1\]\)"):
        _check.points([[1, np.nan, 3], [4, 5, np.inf]])
    with pytest.raises(ValueError, match=r"didt: nan; pass a finite number\."):
        _check.positive(float("nan"), "didt")
    with pytest.raises(ValueError, match="points: rows of different lengths"):
        _check.points([[1, 2, 3], [1, 2]])
    with pytest.raises(TypeError, match=r"points: found str .*; pass real numbers"):
        _check.points("x")
    with pytest.raises(TypeError, match="found complex"):
        _check.array(jnp.ones(2, jnp.complex64), "x")
    assert _check.positive(2.5, "spacing") == 2.5
    with pytest.raises(ValueError, match="spacing: 0; must be above zero"):
        _check.positive(0, "spacing")
    assert _check.positive([0, 1], "distance", zero=True).shape == (2,)
    with pytest.raises(ValueError, match="distance: -1; must be zero or above"):
        _check.positive([0, -1], "distance", zero=True)
    assert _check.integer(np.int64(3), "n") == 3
    for value in (2.0, True, "2"):
        with pytest.raises(TypeError, match="pass a whole number"):
            _check.integer(value, "n")
    with pytest.raises(ValueError, match="n: 0; must be at least 1"):
        _check.integer(0, "n")


@pytest.mark.host
@pytest.mark.parametrize("make", [np.array, jnp.array])
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "float16", "float32"])
def test_positive_takes_every_real_type(make, dtype):
    for value in ([3, 2], [], 2):  # the least of an integer array has no infinity to start from
        given = make(value, dtype)
        assert _check.positive(given, "n") is given
    with pytest.raises(ValueError, match="n: 0; must be above zero"):
        _check.positive(make([2, 0], dtype), "n")
    assert _check.positive(make([2, 0], dtype), "n", zero=True).dtype == dtype


@pytest.mark.host
def test_option():
    assert _check.option("a", ("a", "b"), "kind") == "a"
    with pytest.raises(ValueError, match=r"kind: 'c'; choose one of 'a', 'b'\."):
        _check.option("c", ("a", "b"), "kind")


@pytest.mark.host
def test_file(tmp_path):
    path = tmp_path / "a.NII.gz"
    path.write_text("x")
    assert _check.file(str(path), suffixes=(".nii.gz",)) == path
    with pytest.raises(ValueError, match=r"head: .*a\.NII\.gz is not one of \.msh"):
        _check.file(path, "head", suffixes=(".msh",))
    with pytest.raises(FileNotFoundError, match=r"head: .*gone does not exist"):
        _check.file(tmp_path / "gone", "head")
    with pytest.raises(IsADirectoryError, match="is a folder; name a file"):
        _check.file(tmp_path)
    with pytest.raises(TypeError, match="path: int; pass the path"):
        _check.file(3)
    path.write_text("")
    with pytest.raises(ValueError, match="is empty"):
        _check.file(path)
    path.write_text("x")
    path.chmod(0)
    if not os.access(path, os.R_OK):  # the superuser may read everything
        with pytest.raises(PermissionError, match="cannot be read"):
            _check.file(path)


@pytest.mark.host
def test_progress_is_silent_off_a_terminal_and_counts_on_one(monkeypatch):
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    with progress_bar(3, "solving") as advance:
        advance()
    assert written.getvalue() == ""
    with progress_bar(3, "solving", unit="poses", enabled=True) as advance:
        advance()
        advance(2)
    assert "solving" in written.getvalue()
    assert "3/3" in written.getvalue()
