"""What files call their things is text, in a page and on the console; whom they call by name is told nowhere."""

import gzip
import html.parser
import logging
import re
import warnings
from pathlib import Path

import fuzz_files as made
import h5py
import numpy as np
import pytest
from fuzz_accidents import MUTATIONS, xml
from fuzz_accidents import text as in_text
from fuzz_verdict import TOLD
from typer.testing import CliRunner

import jaxm2m as jm
from jaxm2m import cli, muscle, session
from jaxm2m._progress import progress_bar
from jaxm2m.cli import _muscle_input, _muscle_report, _report

pytestmark = [
    pytest.mark.host,
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"),
]


class Tags(html.parser.HTMLParser):
    """The tags of a page, and its text."""

    def __init__(self):
        super().__init__()
        self.tags, self.words = set(), []

    def handle_starttag(self, tag, attrs):
        self.tags |= {tag, *(name for name, _ in attrs if name.startswith("on"))}

    def handle_data(self, data):
        self.words.append(data)


SCRIPT = "<script>alert(1)</script>"
NAMES = (SCRIPT, '"><img src=x onerror=alert(1)>')


def tags(page):
    found = Tags()
    found.feed(page)
    return found


def test_names_are_text_in_every_piece_of_a_page(tmp_path):
    import pandas as pd

    picture = tmp_path / "a.png"
    picture.write_bytes(b"\x89PNG")
    pieces = [_report.format_paragraph(name) for name in NAMES]
    pieces += [_report.format_table(dict.fromkeys(NAMES, NAMES[0])), _report.embed_picture(picture, NAMES[1])]
    pieces += [_report.format_table(pd.DataFrame([[1.0, 2.0]] * 2, index=NAMES, columns=NAMES).rename_axis(NAMES[0]))]
    _report.write(tmp_path / "r.html", NAMES[0], NAMES[1], {NAMES[0]: pieces})
    page = tags((tmp_path / "r.html").read_text())
    assert not page.tags & {"script", "onerror"}
    assert page.words.count(SCRIPT) >= 6


def test_names_of_muscles_and_files_are_text_in_the_report(tmp_path):
    import pandas as pd

    x = np.random.default_rng(0).uniform(1, 2, (12, 2))
    fold = np.arange(12) % 3
    heads = ("E-field, direct", "E-field, combined")
    table = pd.DataFrame(
        [{"variant": v, "fold": f, "held-out score": 0.1, "parameters": 3} for v in heads for f in range(3)]
    )
    result = muscle.Comparison(heads, NAMES, x, np.stack([x, x**1.1]) / 2, np.full((3, 2), 2.0), fold, fold[:3], table)
    grid = jm.efield.Grid.around((0.0, 0.0, 0.0), (4, 4, 4), 2.0)
    source = _muscle_input.Source(
        Path(f"{SCRIPT.replace('/', '')}.h5"), 12, grid, np.zeros((12, 4, 4)), np.ones(12), SCRIPT
    )
    meps = muscle.Meps(x, x * np.nan, np.full((12, 2), ""), NAMES)
    given = _muscle_input.TrainingData(source, meps, np.arange(12), SCRIPT, None, "small", None, None)
    _muscle_report.write_comparison(tmp_path, result, given, 0)
    text = (tmp_path / "report.html").read_text()
    page = tags(text)
    assert not page.tags & {"script", "onerror"}
    assert "".join(page.words).count(SCRIPT) >= 2


def test_names_are_text_on_the_console(capsys):
    name = "[bold]a[/nothing] [red"
    with progress_bar(2, name, unit=name, enabled=True) as advance:
        advance(1, name)
        advance(1, "[/]")
    shown = re.sub(r"\x1b\[[\d;?]*\w", "", capsys.readouterr().err)
    assert "[bold]a[/nothing]" in shown


@pytest.mark.parametrize("name", [b"two\n\x1b[31m", b"one\xff\xfe"])
def test_names_that_no_console_can_print(tmp_path, name):
    path = tmp_path / "emg.h5"
    with h5py.File(path, "w") as file:
        for name_of_one in (name, b"other"):
            file.create_dataset(name_of_one, data=np.ones((60, 3)))
    words = ["emg", "preprocess", path, "--out", tmp_path / "out.h5", "--sfreq", "500"]
    one = CliRunner().invoke(cli.app, list(map(str, words)))
    assert one.exit_code == 2
    assert re.search(r"source: .*emg\.h5 is damaged or|name: .*emg\.h5 has .*say which holds the EMG", one.output)
    assert "\x1b[31m" not in one.output


SECRETS = ("Wintermute", "Ada-Lovelace", "1987-11-23", "23.11.1987", "Hildegard", "17:43:21", "pregnant")


def exports(folder):
    """A Brainsight and a Localite export full of names and dates, and nobody else's."""
    poses = [np.diag([1.0, -1, -1, 1]) for _ in range(9)]
    for i, pose in enumerate(poses):
        pose[:3, 3] = 8 * (i % 3), 8 * (i // 3), 60 + i % 2
    place = ["Loc. X", "Loc. Y", "Loc. Z", *(f"m{j}n{i}" for j in range(3) for i in range(3))]
    extra = ["Stim. Power A", "Date", "Time", "Comment", "Chamber Name", "Crosshairs Driver", "EMG Res.", "EMG Start"]
    extra += ["EMG Peak-to-peak 1", "EMG Latency 1", "EMG Data 1"]
    columns = ["Sample Name", "Session Name", "Index", "Assoc. Target", "Creation Date", *place, *extra]
    lines = ["# Version: 14", "# Coordinate system: NIfTI:Aligned", "# Created by: Hildegard Wintermute"]
    lines += ["# Units: millimetres, degrees, milliseconds, and microvolts", "# Subject: Ada-Lovelace 1987-11-23"]
    lines += ["# " + "\t".join(columns)]
    wave = ";".join(str(v) for v in np.random.default_rng(0).normal(0, 3, 400).round(2))
    for i, pose in enumerate(poses):
        cells = [f"{v:.4f}" for v in pose[:3, [3, 0, 1, 2]].T.ravel()]
        own = ["50", "1987-11-23", f"17:43:21.{i}00", "pregnant", "Wintermute", "Hildegard", "0.5", "-100"]
        row = [f"S{i}", "Ada-Lovelace", str(i), "T", "23.11.1987", *cells, *own, str(100 + 20 * i), "22", wave]
        lines.append("\t".join(row))
    lines += ["# Session Name\tDate\tOperator", "Ada-Lovelace\t1987-11-23\tHildegard Wintermute"]
    (folder / "brainsight.txt").write_text("\n".join(lines) + "\n")
    lines = ['<?xml version="1.0"?><!-- Ada-Lovelace --><TriggerMarkerList coordinateSpace="RAS" startTime="17:43:21" ']
    lines += ['operator="Wintermute" date="1987-11-23"><Patient birth="23.11.1987">Hildegard</Patient>']
    for i, pose in enumerate(poses):
        lines += [f'<TriggerMarker description="" recordingTime="{100 * i}" comment="pregnant"><ResponseValues>']
        lines += [f'<Value key="response" response="{100 + 20 * i}"/></ResponseValues>']
        lines += [made.matrix4d(pose), "</TriggerMarker>"]
    (folder / "localite.xml").write_text("\n".join([*lines, "</TriggerMarkerList>"]))
    return folder / "brainsight.txt", folder / "localite.xml"


def used(path, out, capsys):
    """All that can be made of an export: files in `out`, and what was said on the way."""
    out.mkdir()
    loaded = session.load(path)
    said = [repr(loaded), str(loaded.table()), loaded.fingerprint(), repr(loaded.pick(located=True)), str(vars(loaded))]
    loaded.table().to_csv(out / "table.csv")
    stimuli = loaded.samples.pick(located=True)
    meps = muscle.read_recorded(stimuli)
    meps.save(out / "meps.csv")
    meps.save(out / "meps.h5")
    said += [repr(meps), str(meps.count_flags())]
    if stimuli.emg.size:
        muscle.measure(stimuli).save(out / "measured.csv")
    names = [f"{i} {name}" for i, name in enumerate(stimuli.names)]
    for kind in ("csv", "txt", "json", "brainsight", "localite"):
        session.save_targets(out / f"t.{kind}", stimuli.poses, names=names, space=stimuli.space, format=kind)
    affine = np.array([[6.0, 0, 0, -60], [0, 6, 0, -60], [0, 0, 6, -60], [0, 0, 0, 1]])
    session.save_marker(out / "m.nii", stimuli.poses[0], affine, (40, 40, 40), space="subject")
    raised = made.AFFINE.copy()
    raised[2, 3] += 60  # into the coil, which `efield` then tells
    made.nifti(out / "labels.nii.gz", made.labels(), raised)
    grid = ["--roi", "0,0,0", "--spacing", "3", "--shape", "4,4,4"]
    runs = [
        ["muscle", "map", out / "meps.csv", "--poses", path, "--out", out / "map"],
        ["efield", "--head", out / "labels.nii.gz", "--coil", "figure8", "--poses", path, "--out", out / "e.h5", *grid],
        ["place", "--head", path, "--coil", path, "--target", "C3", "--out", out / "placed"],
        ["emg", "preprocess", path, "--out", out / "p.h5"],
        ["basis", "build", "--head", out / "labels.nii.gz", "--points", path, "--out", out / "b.h5"],
        ["muscle", "map", path, "--poses", out / "meps.csv", "--out", out / "map2"],
    ]
    for words in runs:
        one = CliRunner().invoke(cli.app, list(map(str, words)))
        said += [one.output, repr(one.exception)]
    caught = capsys.readouterr()
    return [*said, caught.out, caught.err]


@pytest.mark.parametrize("kind", [0, 1], ids=["Brainsight", "Localite"])
def test_names_and_dates_of_persons_reach_nothing(kind, tmp_path, capsys, caplog, recwarn):
    caplog.set_level(logging.DEBUG)
    path = exports(tmp_path)[kind]
    said = used(path, tmp_path / "out", capsys)
    said += [caplog.text, *(str(w.message) for w in recwarn)]
    written = [p for p in (tmp_path / "out").rglob("*") if p.is_file()]
    assert any("casing reaches" in text for text in said)
    assert {"table.csv", "meps.h5", "t.json", "map.csv", "map.nii.gz"} <= {p.name for p in written}
    for secret in SECRETS:
        assert not [text for text in said if secret in text], secret
        for file in written:
            data = file.read_bytes()
            if file.name.endswith(".gz"):
                data = gzip.decompress(data)
            assert secret.encode() not in data, (secret, file)
            assert secret.encode("utf-16-le") not in data, (secret, file)


def test_errors_about_damaged_exports_tell_no_person(tmp_path):
    for path, mutate in zip(exports(tmp_path), (in_text, xml), strict=True):
        whole = path.read_bytes()
        for seed in range(MUTATIONS):
            path.write_bytes(mutate(whole, np.random.default_rng([seed, 11])))
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                try:
                    text = repr(session.load(path))
                except TOLD as error:
                    text = str(error)
            text += " ".join(str(w.message) for w in caught)
            assert not [secret for secret in SECRETS if secret in text], (seed, text)
