"""The command line's frame, doctor, and the demo from end to end."""

import ast
import base64
import json
import re
import shlex
import subprocess
import sys
from dataclasses import asdict, replace

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

import jaxm2m as jm
from jaxm2m import cli
from jaxm2m.cli import _doctor, _report
from jaxm2m.cli.demo import _calls, _command, _emg, _settings, _stages

host = pytest.mark.host
pytestmark = pytest.mark.optimized


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
    pieces = [_report.embed_picture(image, "a < b"), _report.format_table(rows), _report.format_table({"k": "<v>"})]
    _report.write(tmp_path / "r.html", "T & U", "sub", {"one": pieces})
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert base64.b64encode(image.read_bytes()).decode() in page
    for text in ("T &amp; U", "a &lt; b", "&lt;y&gt;", "&lt;v&gt;", "<td>1234</td>", "<td>\u2013</td>"):
        assert text in page
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["a.png", "r.html"]
    for name, entry in _report.BIBTEX.items():
        assert entry.count("{") == entry.count("}"), name


@host
def test_a_folder_that_holds_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(ValueError, match="holds other files, but no demo"):
        _command._begin(tmp_path, {})
    out = tmp_path / "demo"
    settings = {"size": jm.files.make_setting("full"), "jax": jm.files.make_setting("1")}
    assert not _command._begin(out, settings)
    assert _command._begin(out, settings)
    with pytest.raises(ValueError, match=r"--out: .*demo holds .*: size \(full then, --quick now\)"):
        _command._begin(out, settings | {"size": jm.files.make_setting("--quick")})
    (out / "demo.json").write_text("[")
    with pytest.raises(ValueError, match="cannot be read"):
        _command._begin(out, settings)


@host
def test_stages_tell_where_they_are_and_what_is_left(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(_stages.time, "perf_counter", lambda: now[0])
    shares = {"one": 20.0, "two": 400.0, "three": 30.0}
    stages = _stages.Stages(shares)
    for name, seconds in shares.items():
        with stages(name) as said:
            said.append(f"did {name}")
            now[0] += 2.0 * seconds  # half as fast as what was measured
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 * len(shares)
    done = 0
    for i, (name, seconds) in enumerate(shares.items()):
        begun, ended = lines[2 * i], lines[2 * i + 1]
        assert begun.startswith(f"[{i + 1:>2}/{len(shares)}] {name} ...")
        assert ended == f"        {2.0 * seconds:.1f} s  did {name}"
        told = re.search(r"about (\d+) (s|min) left$", begun)
        left = (sum(shares.values()) - done) * (10 + 2 * done) / (10 + done)
        assert abs(int(told[1]) * {"s": 1, "min": 60}[told[2]] - left) <= (31 if told[2] == "min" else 6)
        done += seconds
    assert stages.seconds == {name: 2.0 * seconds for name, seconds in shares.items()}


@host
@pytest.mark.parametrize("size", [_settings.FULL, _settings.QUICK], ids=["full", "quick"])
def test_every_command_and_call_of_the_report_is_there(size):
    app = typer.main.get_command(cli.app)
    parts = _calls.describe_calls(size, 53229124.0)
    for part in parts.values():
        for line in part.commands:
            words = shlex.split(line)
            assert words.pop(0) == "jaxm2m"
            command = app
            while hasattr(command, "commands"):
                command = command.commands[words.pop(0)]
            # refuses options and values that the command does not have
            command.make_context(line, words)
        for node in ast.walk(ast.parse(part.python)):
            name = ast.unparse(node)
            if isinstance(node, ast.Attribute) and name.startswith(("jm.", "jax.")) and "(" not in name:
                found = {"jm": jm, "jax": jax}[name.split(".")[0]]
                for step in name.split(".")[1:]:
                    found = getattr(found, step)
    assert "--threshold" in parts["sources"].commands[0]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a quick demo, what it said, and what it says when it is called once more."""
    out = tmp_path_factory.mktemp("line") / "demo"
    with pytest.MonkeyPatch.context() as patch:
        # less still; what takes its time is compiling
        less = {"stimuli": 40, "folds": 2, "evaluations": 10, "generations": 2, "steps": 20, "samples": 4}
        patch.setattr(_settings, "QUICK", replace(_settings.QUICK, **less))
        result = CliRunner().invoke(cli.app, ["demo", "--quick", "--out", str(out)], catch_exceptions=False)
        assert result.exit_code == 0
        yield out, result.output


@host
@pytest.mark.slow
def test_demo_runs_the_whole_line(made):
    out, said = made
    for stage in _settings.SECONDS:
        assert re.search(rf"^\[ ?\d+/{len(_settings.SECONDS)}\] {stage} \.\.\. ", said, re.M)
    files = {
        "demo.json", "hot_spot.txt", "summary.csv", "basis.h5", "poses.json", "meps.csv", "fields.h5", "compare", "fit",
        "hotspots.csv", "starts.json", "target.txt", "target_brainsight.txt", "placement.csv", "recording.h5",
        "joints.csv", "emg.h5", "run", "activation.h5", "activation.csv", "numbers.json", "report.html",
    }  # fmt: skip
    pictures = {p.name for p in out.glob("*.png")}
    assert {p.name for p in out.iterdir() if p.suffix != ".lock"} == files | pictures
    assert pictures == {
        "pose.png", "slices.png", "cortex.png", "maps.png", "rates.png", "synergies.png", "comparison.png",
        "sources.png", "recruitment.png", "search.png", "pose_found.png", "cortex_found.png", "muscles.png",
        "activation.png", "lineage.png",
    }  # fmt: skip
    for name in pictures:
        with Image.open(out / name) as image:
            # something is drawn: many colours, on a white page
            small = np.asarray(image.convert("RGB").reduce(4)).reshape(-1, 3)
            assert len(np.unique(small, axis=0)) > 40, name
            assert image.getpixel((0, 0))[:3] == (255, 255, 255)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == len(pictures)
    for data in re.findall(r"base64,([^\"]+)", page):
        assert base64.b64decode(data, validate=True).startswith(b"\x89PNG")
    assert not re.search(r"(src|href)=\"(?!data:)", page), "the page must stand alone"
    assert str(out) not in page
    assert "nan" not in re.sub(r"base64,[^\"]+", "", page).lower().split()
    for text in ("Methods", "@software{jaxm2m", jax.__version__, "S/m", "Wolfe", "Jaderberg", "Seung", "Wimalasena"):
        assert text in page


@host
def test_a_training_beside_that_fails_is_told(tmp_path):
    with (
        _emg.train_beside(tmp_path, _settings.QUICK) as wait,
        pytest.raises(RuntimeError, match=r"run: the training ended with 1: FileNotFoundError.*emg\.h5"),
    ):
        wait()


@host
def test_the_training_beside_ends_with_whoever_began_it(tmp_path):
    words = [sys.executable, "-m", "jaxm2m.cli.demo._emg", str(tmp_path), json.dumps(asdict(_settings.QUICK))]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        said = child.communicate(timeout=60)[1]  # closes its input
    assert child.returncode == 1
    assert b"emg.h5" not in said, "it went on to the training"


@host
@pytest.mark.slow
def test_numbers_of_the_demo_make_sense(made):
    numbers = json.loads((made[0] / "numbers.json").read_text())
    assert numbers["solve"]["status"] == 0
    assert numbers["solve"]["residual"] <= 1.01e-5 or numbers["settings"]["precision"] == "float64"
    # 1 A/us drives some V/m in the cortex under the coil
    assert 0.8 < numbers["field"]["grey"]["p99.9"] < 3
    assert numbers["field"]["scalp"]["target"] is None
    assert np.median(numbers["basis"]["error"]) < 3
    assert 0.3 < numbers["session"]["share above 50 uV"] < 0.9
    assert len(numbers["variants"]) == 6
    assert numbers["best"] in numbers["variants"]
    assert min(row["nrmse"] for row in numbers["variants"].values()) == numbers["variants"][numbers["best"]]["nrmse"]
    values = np.array(numbers["placement"]["values"])
    assert (np.diff(values, axis=0) >= -1e-6).all()
    assert values[-1].max() > values[0].max()
    table = numbers["placement"]["table"]
    np.testing.assert_allclose(table["found"]["objective"], values[-1].max(), atol=2e-3)
    np.testing.assert_allclose(np.array(numbers["placement"]["poses"]["found"])[3], [0, 0, 0, 1])
    spots = pd.DataFrame(numbers["sources"]["hot spots"]).T
    assert len(spots) == 15
    # the hand area is 25 mm wide
    assert spots["from the truth (mm)"].astype(float).median() < 12
    r2 = {name: row["mean R2"] for name, row in numbers["emg"]["r2"].items()}
    assert r2["recording"] < r2["low-pass 10 Hz"] < 1
    assert len(numbers["emg"]["scores"]) == 2
    assert set(numbers["seconds"]) == {*_settings.SECONDS, "in all"} - {"report"}


@host
@pytest.mark.slow
def test_stored_responses_are_those_of_the_generator(made):
    out, _ = made
    basis = jm.efield.Basis.load(out / "basis.h5")
    at_grid = basis.bind(jm.coil.tabulate(jm.coil.figure8()), limit=_settings.QUICK.limit)
    rate = jm.cortex.FiringRate(jm.cortex.threshold(60.0, "V/m"))
    truth = jm.simulate.mapping_session(
        at_grid,
        key=jax.random.key(_settings.SEED),
        rate=rate,
        target=_settings.TARGET,
        stimuli=_settings.QUICK.stimuli,
        gain=_settings.GAIN,
    )
    np.testing.assert_allclose(jm.muscle.Meps.load(out / "meps.csv").amplitude, truth.meps, rtol=1e-4)


@host
@pytest.mark.slow
def test_commands_of_the_report_know_the_demos_files(made, monkeypatch):
    out, _ = made
    monkeypatch.chdir(out)
    parts = json.loads((out / "numbers.json").read_text())["calls"]

    def call(line):
        result = CliRunner().invoke(cli.app, shlex.split(line)[1:], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    kept = {name: (out / name).stat().st_mtime_ns for name in ("basis.h5", "fields.h5")}
    call(parts["basis"]["commands"][0])
    call(parts["session"]["commands"][0])
    assert {name: (out / name).stat().st_mtime_ns for name in kept} == kept, "computed again"
    call(parts["sources"]["commands"][1])
    assert pd.read_csv("predicted.csv").shape == (_settings.QUICK.stimuli, 15)
    before = jm.emg.Activation.load("activation.h5")
    call(parts["emg"]["commands"][0])
    call(parts["emg"]["commands"][2])
    np.testing.assert_allclose(jm.emg.Activation.load("activation.h5").samples, before.samples, rtol=1e-5)


@host
@pytest.mark.slow
def test_calls_of_the_report_make_its_figures(made, monkeypatch):
    out, _ = made
    parts = json.loads((out / "numbers.json").read_text())["calls"]
    monkeypatch.chdir(out)
    drawn = {name: (out / name).read_bytes() for name in ("pose.png", "maps.png", "comparison.png")}
    for name in drawn:
        (out / name).unlink()
    names: dict = {}
    for part in ("head", "field", "basis", "session", "rates", "synergies", "compare", "sources"):
        # basis, fields and trainings are there: nothing long is done again
        exec(parts[part]["python"], names)
    for name, before in drawn.items():
        assert (out / name).read_bytes() == before


@host
@pytest.mark.slow
def test_demo_goes_on_where_it_was(made):
    out, _ = made
    numbers = json.loads((out / "numbers.json").read_text())
    (out / "report.html").unlink()
    kept = {name: (out / name).stat().st_mtime_ns for name in ("basis.h5", "fields.h5", "fit/model.h5")}
    result = CliRunner().invoke(cli.app, ["demo", "--quick", "--out", str(out)], catch_exceptions=False)
    assert "going on with it" in result.output
    assert {name: (out / name).stat().st_mtime_ns for name in kept} == kept
    again = json.loads((out / "numbers.json").read_text())
    assert again["variants"] == numbers["variants"]
    assert again["sources"] == numbers["sources"]
    assert again["placement"]["table"] == numbers["placement"]["table"]
    assert again["emg"] == numbers["emg"]
