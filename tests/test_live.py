"""The coil that is moved by hand: what is said of its poses, the widget's state, the local server, the saved page."""

import base64
import gzip
import http.client
import json
import re
import struct
import sys
from urllib.parse import urlsplit

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cheap_map import TARGET, cheap_map
from live_cases import ACROSS, MUSCLES, OneStimulus, make_coil, make_head, make_map, make_model, make_session

import jaxm2m as jm
from jaxm2m.placement import Controls
from jaxm2m.plot import _cortex, _scene
from jaxm2m.plot._live import _export, _meshes, _page, _wire
from jaxm2m.plot._live._call import make_view

pytestmark = pytest.mark.float32


@pytest.fixture(scope="module")
def head(precision):
    return make_head()


@pytest.fixture(scope="module")
def coil(precision):
    return make_coil()


@pytest.fixture(scope="module")
def at_grid(precision):
    return make_map()


@pytest.fixture(scope="module")
def ribbon(head):
    return _cortex.extract_ribbon(head)


@pytest.fixture(scope="module")
def explorer(head, coil, at_grid, ribbon):
    normals = _scene.vertex_normals(ribbon.points, ribbon.triangles)
    return jm.placement.explore(
        at_grid, coil=coil, scalp=head.scalp, target=TARGET, vertices=ribbon.points, normals=normals, model=make_model()
    )


@pytest.fixture
def view(head, coil, at_grid):
    pytest.importorskip("anywidget", reason="needs the extra `live`")
    return make_view(
        head, at_grid, coil, target=TARGET, model=make_model(), session=make_session(head, coil),
        loop=OneStimulus(np.asarray(jm.coil.place(head.scalp, TARGET + 9.0 * ACROSS, distance=7.0), np.float64)),
    )  # fmt: skip


# -- a field between its points --------------------------------------------------------------------------------------


def test_a_field_at_its_points_is_its_own_and_between_them_a_mean(at_grid):
    grey = np.flatnonzero(np.asarray(at_grid.tissue) == 1)
    points = at_grid.region.active_points()[grey[:50]]
    pose = jm.coil.place(at_grid.scalp, TARGET)
    e = np.asarray(at_grid(pose))[np.asarray(at_grid.active)[grey[:50]]]
    same, inside = jm.efield.interpolate(at_grid, points, tissue="grey")
    assert inside.all()
    np.testing.assert_allclose(same(pose), e, rtol=1e-5)
    near, inside = jm.efield.interpolate(at_grid, np.concatenate([points + 0.5, [[0.0, 0, -300]]]), tissue="grey")
    np.testing.assert_array_equal(inside, [True] * 50 + [False])
    between = np.asarray(near(pose))
    assert between.shape == (50, 3)
    assert np.linalg.norm(between - e, axis=1).max() < 0.1 * np.linalg.norm(e, axis=1).max()
    # a part of it is the part
    np.testing.assert_allclose(near.pick(np.arange(7))(pose), between[:7], rtol=1e-6)


def test_a_basis_is_interpolated_by_its_modes(at_grid):
    from jaxm2m.efield._expansion import Expansion
    from jaxm2m.efield._interpolate import _combine_modes

    rng = np.random.default_rng(0)
    modes = jnp.asarray(rng.normal(size=(4, 9, 3)), jnp.float32)
    nothing = jnp.zeros(1)
    basis = Expansion(modes, nothing, nothing, nothing, nothing, nothing, nothing)
    index, weights = rng.integers(0, 9, (5, 2)), rng.uniform(size=(5, 2))
    z = jnp.asarray(rng.normal(size=4), jnp.float32)
    expected = (np.asarray(basis.at(z))[index] * weights[..., None]).sum(1)
    np.testing.assert_allclose(_combine_modes(basis, index, weights).at(z), expected, rtol=1e-5, atol=1e-6)


def test_points_that_no_field_reaches_are_refused(at_grid):
    with pytest.raises(ValueError, match="points: none of 1 lies within"):
        jm.efield.interpolate(at_grid, [[0.0, 0, 300]])
    with pytest.raises(ValueError, match="tissue"):
        jm.efield.interpolate(at_grid, [[0.0, 0, 60]], tissue="bone")


# -- what is said of a pose ------------------------------------------------------------------------------------------


def test_a_report_is_what_direct_calls_give(explorer, at_grid, coil, head, ribbon):
    for controls in (Controls(), Controls(x=12, y=-7, turn=35, tilt_x=4, distance=6, didt=3e6)):
        report = explorer.report(controls)
        e = at_grid(report.pose, didt=controls.didt)
        near = at_grid.within(TARGET, 5.0)
        np.testing.assert_allclose(report.mean, jm.placement.magnitude(near)(e), rtol=1e-5)
        np.testing.assert_allclose(report.percentile, jm.placement.magnitude(near, percentile=95)(e), rtol=1e-5)
        on_cortex, inside = jm.efield.interpolate(at_grid, ribbon.points, tissue="grey")
        np.testing.assert_array_equal(inside, explorer.inside)
        direct = np.linalg.norm(on_cortex(report.pose, didt=controls.didt), axis=-1)
        np.testing.assert_allclose(report.magnitude, direct, rtol=1e-5, atol=1e-6)
        assert (np.abs(report.normal) <= report.magnitude + 1e-6).all()
        refined = jm.coil.clearance(coil, report.pose, head.scalp)
        assert 0 < report.clearance <= float(refined) + 1e-3
        members = make_model().predict_members(e) * make_model().largest
        np.testing.assert_allclose(report.meps[0], members.mean(0), rtol=1e-4)
        assert (report.meps[1] < report.meps[0]).all()
        assert (report.meps[0] < report.meps[2]).all()


def test_the_gradient_is_that_of_small_moves(explorer):
    controls = Controls(x=10, y=5, turn=0)
    gradient = explorer.report(controls).gradient
    for axis, name in enumerate(("x", "y", "turn")):
        step = 1.0 if name == "turn" else 0.5
        low, high = (
            explorer.report(controls._replace(**{name: getattr(controls, name) + s})).value for s in (-step, step)
        )
        np.testing.assert_allclose(gradient[axis], (high - low) / (2 * step), rtol=0.05, atol=2e-4)


def test_the_coil_never_enters_the_head(explorer, coil, head):
    for controls in (Controls(distance=0, tilt_x=30), Controls(distance=0, tilt_y=-30, x=50), Controls(y=-60, turn=90)):
        report = explorer.report(controls)
        assert report.clearance >= 0.4
        assert float(jm.coil.clearance(coil, report.pose, head.scalp)) >= 0.4
    assert explorer.report(Controls(distance=0, tilt_x=30)).shift > 5
    assert explorer.report(Controls(distance=8)).shift == 0


def test_controls_are_what_locate_says_of_their_pose(explorer):
    for controls in (Controls(), Controls(x=25, y=-18, turn=-120), Controls(x=-40, y=30, turn=179)):
        located = explorer.locate(explorer.report(controls).pose, controls)
        np.testing.assert_allclose(located[:2], controls[:2], atol=0.05)
        assert abs(located.turn - controls.turn) < 0.05


def test_a_climb_goes_up_and_outside_of_the_map_nowhere(explorer):
    path = explorer.climb(Controls(x=15, y=8), 8)
    values = [float(explorer.report(controls).value) for controls in path]
    assert len(path) > 2
    assert values[-1] > 1.05 * values[0]
    assert explorer.climb(Controls(x=60)) == []


def test_a_pose_that_the_map_does_not_cover_is_told(explorer):
    report = explorer.report(Controls(x=60))
    assert np.isnan(report.mean)
    assert np.isnan(report.magnitude).all()
    assert 0.04 < report.error < 0.2
    assert np.isfinite(report.pose).all()


def test_what_cannot_be_explored_is_refused(head, coil, at_grid):
    with pytest.raises(ValueError, match="centre: no point of grey"):
        jm.placement.explore(at_grid, coil=coil, scalp=head.scalp, target=(0.0, 0, 0))
    with pytest.raises(ValueError, match="normals: shape"):
        jm.placement.explore(at_grid, coil=coil, scalp=head.scalp, vertices=[[0.0, 0, 70]], normals=[[0.0, 0, 1]] * 2)
    free = jm.placement.explore(at_grid, coil=coil, scalp=head.scalp)
    assert free.muscles == ()
    assert free.report(Controls()).meps.shape == (3, 0)
    with pytest.raises(ValueError, match="one pose"):
        free.report_pose(np.stack([np.eye(4)] * 2), 1e6)


# -- the widget's state ----------------------------------------------------------------------------------------------


def shown(view):
    return np.frombuffer(view.field, "<f4")


def test_traits_move_the_coil(view):
    first, before = view.answer, shown(view).copy()
    view.x = 10.0
    assert view.answer["count"] == first["count"] + 1
    assert view.answer["mean"] != first["mean"]
    np.testing.assert_allclose(shown(view), view._explorer.report(view.controls).magnitude, rtol=1e-6)
    assert not np.allclose(shown(view), before)
    view.didt = 2e6
    view.component = "normal"
    assert shown(view).min() < 0
    view.x = 1000.0  # beyond the slider: its end
    assert view.x == 60.0
    assert not view.answer["covered"]
    assert "not covered by the field map: estimated error" in view.answer["message"]
    json.dumps(view.answer, allow_nan=False)
    view.reset()
    assert view.controls == Controls(didt=2e6)


def test_several_changes_are_one_computation(view):
    count = view.answer["count"]
    view.take_changes({"x": 4.0, "y": 3.0, "turn": 20.0, "request": 7})
    assert view.answer["count"] == count + 1
    assert view.answer["request"] == 7
    with pytest.raises(ValueError, match="x: nan"):
        view.take_changes({"x": float("nan")})
    with pytest.raises(ValueError, match="component"):
        view.take_changes({"component": "everything"})


def test_poses_are_kept_and_exported(view, tmp_path):
    with pytest.raises(ValueError, match="no pose was kept"):
        view.export(tmp_path / "none.npy")
    view.keep()
    view.take_message({"type": "climb"})
    view.take_message({"type": "keep"})
    assert [entry["name"] for entry in view.kept] == ["pose 1", "pose 2"]
    assert view.kept[1]["mean"] > view.kept[0]["mean"]
    np.testing.assert_array_equal(np.load(view.export(tmp_path / "poses.npy")), view.poses)
    jm.efield.check_poses(view.poses, view._coil, view._head.scalp)
    view.take_message({"type": "go", "index": 0})
    np.testing.assert_allclose(view.pose, view.poses[0], atol=1e-5)
    view.take_message({"type": "remove", "index": 0})
    view.keep("mine")
    assert [entry["name"] for entry in view.kept] == ["pose 2", "mine"]
    # a sphere has no name in a navigator's file
    assert set(view.formats) == {"npy"}
    with pytest.raises(ValueError, match="space"):
        view.export(tmp_path / "targets.json")


@pytest.mark.parametrize("format", ["brainsight", "localite", "json", "npy"])
def test_every_format_is_read_back(format, tmp_path):
    poses = np.stack([np.eye(4)] * 2)
    poses[1, :3, 3] = 1.0, 2.0, 3.0
    assert format in _export.list_formats("MNI152")
    name, content = _export.format_poses(poses, ["a", "b"], "MNI152", format)
    (tmp_path / name).write_bytes(content)
    np.testing.assert_allclose(jm.session.load_poses(tmp_path / name)[0], poses, atol=1e-6)


def test_the_loop_is_followed(view):
    view.take_message({"type": "next"})
    assert view.didt == 2e6
    assert view.answer["message"].startswith("stimulus 5: 2 A/")
    np.testing.assert_allclose(view.pose, view._loop.pose, atol=0.02)
    view._loop.done, view._loop.reason = True, "enough"
    view.next_stimulus()
    assert view.answer["message"] == "the loop is done: enough"


@pytest.mark.slow
def test_a_loop_that_plans_itself_is_followed(head, coil):
    pytest.importorskip("anywidget", reason="needs the extra `live`")
    at_grid = cheap_map((10, 10, 7), 5.0)
    loop = jm.design.Loop(
        at_grid, coil=coil, scalp=head.scalp, target=TARGET, muscles=MUSCLES, rule="random", didt=2e6, n_stimulus=3,
        rate=jm.cortex.FiringRate(jm.cortex.threshold(60.0, "V/m")), key=jax.random.key(0),
    )  # fmt: skip
    view = make_view(head, at_grid, coil, target=TARGET, loop=loop)
    for _ in range(3):
        pose, didt = loop.next()
        view.next_stimulus()
        assert view.didt == didt
        np.testing.assert_allclose(view.pose[:3, 3], pose[:3, 3], atol=0.1)
        np.testing.assert_allclose(view.pose[:3, :3], pose[:3, :3], atol=0.01)
        loop.record(view.pose, view.didt, np.full(len(MUSCLES), 50.0))
    view.next_stimulus()
    assert view.answer["message"].startswith("the loop is done: ")


def test_a_session_is_gone_through(view, head, coil):
    recorded = make_session(head, coil)
    assert view.n_stimulus == 6
    view.stimulus = 3
    np.testing.assert_allclose(view.pose, recorded.poses[2], atol=1e-3)
    # in the order of the model's muscles
    assert view.answer["recorded"] == [202.0, 102.0, None]
    e = view._explorer.report_pose(recorded.poses[2], 3e6)
    np.testing.assert_allclose(shown(view), e.magnitude, rtol=1e-6)
    view.keep()
    np.testing.assert_allclose(view.poses[0], view.pose)
    np.testing.assert_allclose(view.kept[0]["controls"]["didt"], 3e6)
    view.stimulus = 6
    assert "not recorded" in view.answer["message"]
    view.climb()
    assert view.stimulus == 0
    assert "recorded" not in view.answer


def test_a_session_of_another_space_is_refused(head, coil, at_grid):
    pytest.importorskip("anywidget", reason="needs the extra `live`")
    session = jm.session.Session(**{**vars(make_session(head, coil)), "space": "MNI152"})
    with pytest.raises(ValueError, match="session: in 'MNI152' space, the head in 'sphere'"):
        jm.plot.live(head, at_grid, coil, session=session)


def test_a_surface_of_the_users_own(head, coil, at_grid):
    class Patch:
        vertices = TARGET * 0.96 + np.array([[0.0, 0, 0], [4, 0, 0], [0, 4, 0], [0, 0, 400]])
        triangles = np.array([[0, 1, 2], [0, 1, 3]])

    pytest.importorskip("anywidget", reason="needs the extra `live`")
    view = jm.plot.live(head, at_grid, coil, surface=Patch())
    np.testing.assert_array_equal(view._explorer.inside, [True, True, True, False])
    assert view.muscles == []
    Patch.triangles = np.array([[0, 1, 7]])
    with pytest.raises(ValueError, match="surface: triangles"):
        jm.plot.live(head, at_grid, coil, surface=Patch())


def test_without_the_extra_the_figure_stands_still(head, coil, at_grid, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "anywidget", None)
    figure = jm.plot.live(head, at_grid, coil, target=TARGET * 0.8)
    assert len(figure.axes) == 2
    assert "python -m pip install 'jaxm2m[live]'" in capsys.readouterr().out


def test_merged_vertices_are_near_the_surface(head):
    vertices, triangles = head.scalp.vertices, head.scalp.triangles
    merged, fewer = _meshes.merge_vertices(vertices, triangles, 16.0)
    assert len(fewer) < 0.6 * len(triangles)
    assert np.abs(np.linalg.norm(merged, axis=1) - 92).max() < 2.0


def test_the_two_colour_maps_are_told_apart_in_grey():
    """Lightness falls evenly from the middle to both ends, and no two ends are red and green."""
    rgb = _meshes.NORMAL(np.linspace(0, 1, 21))[:, :3] @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(rgb[:11]) > 0).all()
    assert (np.diff(rgb[10:]) < 0).all()


# -- the local server ------------------------------------------------------------------------------------------------


@pytest.fixture
def server(view):
    server = view.serve()
    server.start()
    yield server
    server.close()


def ask(server, path, *, token=True, method="GET", body=None, headers=None):
    query = urlsplit(server.url).query if token is True else f"token={token}" if token else ""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request(method, f"{path}{'&' if '?' in path else '?'}{query}", body, headers or {})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content, dict(answer.getheaders())


def unpack(content):
    (length,) = struct.unpack("<I", content[:4])
    parts = content[4 + length :]

    def revive(value):
        if isinstance(value, dict):
            if "$binary" in value:
                start, size = value["$binary"]
                return parts[start : start + size]
            return {name: revive(inner) for name, inner in value.items()}
        return [revive(inner) for inner in value] if isinstance(value, list) else value

    return revive(json.loads(content[4 : 4 + length]))


def test_octets_come_back():
    content = {"a": [1, {"b": b"xyz", "c": None}], "d": b"", "e": "ä"}
    assert unpack(_wire.pack(content)) == content
    with pytest.raises(ValueError, match="JSON"):
        _wire.pack({"a": float("nan")})


def test_the_server_answers_on_loopback_with_the_token_only(server):
    assert server.url.startswith("http://127.0.0.1:")
    assert server._server.server_address[0] == "127.0.0.1"
    for path in ("/", "/live.js", "/live.css", "/state"):
        status, content, headers = ask(server, path)
        assert status == 200
        assert content
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["Cache-Control"] == "no-store"
    for path in ("/", "/live.js", "/state", "/changes?after=0", "/nothing"):
        assert ask(server, path, token=None)[0] == 403
        assert ask(server, path, token="wrong")[0] == 403
    for method in ("GET", "POST"):
        body = None if method == "GET" else "{}"
        for host in ("evil.example", f"evil.example:{server.port}", "127.0.0.1:1", "127.0.0.1.evil.example", ""):
            assert ask(server, "/update", method=method, body=body, headers={"Host": host})[0] == 403
    assert ask(server, "/", headers={"Host": f"localhost:{server.port}"})[0] == 200
    assert ask(server, "/nothing")[0] == 404
    assert ask(server, "/changes?after=x")[0] == 404


def test_what_a_page_may_not_send_is_refused(server, view):
    def post(path, body, **headers):
        return ask(server, path, method="POST", body=body, headers=headers)[0]

    assert post("/update", '{"x": 5}', Origin="http://evil.example") == 403
    assert post("/update", '{"x": 5}', Origin=f"http://127.0.0.1:{server.port}") == 200
    assert view.x == 5
    assert ask(server, "/update", token="", method="POST", body='{"x": 6}')[0] == 403
    for body in ("", "[]", "{", '{"x": "far"}', '{"x": NaN}', '{"component": 1}', "\xff"):
        assert post("/update", body.encode("latin-1")) == 400
    assert post("/update", '{"meshes": {}, "kept": [1]}') == 200  # not its own: left alone
    assert view.meshes
    assert view.kept == []
    assert post("/message", '{"type": "go", "index": 99}') == 200
    assert post("/message", '{"type": "export", "format": "../x"}') == 200
    assert post("/update", json.dumps({"x": "1" * 70_000})) == 413
    assert post("/nothing", "{}") == 404
    assert view.x == 5


def test_a_page_follows_the_state(server, view):
    first = unpack(ask(server, "/state")[1])
    assert first["state"]["muscles"] == list(MUSCLES)
    assert len(first["state"]["field"]) == 4 * int(view._explorer.inside.sum())
    assert ask(server, "/update", method="POST", body='{"x": 7, "turn": 30, "request": 1}')[0] == 200
    changes = unpack(ask(server, f"/changes?after={first['version']}")[1])
    assert changes["state"]["answer"]["request"] == 1
    assert list(changes["state"])[-1] == "answer"
    assert changes["state"]["field"] == view.field
    assert "meshes" not in changes["state"]
    view.keep()
    assert ask(server, "/message", method="POST", body='{"type": "export", "format": "npy"}')[0] == 200
    exported = unpack(ask(server, f"/changes?after={changes['version']}")[1])
    (message,) = exported["messages"]
    assert message["content"] == {"type": "file", "name": "poses.npy"}
    assert message["buffers"][0].startswith(b"\x93NUMPY")


def test_a_port_that_is_taken_is_named(server, view):
    with pytest.raises(OSError, match=f"port: {server.port} cannot be listened on"):
        view.serve(server.port)


# -- the saved page --------------------------------------------------------------------------------------------------


def test_a_saved_page_holds_all_and_asks_for_nothing(view, tmp_path):
    view.keep()
    with pytest.raises(ValueError, match="html"):
        view.save(tmp_path / "scene.png")
    text = view.save(tmp_path / "scene.html").read_text("utf-8")
    assert "default-src 'none'" in text
    assert not re.search(r"\b(src|href)\s*=\s*[\"'](?!data:)", text)
    assert "http://" not in text
    assert "https://" not in text
    state = re.search(r'id="state">([^<]+)<', text)[1]
    content = unpack(gzip.decompress(base64.b64decode(state)))
    assert content["offline"] is True
    assert len(content["stored"]["session"]) == 6
    assert len(content["stored"]["kept"]) == 1
    start = content["stored"]["start"]["field"]["magnitude"]
    values = np.frombuffer(start["steps"], np.uint8) / 255 * start["largest"]
    np.testing.assert_allclose(values, shown(view), atol=start["largest"] / 500)
    mesh = content["meshes"]["cortex"]["vertices"]
    vertices = mesh["low"] + mesh["step"] * np.frombuffer(mesh["steps"], "<u2").reshape(-1, 3)
    original = np.frombuffer(view.meshes["cortex"]["vertices"], "<f4").reshape(-1, 3)
    np.testing.assert_allclose(vertices, original, atol=0.003)


def test_the_module_is_one_with_one_export():
    module = _page.read_module()
    assert module.count("export ") == 1
    assert "import " not in module
    for name in ("served.js", "saved.js"):
        assert "export " not in _page.read_program(name)


# -- the command -----------------------------------------------------------------------------------------------------


def test_the_command_says_what_is_wrong_before_it_works(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from jaxm2m import cli

    def run(*words):
        done = CliRunner().invoke(cli.app, ["live", "--head", "atlas", "--coil", "figure8", *words])
        return done.exit_code, done.output

    (tmp_path / "text.h5").write_text("no HDF5")
    good = ["--basis", str(tmp_path / "text.h5")]
    for words, said in (
        (["--basis", "none.h5"], "none.h5"),
        ([*good, "--port", "70000"], "--port: 70000; give 0 to 65535."),
        ([*good, "--target", "1,2"], "--target: '1,2'"),
        ([*good, "--didt", "0"], "--didt: 0"),
        (good, "text.h5"),
    ):
        code, output = run(*words)
        assert code == 2
        assert said in output
    monkeypatch.setitem(sys.modules, "anywidget", None)
    assert "python -m pip install 'jaxm2m[live]'" in run(*good)[1]


def test_the_command_serves_and_saves(tmp_path, monkeypatch, head, coil, at_grid, view):
    """All but head, coil and basis, which have tests of their own."""
    from types import SimpleNamespace

    from typer.testing import CliRunner

    from jaxm2m import cli
    from jaxm2m.cli import _arguments

    metadata = {"settings": {"interfaces": {"value": "tensor"}}}
    basis = SimpleNamespace(metadata=metadata, check_simulator=lambda *_: None, bind=lambda coil: at_grid)
    asked = {}

    def live(*arguments, **more):
        asked.update(more)
        return view

    (tmp_path / "basis.h5").write_text("its reader is replaced")
    monkeypatch.setattr(jm.efield.Basis, "load", lambda path: basis)
    monkeypatch.setattr(_arguments, "load_head", lambda *_: head)
    monkeypatch.setattr(_arguments, "make_simulator", lambda *_: None)
    monkeypatch.setattr(jm.coil, "tabulate", lambda coil: coil)
    monkeypatch.setattr(jm.plot, "live", live)
    words = ["live", "--head", "atlas", "--coil", "figure8", "--basis", str(tmp_path / "basis.h5"), "--target", "C3"]
    done = CliRunner().invoke(cli.app, [*words, "--didt", "2e6", "--save", str(tmp_path / "scene.html")])
    assert done.exit_code == 0, done.output
    assert (asked["target"], asked["didt"], asked["model"], asked["session"]) == ("C3", 2e6, None, None)
    assert (tmp_path / "scene.html").stat().st_size > 10_000

    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    from jaxm2m.plot._live._server import Server

    monkeypatch.setattr(Server, "serve", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
    monkeypatch.setattr(Server, "close", lambda self: self._server.server_close())
    done = CliRunner().invoke(cli.app, words)
    assert done.exit_code == 0, done.output
    assert opened == [done.stdout.strip()]
    assert opened[0].startswith("http://127.0.0.1:")
    done = CliRunner().invoke(cli.app, [*words, "--no-browser"])
    assert len(opened) == 1
