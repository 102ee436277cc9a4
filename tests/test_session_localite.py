import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from jaxm2m import _check, session

pytestmark = pytest.mark.host

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def frame(seed=0):
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.random(rng=np.random.default_rng(seed)).as_matrix()
    matrix[:3, 3] = np.random.default_rng(seed).uniform(-60, 60, 3)
    return matrix


def matrix4d(matrix):
    return "<Matrix4D " + " ".join(f'data{i}{j}="{matrix[i, j]}"' for i in range(4) for j in range(4)) + "/>"


def triggers(tmp_path, markers, space="RAS", unit="uV", name="TriggerMarkers_Coil0.xml"):
    """`markers` are (matrix, recordingTime ms, valueA, response, amplitudeA)."""
    lines = [
        f'<?xml version="1.0" encoding="UTF-8"?><TriggerMarkerList coordinateSpace="{space}" startTime="15:28:23.660">'
    ]
    lines.append(f'<ResponseParameters><responseDescription id="response" unit="{unit}"/>')
    lines.append('<responseDescription id="valueA" unit="A/us"/></ResponseParameters>')
    for matrix, time, value, response, amplitude in markers:
        lines.append(f'<TriggerMarker description="" recordingTime="{time}" set="true"><ResponseValues>')
        for key, number in (("valueA", value), ("response", response), ("amplitudeA", amplitude)):
            lines.append(f'<Value key="{key}" response="{number}"/>')
        lines.append(f"</ResponseValues>{matrix4d(matrix)}</TriggerMarker>")
    path = tmp_path / name
    path.write_text("\n".join([*lines, "</TriggerMarkerList>"]))
    return path


def test_trigger_markers(tmp_path):
    path = triggers(tmp_path, [(frame(1), 26098, 62.0, 512.5, 45.0), (np.eye(4), 31615, "NaN", "NaN", 0.0)])
    loaded = session.load(path, channels=("FDI",))
    assert loaded.kind == ("sample", "sample")
    # x, y, z of the pose are Localite's z, -y, x
    old = frame(1)
    expected = np.column_stack([old[:, 2], -old[:, 1], old[:, 0], old[:, 3]])
    np.testing.assert_allclose(loaded.poses[0], expected, atol=1e-12)
    np.testing.assert_array_equal(loaded.located, [True, False])
    np.testing.assert_allclose(loaded.time, [26.098, 31.615])
    np.testing.assert_array_equal(loaded.didt, [62e6, np.nan])
    np.testing.assert_array_equal(loaded.intensity, [45, 0])
    np.testing.assert_array_equal(loaded.meps, [[512.5], [np.nan]])
    assert loaded.channels == ("FDI",)
    _check.pose(loaded.poses[:1])


def test_lps_is_turned_to_ras(tmp_path):
    row = (1, 60.0, 0.0, 50.0)
    ras = session.load(triggers(tmp_path, [(frame(2), *row)]))
    lps = session.load(triggers(tmp_path, [(LPS @ frame(2), *row)], space="LPS"))
    np.testing.assert_allclose(lps.poses, ras.poses, atol=1e-12)
    assert (lps.source_space, lps.space) == ("LPS", "subject")


def test_units_of_the_response(tmp_path):
    assert session.load(triggers(tmp_path, [(frame(2), 1, 60.0, 0.5, 50.0)], unit="mV")).meps[0, 0] == 500
    with pytest.raises(ValueError, match="gives 'response' in 'furlong'; it must be one of uv, mv, v"):
        session.load(triggers(tmp_path, [(frame(2), 1, 60.0, 0.5, 50.0)], unit="furlong"))


def test_instrument_markers_are_targets(tmp_path):
    path = tmp_path / "InstrumentMarker.xml"
    inner = "".join(
        f'<InstrumentMarker><Marker description="{name}" set="true">{matrix4d(frame(i))}</Marker></InstrumentMarker>'
        for i, name in enumerate(("hotspot", "M+45"))
    )
    path.write_text(f'<InstrumentMarkerList coordinateSpace="RAS"><!-- a -->{inner}</InstrumentMarkerList>')
    loaded = session.load(path)
    assert loaded.kind == ("target", "target")
    assert loaded.names == ("hotspot", "M+45")
    assert loaded.located.all()
    assert np.isnan(loaded.didt).all()
    poses, space = session.load_poses(path)
    np.testing.assert_array_equal(poses, loaded.poses)
    assert space == "subject"


def test_no_position_anywhere(tmp_path):
    path = triggers(tmp_path, [(np.eye(4), 1, 60.0, 0.5, 50.0)])
    assert not session.load(path).located.any()
    with pytest.raises(ValueError, match=r"has no row with a position; with two coils, try the other coil's file"):
        session.load_poses(path)


def test_bad_xml(tmp_path):
    path = tmp_path / "a.xml"
    bomb = '<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "aaaaaaaa">' + "".join(
        f'<!ENTITY {chr(98 + i)} "{f"&{chr(97 + i)};" * 10}">' for i in range(9)
    )
    for text, message in [
        (bomb + '] ><TriggerMarkerList coordinateSpace="RAS">&j;</TriggerMarkerList>', "defines its own XML entities"),
        (
            '<!DOCTYPE l [<!ENTITY x SYSTEM "file:///etc/hostname">]><TriggerMarkerList>&x;</TriggerMarkerList>',
            "defines its own XML entities",
        ),
        ('<TriggerMarkerList coordinateSpace="RAS">', "is not well-formed XML .*; it was cut off"),
        ('<?xml version="1.0" encoding="nonsense"?><a/>', "is not well-formed XML"),
        ("plain text", "is not well-formed XML"),
        ("<LocTMSTriggerData/>", "is a LocTMSTriggerData; load a TriggerMarkers_Coil"),
        ("<TriggerMarkerList/>", "has the coordinate space 'none', which is not known"),
        ('<TriggerMarkerList coordinateSpace="Talairach"/>', "coordinate space 'Talairach', which is not known"),
        (
            '<TriggerMarkerList coordinateSpace="RAS"><TriggerMarker/></TriggerMarkerList>',
            "TriggerMarker 1: no Matrix4D",
        ),
        (
            '<InstrumentMarkerList coordinateSpace="LPS"><InstrumentMarker><Matrix4D data00="1"/></InstrumentMarker>'
            "</InstrumentMarkerList>",
            "InstrumentMarker 1: its Matrix4D is incomplete",
        ),
    ]:
        path.write_text(text)
        with pytest.raises(ValueError, match=rf"a\.xml.* {message}"):
            session.load(path)
    path.write_bytes(b'<?xml version="1.0" encoding="UTF-8"?><TriggerMarkerList a="\xff"/>')
    with pytest.raises(ValueError, match="not well-formed"):
        session.load(path)
    sheared = frame(0)
    sheared[:3, 0] = sheared[:3, 1]
    path = triggers(tmp_path, [(frame(1), 1, 2, 3, 4), (sheared, 1, 2, 3, 4)])
    with pytest.raises(ValueError, match="TriggerMarker 2: sheared"):
        session.load(path)
    broken = triggers(tmp_path, [(frame(1), "soon", 2, 3, 4)])
    with pytest.raises(ValueError, match="marker 1: 'soon' is not a number"):
        session.load(broken)


def test_users_files(data):
    folder = data("neuronav/localite")
    coil = [session.load(folder / f"TMSTrigger/TriggerMarkers_Coil{k}_20210409170557579.xml") for k in (0, 1)]
    assert [len(c) for c in coil] == [1052, 1052]
    assert [int(c.located.sum()) for c in coil] == [0, 1052]
    assert np.nanmax(coil[1].didt) == 86e6
    assert coil[1].intensity[0] == 60
    np.testing.assert_allclose(coil[1].time[:2], [98.768, 103.853])
    assert "2021" not in coil[1].table().to_string() + repr(coil[1])
    for path in sorted(folder.glob("InstrumentMarkers/*.xml")):
        poses, _ = session.load_poses(path)
        _check.pose(poses, tolerance=1e-12)
        # over the left motor cortex, z into the head
        assert (np.einsum("ni,ni->n", poses[:, :3, 2], poses[:, :3, 3]) < 0).all()
        assert (poses[:, 0, 3] < 0).all()
    with pytest.raises(ValueError, match="is a LocTMSTriggerData"):
        session.load(folder / "TMSTrigger/TriggerData20210409170640075.xml")


def test_mni_is_a_space_and_goes_back(tmp_path):
    row = (100, 61.0, 450.0, 52.0)
    loaded = session.load(triggers(tmp_path, [(frame(2), *row)], space="MNI"))
    assert (loaded.space, loaded.source_space) == ("MNI152", "MNI")
    same = session.load(triggers(tmp_path, [(frame(2), *row)], space="RAS"))
    np.testing.assert_array_equal(loaded.poses, same.poses)
    path = session.save_targets(tmp_path / "targets.xml", loaded.poses, space=loaded.space)
    poses, space = session.load_poses(path)
    assert space == "MNI152"
    np.testing.assert_allclose(poses, loaded.poses, atol=1e-6)


def test_amplitudes_under_the_key_of_newer_versions(tmp_path):
    path = triggers(tmp_path, [(frame(1), 100, 61.0, "NaN", 52.0)])
    values = '<Value key="mepAmplitude" response="385.5"/><Value key="mepMaxTime" response="23400"/></ResponseValues>'
    path.write_text(path.read_text().replace("</ResponseValues>", values))
    with pytest.warns(UserWarning, match=r"values that are not read, such as mepMaxTime \(23400\)"):
        loaded = session.load(path)
    assert loaded.channels == ("1",)
    np.testing.assert_allclose(loaded.meps, [[385.5]])
    np.testing.assert_allclose(loaded.didt, [61e6])
