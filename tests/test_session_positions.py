"""Positions of the coil from tables of three numbers, with and without names, and from poses."""

import json

import numpy as np
import pytest

from jaxm2m import session

pytestmark = pytest.mark.host

SITES = np.array([[-40.0, -20.0, 52.5], [-41.0, -12.25, 55.0], [-33.0, -20.0, 60.0]])


def table(separator, names=None):
    rows = [separator.join(map(str, row)) for row in SITES]
    return "\n".join([separator.join(names), *rows] if names else rows) + "\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", table(",")),
        ("a.csv", table(";", ["X", "Y", "Z"])),
        ("a.txt", table("\t", ["x (mm)", "y (mm)", "z (mm)"])),
        ("a.txt", table(" ")),
        ("a.csv", "\ufeffname,z,y,x\n" + "".join(f'"a, b",{z},{y},{x}\n' for x, y, z in SITES)),
        ("a.json", json.dumps(SITES.tolist())),
        ("a.json", json.dumps({"positions": SITES.tolist(), "space": "MNI152"})),
    ],
)
def test_tables_of_three_numbers(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    positions, space = session.load_positions(tmp_path / name)
    np.testing.assert_array_equal(positions, SITES)
    assert space == ("MNI152" if "MNI" in text else None)


def test_arrays_and_poses(tmp_path):
    np.save(tmp_path / "a.npy", SITES)
    np.testing.assert_array_equal(session.load_positions(tmp_path / "a.npy")[0], SITES)
    poses = np.tile(np.eye(4), (3, 1, 1))
    poses[:, :3, 3] = SITES
    np.save(tmp_path / "b.npy", poses)
    np.testing.assert_array_equal(session.load_positions(tmp_path / "b.npy")[0], SITES)
    np.savetxt(tmp_path / "c.csv", poses.reshape(3, 16), delimiter=",")
    np.testing.assert_array_equal(session.load_positions(tmp_path / "c.csv")[0], SITES)


@pytest.mark.parametrize(("axes", "turn"), [("RSA", lambda x: x[:, [0, 2, 1]]), ("LPS", lambda x: x * [-1, -1, 1])])
def test_axes_are_turned_into_ras(tmp_path, axes, turn):
    np.savetxt(tmp_path / "a.csv", turn(SITES), delimiter=",")
    np.testing.assert_allclose(session.load_positions(tmp_path / "a.csv", axes=axes)[0], SITES)


def test_axes_that_are_none(tmp_path):
    np.savetxt(tmp_path / "a.csv", SITES, delimiter=",")
    for axes in ("XYZ", "RA", "RAL", "rasp", "RRS"):
        with pytest.raises(ValueError, match=f"axes: '{axes}'; pass three letters"):
            session.load_positions(tmp_path / "a.csv", axes=axes)
    np.save(tmp_path / "b.npy", np.eye(4))
    with pytest.raises(ValueError, match=r"axes: 'LPS', but .* holds poses"):
        session.load_positions(tmp_path / "b.npy", axes="LPS")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("x,y,z\n1,2\n", "line 2: '1 2'; a row of this table has 3 cells"),
        ("x;y;z\n1,5;2,5;3,5\n", "line 2: '1,5 2,5 3,5'.* with a decimal point"),
        ("1,2,3\n4,5,6,7\n", "line 2"),
        ("x,y,z\n", "no row under its column names"),
        ("x,y,z\n1,nan,2\n", "NaN"),
        ("1,2\n3,4\n", "2 numbers; a pose is 16 numbers"),
    ],
)
def test_what_is_no_table_of_positions(tmp_path, text, problem):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ValueError, match=problem):
        session.load_positions(tmp_path / "a.csv")
