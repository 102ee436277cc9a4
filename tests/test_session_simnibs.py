"""Positions of SimNIBS as MATLAB files, formats that are refused by their own name, folders of a Localite session."""

import numpy as np
import pytest
import scipy.io
from scipy.spatial.transform import Rotation

import jaxm2m as jm

POSES = np.tile(np.eye(4), (3, 1, 1))
POSES[:, :3, :3] = Rotation.random(3, rng=7).as_matrix()
POSES[:, :3, 3] = [[-40.5, -20.25, 80], [1, 2, 95.125], [60, 0.5, 50]]


def write_session(path, poses, extra=()):
    """A SESSION with two TMS lists, as SimNIBS's own programs write it: cells of structures."""
    names = ("type", "name", "date", "matsimnibs", "didt", "centre", "pos_ydir", "distance")

    def positions(rows):
        record = np.zeros((1, len(rows)), [(name, object) for name in names])
        for entry, (pose, name, rate) in zip(record[0], rows, strict=True):
            for key in names:
                entry[key] = np.zeros((0, 0))
            entry["type"], entry["name"], entry["matsimnibs"], entry["didt"] = "POSITION", name, pose, rate
        return record

    lists = np.empty((1, 2), object)
    lists[0, 0] = {"type": "TMSLIST", "fnamecoil": "coil.ccd", "pos": positions([(poses[0], "first", 1e6), *extra])}
    lists[0, 1] = {"type": "TMSLIST", "fnamecoil": "coil.ccd", "pos": positions([(p, "", 2.5e6) for p in poses[1:]])}
    scipy.io.savemat(path, {"type": "SESSION", "fnamehead": "head.msh", "poslist": lists})
    return path


def test_positions_of_every_list_are_read(tmp_path):
    path = write_session(tmp_path / "simnibs_simulation_20261129.mat", POSES)
    poses, space = jm.session.load_poses(path)
    np.testing.assert_allclose(poses, POSES, atol=1e-9)
    assert space == "subject"
    session = jm.session.load(path)
    assert session.names == ("first", "Position 2", "Position 3")
    np.testing.assert_array_equal(session.didt, [1e6, 2.5e6, 2.5e6])
    assert session.kind == ("target",) * 3
    assert session.source_space == "SimNIBS"


def test_lists_are_written_and_read_back(tmp_path):
    path = jm.session.save_targets(tmp_path / "list.mat", POSES, names=["a", "b", "c"], space="subject")
    session = jm.session.load(path)
    np.testing.assert_allclose(session.poses, POSES, atol=1e-12)
    assert session.names == ("a", "b", "c")
    assert np.isnan(session.didt).all()  # nobody gave one
    with pytest.raises(ValueError, match="space of the subject's head mesh"):
        jm.session.save_targets(tmp_path / "list.mat", POSES, space="MNI152")


@pytest.mark.parametrize(
    ("write", "text"),
    [
        (
            lambda p: write_session(p, POSES, [(np.zeros((0, 0)), "C3", 1e6)]),
            "position 2 has no matsimnibs.*coil.place",
        ),
        (lambda p: write_session(p, POSES, [(np.eye(3), "C3", 1e6)]), r"position 2: matsimnibs has the shape \(3, 3\)"),
        (lambda p: write_session(p, POSES * 2), "position 1"),
        (lambda p: scipy.io.savemat(p, {"x": 1.0}), "holds no TMS positions"),
        (lambda p: p.write_bytes(write_session(p, POSES).read_bytes()[:-40]), "no readable MATLAB file"),
        (lambda p: p.write_text("poses"), "no readable MATLAB file"),
    ],
)
def test_other_mat_files_are_refused(tmp_path, write, text):
    path = tmp_path / "session.mat"
    write(path)
    for read in (jm.session.load, jm.session.load_poses):
        with pytest.raises(ValueError, match=f"session.mat.*{text}"):
            read(path)


@pytest.mark.parametrize(("suffix", "maker"), [(".mrk", "ANT Visor"), (".stmpx", "SofTaxic"), (".NBE", "Nexstim")])
def test_formats_without_a_reader_are_refused_by_name(tmp_path, suffix, maker):
    path = tmp_path / f"coil{suffix}"
    path.write_text('<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "b">]><x/>')
    for read in (jm.session.load, jm.session.load_poses):
        with pytest.raises(ValueError, match=f"is a file of {maker}, which is not read; .*16 numbers"):
            read(path)


MARKER = (
    '<TriggerMarker description="" recordingTime="{time}"><ResponseValues/>'
    '<Matrix4D data00="{a}" data01="0" data02="0" data03="{x}" data10="0" data11="1" data12="0" data13="2" '
    'data20="0" data21="0" data22="1" data23="90" data30="0" data31="0" data32="0" data33="1"/></TriggerMarker>'
)


def write_triggers(path, located):
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = "".join(
        MARKER.format(time=1000 * i, a=1, x=10 + i)
        if located
        else MARKER.replace('"2"', '"0"').replace('"90"', '"0"').format(time=1000 * i, a=1, x=0)
        for i in range(2)
    )
    path.write_text(f'<TriggerMarkerList coordinateSpace="RAS">{rows}</TriggerMarkerList>')


def test_a_session_folder_is_its_file_with_positions(tmp_path):
    folder = tmp_path / "Session_20261129"
    write_triggers(folder / "TMSTrigger" / "TriggerMarkers_Coil0_1.xml", located=True)
    write_triggers(folder / "TMSTrigger" / "TriggerMarkers_Coil1_1.xml", located=False)
    assert len(jm.session.load(folder)) == 2
    assert jm.session.load_poses(folder)[0].shape == (2, 4, 4)
    write_triggers(folder / "TMSTrigger" / "TriggerMarkers_Coil0_2.xml", located=True)
    with pytest.raises(
        ValueError, match=r"holds 3 TriggerMarkers files, 2 with positions .*Coil0_1.xml: 2; .*Coil0_2.xml: 2"
    ):
        jm.session.load(folder)
    with pytest.raises(ValueError, match="a folder without a TriggerMarkers"):
        jm.session.load(make_empty(tmp_path))


def make_empty(folder):
    (folder / "empty").mkdir()
    return folder / "empty"


def test_commands_take_a_session_folder(tmp_path):
    from jaxm2m.cli import _arguments

    write_triggers(tmp_path / "session" / "TMSTrigger" / "TriggerMarkers_Coil0_1.xml", located=True)
    _arguments.check_poses(tmp_path / "session")
    with pytest.raises(FileNotFoundError, match=r"--poses: .*nothing does not exist"):
        _arguments.check_poses(tmp_path / "nothing")
