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
from jaxm2m.cli import _doctor, _report

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
    for command in ("efield", "basis", "place", "demo", "doctor"):
        assert command in done.stdout


@host
def test_version_and_every_commands_help():
    runner = CliRunner()
    assert runner.invoke(cli.app, ["--version"]).output.strip() == jm.__version__
    for command in ("efield", "basis", "place", "demo", "doctor"):
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
    pictures = ["cortex.png", "cortex_best.png", "pose.png", "pose_best.png", "search.png", "slices.png"]
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
    assert 2 <= len(values) <= numbers["search"]["evaluations"] == 4
    assert numbers["search"]["stopped"] == "evaluations spent"
    assert (np.diff(values) > 0).all()
    np.testing.assert_allclose(np.asarray(numbers["poses"])[:, 3], [[0, 0, 0, 1]] * len(values))
    # the search begins where the coil was put, and the casing stays out of the head
    start = jm.coil.place(jm.head.atlas(4.0).scalp, (-40.0, -20.0, 52.0), (-1.0, -1.0, 0.0), 4.0)
    np.testing.assert_allclose(numbers["poses"][0], start, atol=0.5)
    # the summary's mean over the target (voxels) agrees roughly with the objective (points)
    assert abs(numbers["before"]["grey"]["target"] / values[0] - 1) < 0.25
    table = pd.read_csv(out / "summary.csv", index_col=("pose", "tissue"))
    assert set(table.index.get_level_values("pose")) == {"before", "after"}
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == len(pictures)
    for data in re.findall(r"base64,([^\"]+)", page):
        assert base64.b64decode(data, validate=True).startswith(b"\x89PNG")
    assert not re.search(r"(src|href)=\"(?!data:)", page), "the page must stand alone"
    for text in (
        "Methods",
        "@software{jaxm2m",
        jax.__version__,
        "nothing is random",
        "S/m",
        "approximate Wolfe",
        "Hager",
    ):
        assert text in page
    assert str(tmp_path) not in page
