"""README.md: short, its example runs as it stands, its figures are those of the stored results."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text()
RESULTS = ROOT / "benchmarks" / "results" / "amd-epyc-2-cores.json"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)

SPEED = ("basis", "speed", "one field, 2mm brain voxels", "best, ms")
ACCURACY = ("basis", "accuracy", "all")
SOLVER = ("solver", "2mm", "tensor", "solve, s")
MAGNITUDE = ("placement", "exhaustive", "mean |E|")
FOLD = ("interface_errors", "fold: 2 mm, exact fractions, tensor")
# what README says, the figures of it in the stored results, and how they are written there
FIGURES = [
    ("white matter {:.1%}, grey {:.1%} |", ("sphere", "2 mm", "worst", "white"), ("sphere", "2 mm", "worst", "grey")),
    ("| {:.2f} s; {:.1f} times", SOLVER, ("solver", "gradient", "5 mm target", "ratio")),
    ("| {:.1f} ms; {:.2f} % and {:.2f} %", SPEED, (*ACCURACY, "median error, %"), (*ACCURACY, "largest error, %")),
    ("against all of {:d} poses", (*MAGNITUDE, "exhaustive", "poses")),
    (
        "| {:.1%} of their best, from {:d} values",
        (*MAGNITUDE, "value over the exhaustive best"),
        (*MAGNITUDE, "search", "values and gradients"),
    ),
    ("| {:.2f}; {:.2f} |", ("emg_truth", "lorenz", "model, unseen trials"), ("emg_truth", "lorenz", "low-pass 15 Hz")),
    ("error is about {:.0f} %", (*FOLD, "grey, coil across", "l2")),
]  # fmt: skip


@pytest.mark.host
def test_it_is_short():
    assert len(TEXT.splitlines()) <= 120
    assert len(TEXT.split()) <= 800


@pytest.mark.slow
@pytest.mark.float32
def test_the_first_example_runs_without_any_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(BLOCKS[0], "README.md", "exec"), names)
    assert "grey" in capsys.readouterr().out
    # a point of grey matter 20 mm under a figure-8 at 100 A/us; nearer to the head, the field rises
    assert float(names["value"]) == pytest.approx(113.0, abs=1.0)
    assert names["gradient"].shape == (6,)
    assert float(names["gradient"][2]) > 1.0
    assert not any(tmp_path.iterdir())


@pytest.mark.host
@pytest.mark.parametrize(("said", "sources"), [(said, sources) for said, *sources in FIGURES])
def test_figures_are_those_of_the_results(said, sources):
    results = json.loads(RESULTS.read_text())
    values = []
    for keys in sources:
        value = results
        for key in keys:
            value = value[key]
        values.append(value)
    assert said.format(*values).replace("%", " %").replace("  %", " %") in TEXT
