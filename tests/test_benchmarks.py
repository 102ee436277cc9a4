"""The benchmarks' own frame: every script is run and found, and the table says what is met and what is not."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from jaxm2m.population import _chunking, _train

pytestmark = pytest.mark.host

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def load(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))

    def one(name):
        spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", FOLDER / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    yield one
    for name in ("record", "figures", "population", "device"):
        sys.modules.pop(name, None)


def test_every_script_is_there_and_no_figure_is_of_another(load):
    main, figures = load("__main__"), load("figures")
    assert all((FOLDER / name).is_file() for name in main.SCRIPTS)
    assert {f"{figure.script}.py" for figure in figures.FIGURES} <= set(main.SCRIPTS)


def test_the_stored_results_make_a_table(load):
    figures = load("figures")
    for path in sorted((FOLDER / "results").glob("*.json")):
        table = figures.table(json.loads(path.read_text())).splitlines()
        assert len(table) == len(figures.FIGURES) + 2
        assert sum("| yes |" in line or "| **no** |" in line for line in table) > len(table) / 2


def test_what_is_missed_and_what_is_missing_is_said(load):
    figures = load("figures")
    row = {"2mm": {"tensor": {"times faster than PyAMG's solve": 2.0}}}
    table = figures.table({"solver": row}).splitlines()
    (line,) = [line for line in table if "at 2 mm, times faster" in line]
    assert line.split(" | ")[1:4] == ["2", ">= 4", "**no**"]
    assert sum("not measured" in line for line in table) == len(figures.FIGURES) - 1


def test_rows_of_other_cases_stay(load, tmp_path, monkeypatch):
    record = load("record")
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    record.write("a", "one", {"x": 1})
    record.write("a", "two", {"x": 2})
    record.write("b", "one", {"x": 3})
    (path,) = tmp_path.iterdir()
    found = json.loads(path.read_text())
    assert [found["a"]["one"]["x"], found["a"]["two"]["x"], found["b"]["one"]["x"]] == [1, 2, 3]
    assert found["b"]["one"]["environment"]["cores"] >= 1


@pytest.mark.slow
def test_the_device_script_measures_its_cases(load, tmp_path, monkeypatch, capsys):
    device = load("device")
    monkeypatch.setattr(_train, "plan_chunks", lambda *_: _chunking.Plan(1, {}, {}))  # measuring it compiles more
    # not the basis: what its sources are of takes a minute
    cases = [name for name in device.CASES if name != "basis"]
    device.main(["--small", "--out", str(tmp_path), "--limit", "30m", "--cases", ",".join(cases)])
    (path,) = tmp_path.iterdir()
    rows = json.loads(path.read_text())["device"]
    assert set(rows) == set(cases)
    assert not {name: row["failed"] for name, row in rows.items() if "failed" in row}
    assert rows["efield"]["12 mm"]["value and gradient of a pose"]["best, s"] > 0
    assert rows["lfads"]["1 members"]["s a step"] > 0
    assert rows["networks"]["4 autoencoders"]["epoch, s"] > 0
    assert rows["precision"]["no accelerator; finite"]
    device.main(["--out", str(tmp_path), "--limit", "1s"])
    assert capsys.readouterr().out.count("left out; ") == len(device.CASES)
