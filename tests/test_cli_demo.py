"""The command line's frame, doctor, and the demo from end to end."""

import base64
import json
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

import jaxm2m as jm
from jaxm2m import cli
from jaxm2m.cli import _demo, _doctor, _report, _search

host = pytest.mark.host


@host
def test_help_is_quick_because_nothing_heavy_is_imported():
    code = (
        "import sys; import jaxm2m.cli; from typer.testing import CliRunner; "
        "print(CliRunner().invoke(jaxm2m.cli.app, ['--help']).output); "
        "print('HEAVY', [m for m in ('jax', 'numpy', 'scipy', 'pandas', 'matplotlib', 'h5py') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "HEAVY []" in done.stdout
    for command in ("efield", "demo", "doctor"):
        assert command in done.stdout


@host
def test_version_and_every_commands_help():
    runner = CliRunner()
    assert runner.invoke(cli.app, ["--version"]).output.strip() == jm.__version__
    for command in ("efield", "demo", "doctor"):
        result = runner.invoke(cli.app, [command, "--help"])
        assert result.exit_code == 0
        assert "Usage" in result.output


@host
def test_bad_input_is_one_line_and_a_status(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("x")
    monkeypatch.setattr(sys, "argv", ["jaxm2m", "demo", "--out", str(tmp_path / "file")])
    monkeypatch.delenv("JAXM2M_TRACEBACK", raising=False)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith("jaxm2m: --out: ")
    assert said.count("\n") == 1
    assert (tmp_path / "file").read_text() == "x"
    monkeypatch.setenv("JAXM2M_TRACEBACK", "1")
    with pytest.raises(NotADirectoryError):
        cli.main()


@host
def test_doctor_says_what_there_is(tmp_path, monkeypatch):
    (tmp_path / "atlas").mkdir()
    (tmp_path / "atlas" / "x").write_bytes(b"0" * 3000)
    monkeypatch.setenv("JAXM2M_CACHE", str(tmp_path))
    lines = _doctor.report()
    assert jm.__version__ in lines["jaxm2m"]
    assert jax.__version__ in lines["packages"]
    assert "MISSING" not in lines["packages"]
    assert str(tmp_path) in lines["cache"]
    assert "3 KiB" in lines["cache"]
    assert lines["precision"].startswith(str(jnp.result_type(float)))
    assert jax.devices()[0].platform in lines["devices"]
    assert float(lines["stencil"].split()[0]) > 0
    assert "estimate" in lines
    monkeypatch.setattr(_doctor, "_EXTRAS", {"none": ("no-such-package",)})
    assert 'pip install "jaxm2m[none]"' in _doctor.report()["[none]"]
    assert "[none]" in CliRunner().invoke(cli.app, ["doctor"]).output


@jm._tree.tree
class Hill:
    """A field map whose mean |E| has its only peak at a known place and angle on the scalp."""

    scalp: jm.head.Surface
    coil: jm.coil.Coil
    peak: jax.Array
    along: jax.Array

    def __call__(self, pose, *, didt):
        away = pose[:3, 3] - self.peak
        size = didt * 1e-6 * jnp.exp(-(away @ away) / 800) * (2 + pose[:3, 1] @ self.along)
        return jnp.broadcast_to(size * jnp.array([0.0, 0.6, 0.8]), (4, 3))


@pytest.fixture
def hill():
    head = jm.head.sphere(spacing=8.0)
    coil = jm.coil.figure8(sides=12, layers=1, turns=2)
    peak = np.array([-30.0, 10.0, 80.0])
    peak *= 96 / np.linalg.norm(peak)
    along = np.cross(peak, (1.0, 0.0, 0.0))
    along /= np.linalg.norm(along)
    return Hill(head.scalp, coil, jnp.asarray(peak), jnp.asarray(along))


def test_the_search_climbs_to_the_peak_and_stays_on_the_scalp(hill):
    start = jm.coil.place(hill.scalp, (-20, -10, 80), (-1, -1, 0), 4.0)
    count = []
    found = _search.ascend(hill, start, distance=4.0, didt=1e6, evaluations=25, advance=lambda: count.append(1))
    assert len(count) == found.evaluations <= 25
    assert (np.diff(found.values) > 0).all()
    np.testing.assert_allclose(found.poses[-1][:3, 3], hill.peak, atol=1.5)
    assert found.values[-1] > 2.98  # of 3
    for pose in found.poses:
        np.testing.assert_allclose(pose[:3, :3].T @ pose[:3, :3], np.eye(3), atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(pose[:3, 3]), 96, atol=0.05)
        np.testing.assert_allclose(pose[:3, 2], -pose[:3, 3] / np.linalg.norm(pose[:3, 3]), atol=0.01)


def test_the_search_never_worsens_however_few_its_steps(hill):
    start = jm.coil.place(hill.scalp, hill.peak, (-1, -1, 0), 4.0)
    for evaluations in (1, 2, 3):
        found = _search.ascend(hill, start, distance=4.0, didt=1e6, evaluations=evaluations)
        assert found.evaluations <= evaluations
        assert found.values[-1] >= found.values[0]
        assert len(found.poses) == len(found.values)


def test_laid_poses_have_exact_derivatives(hill, x64):
    start = jm.coil.place(hill.scalp, (-20, -10, 80), (-1, -1, 0), 4.0)

    def pose(twist):
        return _search.laid(hill.scalp, jm.coil.move(start, twist), 4.0)

    np.testing.assert_allclose(pose(jnp.zeros(6)), start, atol=1e-4)
    exact = jax.jacfwd(pose)(jnp.zeros(6))
    step = 1e-4
    for i in range(6):
        up, down = (pose(jnp.zeros(6).at[i].set(s * step)) for s in (1, -1))
        np.testing.assert_allclose(exact[..., i], (up - down) / (2 * step), atol=1e-5)


def test_the_mean_magnitude_has_a_gradient_at_zero():
    g = jax.grad(_search.mean_magnitude)(jnp.zeros((3, 3)))
    np.testing.assert_array_equal(g, 0)
    np.testing.assert_allclose(_search.mean_magnitude(jnp.array([[3.0, 4, 0], [0, 0, 1]])), 3)


@host
def test_a_page_escapes_and_embeds(tmp_path):
    image = tmp_path / "a.png"
    Image.new("RGB", (2, 2), (255, 0, 0)).save(image)
    rows = pd.DataFrame({"a": [1234.5, np.nan]}, index=pd.Index(["x", "<y>"], name="tissue"))
    pieces = [_report.picture(image, "a < b"), _report.table(rows), _report.table({"k": "<v>"})]
    _report.write(tmp_path / "r.html", "T & U", "sub", {"one": pieces})
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert base64.b64encode(image.read_bytes()).decode() in page
    for text in ("T &amp; U", "a &lt; b", "&lt;y&gt;", "&lt;v&gt;", "<td>1234</td>", "<td>\u2013</td>"):
        assert text in page
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["a.png", "r.html"]
    for name, entry in _report.BIBTEX.items():
        assert entry.count("{") == entry.count("}"), name


@host
def test_demo_from_end_to_end(tmp_path):
    out = tmp_path / "demo"
    result = CliRunner().invoke(cli.app, ["demo", "--quick", "--out", str(out)], catch_exceptions=False)
    assert result.exit_code == 0
    pictures = ["ascent.png", "cortex.png", "cortex_best.png", "pose.png", "pose_best.png", "slices.png"]
    assert sorted(p.name for p in out.iterdir()) == sorted([*pictures, "numbers.json", "report.html", "summary.csv"])
    for name in pictures:
        with Image.open(out / name) as image:
            # something is drawn: many colours, on a white page
            small = image.convert("RGB").reduce(4)
            assert (
                len(set(small.get_flattened_data() if hasattr(small, "get_flattened_data") else small.getdata())) > 40
            )
            assert image.getpixel((0, 0))[:3] == (255, 255, 255)
    numbers = json.loads((out / "numbers.json").read_text())
    assert numbers["solve"]["status"] == 0
    assert numbers["solve"]["residual"] <= 1.01e-5 or numbers["settings"]["precision"] == "float64"
    # 1 A/us drives some V/m in the cortex under the coil
    assert 0.8 < numbers["before"]["grey"]["p99.9"] < 3
    assert numbers["before"]["scalp"]["target"] is None
    values = numbers["objective"]
    assert len(values) >= 2
    assert (np.diff(values) > 0).all()
    np.testing.assert_allclose(np.asarray(numbers["poses"])[:, 3], [[0, 0, 0, 1]] * len(values))
    # the summary's mean over the target (voxels) agrees roughly with the objective (points)
    assert abs(numbers["before"]["grey"]["target"] / values[0] - 1) < 0.25
    table = pd.read_csv(out / "summary.csv", index_col=("pose", "tissue"))
    assert set(table.index.get_level_values("pose")) == {"before", "after"}
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == len(pictures)
    for data in re.findall(r"base64,([^\"]+)", page):
        assert base64.b64decode(data, validate=True).startswith(b"\x89PNG")
    assert not re.search(r"(src|href)=\"(?!data:)", page), "the page must stand alone"
    for text in ("Methods", "@software{jaxm2m", jax.__version__, "nothing is random", "S/m"):
        assert text in page
    assert str(tmp_path) not in page


def test_the_target_is_grey_matter_within_its_radius():
    head = jm.head.sphere(radii=(40, 75, 80, 86, 92), spacing=8.0)
    points = _demo._grey_points(head)
    assert len(points) > 100
    assert (np.linalg.norm(points - np.asarray(_demo.TARGET), axis=1) <= _demo.RADIUS).all()
    assert {head.tissues[t] for t in head.tissue_at(points)} == {"grey"}
