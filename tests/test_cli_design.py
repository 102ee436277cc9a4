"""`jaxm2m design`: what it reads and writes beside a navigator, also when it is killed; its words about bad input."""

import json
import re
import signal
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from cheap_map import TARGET, cheap_map
from PIL import Image
from test_cli_place_muscle import made_sources
from test_session_brainsight import export
from test_session_localite import triggers
from typer.testing import CliRunner

import jaxm2m as jm
from jaxm2m import cli
from jaxm2m.cli import _design_desk, _design_input, _design_report, _design_session, _design_simulate
from jaxm2m.cli._design_stimulus import Stimulus

pytestmark = pytest.mark.host

MUSCLES = ("FDI", "ADM")
TO_LOCALITE = np.linalg.inv(np.array([[0.0, 0, 1, 0], [0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]]))
TO_BRAINSIGHT = np.diag([-1.0, 1.0, -1.0, 1.0])


class KilledError(BaseException):
    """A kill: nothing of the program catches it."""


class StandIn:
    """A loop that computes nothing: its poses go round, and it keeps what it is given."""

    killed_at, killed_after = None, False

    def __init__(self, at_roi, *, coil, scalp, target, muscles, key, directory, goal, n_stimulus, **options):
        self.frame = np.asarray(jm.coil.place(scalp, target, options["handle"], options["distance"]), float)
        self.muscles, self.goal, self.n_stimulus, self.options = muscles, goal, n_stimulus, options
        limits = np.ravel(7e7 if options["didt"] is None else options["didt"])
        self.levels = np.geomspace(limits[0], limits[-1], 4) if len(limits) > 1 else limits
        self.didt = float(np.exp(np.log(self.levels).mean()))
        self.rule = options["rule"] or "information"
        self.wanted = tuple(muscles.index(name) for name in options["muscle"] or muscles)
        self.path = Path(directory) / "loop.json"
        self.rows = json.loads(self.path.read_text()) if self.path.exists() else []
        self.reason, self.stop = "", 5.0
        self._find_reason()

    def __len__(self):
        return len(self.rows)

    @property
    def done(self):
        return bool(self.reason)

    def next(self):
        pose = self.frame.copy()
        pose[:3, 3] += len(self) * pose[:3, 0]
        return pose, float(self.levels[len(self) % len(self.levels)])

    def record(self, pose, didt, meps):
        if self.killed_at == len(self) and not self.killed_after:
            raise KilledError
        self.rows.append([np.asarray(pose).tolist(), didt, [None if m != m else m for m in np.asarray(meps).tolist()]])
        with jm.files.atomic(self.path) as temporary:
            temporary.write_text(json.dumps(self.rows))
        if self.killed_at == len(self) - 1 and self.killed_after:
            raise KilledError
        self._find_reason()

    def _find_reason(self):
        self.reason = f"all {self.n_stimulus} stimuli were given" if len(self) >= self.n_stimulus else ""

    @property
    def posterior(self):
        return made_sources()

    draws = posterior

    def threshold(self):
        return jm.design.ThresholdEstimate(5e7, 5e7 - 1e7 / (1 + len(self)), 5e7 + 1e7 / (1 + len(self)))

    def best(self):
        candidate = SimpleNamespace(pose=self.frame)
        return SimpleNamespace(pose=candidate.pose, table=lambda: pd.DataFrame({"value": [1.0], "x": [0.0]}))

    def table(self):
        table = pd.DataFrame(
            np.array([row[0] for row in self.rows]).reshape(-1, 4, 4)[:, :3, 3], columns=list("xyz"),
            index=pd.RangeIndex(1, len(self) + 1, name="stimulus"),
        )  # fmt: skip
        table["turn"], table["didt"] = 0.0, [row[1] for row in self.rows]
        for k, name in enumerate(self.muscles):
            table[f"mep_{name}_uv"] = np.array([row[2][k] for row in self.rows], float)
        return table


@pytest.fixture
def head():
    # a new scalp in the running precision
    at_roi = cheap_map((6, 6, 5), 8.0)
    return SimpleNamespace(scalp=at_roi.scalp, space="subject"), at_roi


@pytest.fixture
def desk(monkeypatch, tmp_path, head):
    """Commands on the cheap map, with the stand-in for the loop, in a folder with what the options name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JAXM2M_TRACEBACK", raising=False)
    monkeypatch.setattr(StandIn, "killed_at", None)
    monkeypatch.setattr(jm.design, "Loop", StandIn)
    monkeypatch.setattr(_design_input, "load", lambda *args, **options: make_setup(head, args[3]))
    Path("basis.h5").write_text("a basis")
    Path("head.nii.gz").write_text("a head")
    return tmp_path


def make_setup(head, patch):
    conducting, at_roi = head
    return _design_input.Setup(conducting, at_roi.coil, at_roi, None, TARGET, patch)


def run(*words, **options):
    usual = {"head": "head.nii.gz", "coil": "figure8", "basis": "basis.h5", "out": "out", "didt": "7e7"}
    usual["target"] = ",".join(map(str, TARGET))
    line = ["design", *words]
    for name, value in (usual | options).items():
        for each in value if isinstance(value, list) else [] if value is None else [value]:
            line += [f"--{name.replace('_', '-')}", str(each)]
    return CliRunner().invoke(cli.app, line)


def pose(i):
    made = np.asarray(jm.coil.place(cheap_map((6, 6, 5), 8.0).scalp, TARGET, (-1, -1, 0), 4.0), float)
    made[:3, 3] += (0.25 * i, -0.5 * i, 0)
    return made


@pytest.fixture(scope="module")
def poses():
    first = pose(0)
    made = np.repeat(first[None], 8, 0)
    made[:, :3, 3] += np.outer(np.arange(8), (0.25, -0.5, 0))
    return made


def write_brainsight(n, poses, empty=(), end=None):
    rows = []
    for i in range(n):
        values = {"Date": "2021-06-25", "Time": f"10:00:{5 * i:02d}.250", "Stim. Power A": "50"}
        if i not in empty:
            values |= {"EMG Peak-to-peak 1": 100 + i, "EMG Peak-to-peak 2": 7.5 * i}
        rows.append((poses[i] @ TO_BRAINSIGHT, values))
    path = export(Path.cwd(), rows, [poses[0]], channels=(1, 2), name="export.txt")
    path.write_bytes(path.read_bytes()[:end])


def write_localite(n, poses, empty=(), end=None):
    markers = [(poses[i] @ TO_LOCALITE, 1000 + 5000 * i, 62.0 + i, "NaN", 45.0) for i in range(n)]
    path = triggers(Path.cwd(), markers, name="TriggerMarkers_Coil0.xml")
    path.write_bytes(path.read_bytes()[:end])


def write_table(n):
    rows = [f"{100 + i},{7.5 * i}" for i in range(n)]
    Path("meps.csv").write_text("\n".join(["mep_FDI_uv,mep_ADM_uv", *rows]) + "\n")


def recorded():
    return json.loads(Path("out/loop.json").read_text())


def check(poses, n):
    """Every stimulus once, in order, with its own pose and MEPs."""
    rows = recorded()
    np.testing.assert_allclose([row[2] for row in rows], [[100 + i, 7.5 * i] for i in range(n)])
    np.testing.assert_allclose([row[0] for row in rows], poses[:n], atol=2e-3)


class Growing:
    """Takes the place of the wait between two looks: the next step of a session, at the end Ctrl-C."""

    def __init__(self, monkeypatch, steps, out="out"):
        self.steps, self.seen, self.target = list(steps), [], Path(out) / "next.json"
        monkeypatch.setattr(_design_session.Stop, "wait", self)
        monkeypatch.setattr(_design_session, "SETTLED", 0.0)

    def __call__(self, timeout=None):
        self.seen.append(self.target.read_text() if self.target.exists() else None)
        if not self.steps:
            signal.raise_signal(signal.SIGINT)
            return
        self.steps.pop(0)()


FORMATS = {
    "export.txt": (write_brainsight, "next_brainsight.txt", {}),
    "TriggerMarkers_Coil0.xml": (write_localite, "next_localite.xml", {"meps": "meps.csv"}),
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_session_beside_the_navigator(desk, monkeypatch, poses, name):
    """The export is not there at first, grows, is cut in the middle of a row, and its MEPs come late."""
    write, target, options = FORMATS[name]
    steps = [lambda: (write_table(0), write(0, poses))]
    for n in range(1, 5):
        steps += [lambda n=n: write(n, poses, end=-300), lambda n=n: write(n, poses), lambda n=n: write_table(n)]
    growing = Growing(monkeypatch, steps)
    done = run("next", watch=name, muscles="FDI,ADM", **options)
    assert done.exit_code == 0, done.output
    check(poses, 4)
    # there is always a proposal, and it only ever goes on
    numbers = [int(json.loads(text)["names"][0].removeprefix("jaxm2m ")) for text in growing.seen]
    assert numbers == sorted(numbers)
    assert set(numbers) == {1, 2, 3, 4, 5}
    proposed, space = jm.session.load_poses(f"out/{target}")
    assert space == "subject"
    loop = StandIn.__new__(StandIn)
    loop.frame, loop.rows, loop.levels = pose(0), [None] * 4, [7e7]
    np.testing.assert_allclose(proposed[0], loop.next()[0], atol=1e-5)
    if name == "export.txt":
        assert "# Coordinate system: NIfTI:Aligned\n" in Path(f"out/{target}").read_text()
        assert "no dI/dt: that of the proposal is taken" in done.output
        assert {row[1] for row in recorded()} == {7e7}
    else:
        assert [row[1] for row in recorded()] == [62e6, 63e6, 64e6, 65e6]
    files = {p.name for p in Path("out").iterdir()} - {".lock"}
    assert files == {
        target, "next.json", "next_stimulus.json", "next.png", "stimuli.csv", "progress.csv", "log.txt", "watch.json",
        "loop.json", "hotspots.csv", "curves.csv", "model.h5", "stimuli.png", "sources.png", "report.html",
    }  # fmt: skip
    assert len(Path("out/log.txt").read_text().splitlines()) == 5
    assert len(pd.read_csv("out/stimuli.csv")) == 4
    assert pd.read_csv("out/progress.csv")["stimuli"].tolist() == [0, 1, 2, 3, 4]
    with Image.open("out/next.png") as image:
        assert min(image.size) > 300
    report = Path("out/report.html").read_text()
    assert "stopped by Ctrl-C" in report
    for private in ("Doe Jane", "2021-06-25"):
        assert private not in report + Path("out/watch.json").read_text() + done.output


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("name", FORMATS)
def test_a_kill_at_every_stimulus(desk, monkeypatch, poses, name, after):
    """Between the journal and the loop's file, or just behind both; then the same command goes on."""
    write, _, options = FORMATS[name]
    for n in range(1, 5):
        StandIn.killed_at, StandIn.killed_after = n - 1, after
        write(n, poses)
        write_table(n)
        Growing(monkeypatch, [])
        with pytest.raises(KilledError):
            run("next", watch=name, muscles="FDI,ADM", **options)
    StandIn.killed_at = None
    write(5, poses)
    write_table(5)
    done = run("next", session=name, muscles="FDI,ADM", **options)
    assert done.exit_code == 0, done.output
    check(poses, 5)
    assert "stimuli are there from before" in done.output


def test_it_ends_when_enough_is_known(desk, monkeypatch, poses):
    write_brainsight(6, poses)
    Growing(monkeypatch, [])
    done = run("next", watch="export.txt", goal="hotspot", muscle="FDI", muscles="FDI,ADM", n_stimulus=4)
    assert done.exit_code == 0, done.output
    check(poses, 4)
    assert "all 4 stimuli were given" in done.output
    assert {"best.csv", "best.json", "best_brainsight.txt"} <= {p.name for p in Path("out").iterdir()}
    assert "The best pose" not in Path("out/report.html").read_text()
    assert "A session for the best pose for FDI" in Path("out/report.html").read_text()


LEVELS = np.geomspace(6e7, 9e7, 4)


def test_the_intensity_of_a_stimulus_is_that_of_the_proposal_that_stood(desk, monkeypatch, poses):
    """Also of two that come at once, and of one that comes while the next proposal is computed."""
    propose = StandIn.next

    def propose_slowly(self):
        if len(self) == 4 and len(jm.session.load("export.txt").samples) == 4:
            write_brainsight(5, poses)
        return propose(self)

    monkeypatch.setattr(StandIn, "next", propose_slowly)
    Growing(monkeypatch, [partial(write_brainsight, n, poses) for n in (1, 3, 4, 5, 6)])
    done = run("next", watch="export.txt", muscles="FDI,ADM", didt="6e7,9e7")
    assert done.exit_code == 0, done.output
    check(poses, 6)
    np.testing.assert_allclose([row[1] for row in recorded()], LEVELS[[0, 1, 1, 3, 3, 1]])
    assert "each stimulus at one of 4 intensities, 60 A/µs to 90 A/µs." in done.output
    assert "100 % MSO is not known; pass --largest-didt" in done.output
    assert re.search(r"^next: stimulus 4 at \(.*\) mm, 90 A/µs, ", Path("out/log.txt").read_text(), re.MULTILINE)
    stands = json.loads(Path("out/next_stimulus.json").read_text())
    assert (stands["stimulus"], stands["space"], stands["mso_percent"]) == (7, "subject", None)
    assert stands["didt_a_per_s"] == LEVELS[2]
    np.testing.assert_allclose(stands["pose"], json.loads(Path("out/next.json").read_text())["poses"][0], atol=1e-6)


def test_the_intensity_of_stimuli_whose_meps_come_after_the_next_proposal(desk, monkeypatch, poses):
    write_table(0)
    steps = [lambda: write_brainsight(3, poses), *[partial(write_table, n) for n in (1, 3)]]
    Growing(monkeypatch, [*steps, lambda: (write_brainsight(4, poses), write_table(4))])
    done = run("next", watch="export.txt", meps="meps.csv", muscles="FDI,ADM", didt="6e7,9e7")
    assert done.exit_code == 0, done.output
    check(poses, 4)
    np.testing.assert_allclose([row[1] for row in recorded()], LEVELS[[0, 0, 0, 3]])


def test_the_journal_keeps_the_first_proposal_that_stood(tmp_path):
    nothing = Stimulus("time 1 s", "", np.full((4, 4), np.nan), np.nan, np.nan, None)
    journal = _design_session.Journal(tmp_path / _design_session.JOURNAL, MUSCLES, None)
    journal.keep_didt(["time 1 s", "time 2 s"], 6e7)
    journal.append(nothing)
    journal.keep_didt(["time 2 s", "time 3 s"], 9e7)
    # a file that is being written again has none of them
    journal.keep_didt([], 7e7)
    assert _design_session.read_journal(tmp_path).standing == {"time 2 s": 6e7, "time 3 s": 9e7}


def test_a_kill_before_the_next_proposal_leaves_the_intensity_of_the_last(desk, monkeypatch, poses):
    options = {"session": "export.txt", "muscles": "FDI,ADM", "didt": "6e7,9e7"}
    write_brainsight(0, poses)
    assert run("next", **options).exit_code == 0
    write_brainsight(1, poses)
    StandIn.killed_at, StandIn.killed_after = 0, True
    with pytest.raises(KilledError):
        run("next", **options)
    StandIn.killed_at = None
    write_brainsight(2, poses)
    assert run("next", **options).exit_code == 0
    write_brainsight(3, poses)
    assert run("next", **options).exit_code == 0
    np.testing.assert_allclose([row[1] for row in recorded()], LEVELS[[0, 0, 2]])


def test_the_intensity_of_what_came_before_any_proposal(desk, poses):
    write_brainsight(2, poses)
    options = {"session": "export.txt", "muscles": "FDI,ADM"}
    done = run("next", didt="6e7,9e7", **options)
    assert done.exit_code == 2
    assert "--didt: LOWEST,HIGHEST, and the export has a stimulus from before the first proposal" in done.output
    assert not Path("out/loop.json").exists()
    # one number, or %MSO, says which it was
    assert run("next", out="a", **options).exit_code == 0
    done = run("next", didt="6e7,9e7", largest_didt="1.5e8", **options)
    assert done.exit_code == 0, done.output
    np.testing.assert_allclose([row[1] for row in recorded()], 75e6, rtol=1e-6)


def test_the_operator_sees_the_intensity_as_it_is_set(desk, monkeypatch):
    titles = []
    draw = _design_desk.draw_session
    monkeypatch.setattr(_design_desk, "draw_session", lambda *args: titles.append(args[-1]) or draw(*args))
    done = run("next", muscles="FDI,ADM", didt="6e7,9e7", largest_didt="1.5e8")
    assert done.exit_code == 0, done.output
    assert "4 intensities, 60 A/µs (40 % MSO) to 90 A/µs (60 % MSO)." in done.output
    assert " mm, 60 A/µs (40 % MSO); " in Path("out/log.txt").read_text()
    assert titles == ["stimulus 1: 60 A/µs (40 % MSO)"]
    stands = json.loads(Path("out/next_stimulus.json").read_text())
    np.testing.assert_allclose([stands["didt_a_per_s"], stands["mso_percent"]], [6e7, 40], rtol=1e-6)
    done = run("next", muscles="FDI,ADM", didt="6e7,9e7", rule="random", out="other")
    assert "all stimuli at the highest, 90 A/µs: --rule random chooses poses alone." in done.output


def test_the_report_says_what_each_stimulus_told(desk, monkeypatch, poses):
    write_brainsight(0, poses)
    Growing(monkeypatch, [partial(write_brainsight, n, poses) for n in (1, 2, 4)])
    assert run("next", watch="export.txt", muscles="FDI,ADM", didt="6e7,9e7", n_stimulus=4).exit_code == 0
    report = Path("out/report.html").read_text()
    assert (
        "<details><summary>4 stimuli: pose, intensity, and how far the median 90 % radius of the hot spots fell"
        in report
    )
    for said in (
        "mutual information (Lindley, 1956) of its MEPs and the centroids of the densities", "Laplace&#x27;s approx",
        "among 4 intensities between 60 and 90 A/µs; it was 60 to 78.62 A/µs.", "that the navigator recorded",
        "@article{Lindley1956,", "@article{Weise2020,", "<td>60000000, ",
    ):  # fmt: skip
        assert said in report.replace("6e+07", "60000000"), said
    assert pd.read_csv("out/progress.csv")["stimuli"].tolist() == [0, 1, 2, 4]
    progress = pd.DataFrame({"median": [12.0, 9.0, 7.5, 6.0]}, index=[0, 1, 2, 4])
    table = _design_report.tabulate_stimuli(
        pd.read_csv("out/stimuli.csv", index_col=0), progress, jm.coil.calibrate(1e8)
    )
    np.testing.assert_allclose(table["radius"], [9, 7.5, np.nan, 6])
    np.testing.assert_allclose(table["fall"], [3, 1.5, np.nan, 1.5])
    np.testing.assert_allclose(table["% MSO"], 100 * LEVELS[[0, 1, 2, 2]] / 1e8, rtol=1e-4)


def test_a_motor_threshold_is_hunted_at_the_pose_of_a_file(desk, monkeypatch, poses):
    write_brainsight(0, poses)
    Growing(monkeypatch, [partial(write_brainsight, n, poses) for n in (1, 2, 3, 4)])
    jm.session.save_targets("best.json", poses[3], space="subject")
    jm.session.save_targets("many.json", poses, space="subject")
    jm.session.save_targets("other.json", poses[3], space="MNI152")
    options = {"goal": "threshold", "muscle": "FDI", "muscles": "FDI,ADM", "didt": "3e7,9e7", "largest_didt": "1e8"}
    for pose, said in (("many.json", "holds 8 poses; give a file with one"), ("other.json", "is in 'MNI152' space")):
        assert f"--pose: {pose} {said}" in run("next", pose=pose, out=pose[:-5], **options).output
    done = run("next", watch="export.txt", pose="best.json", n_stimulus=4, **options)
    assert done.exit_code == 0, done.output
    assert "all stimuli at one pose, with 30 A/µs (30 % MSO) to 90 A/µs (90 % MSO)." in done.output
    assert "; threshold 50 A/µs (90 %: 40 to 60 A/µs)\n" in Path("out/log.txt").read_text()
    table = pd.read_csv("out/threshold.csv", index_col=0)
    assert list(table.index) == ["FDI"]
    np.testing.assert_allclose(table.loc["FDI"], [5e7, 4.8e7, 5.2e7, 50, 48, 52], rtol=1e-6)
    assert not Path("out/model.h5").exists()
    report = Path("out/report.html").read_text()
    for said in (
        "A session for the motor threshold of FDI", "how far the width of the threshold&#x27;s 90 % interval fell",
        "4 stimuli were given at one pose of the coil", "between 30 and 90 A/µs, was that whose MEP",
    ):  # fmt: skip
        assert said in report, said
    progress = _design_report.read_progress(Path("out/progress.csv"))
    table = _design_report.tabulate_stimuli(pd.read_csv("out/stimuli.csv", index_col=0), progress, None)
    np.testing.assert_allclose(table["fall"], 20 / np.array([1, 2, 3, 4]) - 20 / np.array([2, 3, 4, 5]), rtol=1e-4)


def test_without_an_export_the_next_target_of_what_is_there(desk):
    done = run("next", muscles="FDI,ADM")
    assert done.exit_code == 0, done.output
    assert {"next_brainsight.txt", "next_localite.xml", "next.json", "next_stimulus.json", "next.png"} <= {
        p.name for p in Path("out").iterdir()
    }
    assert json.loads(Path("out/next.json").read_text())["names"] == ["jaxm2m 1"]


def test_missed_and_unseen_stimuli(desk, poses):
    moved = poses.copy()
    rows = [(poses[0] @ TO_LOCALITE, 1, 60.0, 80, 45.0), (np.eye(4), 2, 60.0, 90, 45.0)]
    rows += [(moved[2] @ TO_LOCALITE, 3, "NaN", "NaN", 45.0)]
    triggers(Path.cwd(), rows, name="TriggerMarkers_Coil0.xml")
    done = run("next", session="TriggerMarkers_Coil0.xml", muscles="FDI", largest_didt="1.5e8")
    assert done.exit_code == 0, done.output
    assert [row[2] for row in recorded()] == [[80], [None]]
    # as recorded, and from %MSO
    np.testing.assert_allclose([row[1] for row in recorded()], [60e6, 0.45 * 1.5e8], rtol=1e-6)
    assert "time 0.002 s: the navigator did not see the coil; passed over" in done.output
    assert "no MEP, missed" in done.output
    again = run("next", session="TriggerMarkers_Coil0.xml", muscles="FDI", largest_didt="1.5e8")
    assert again.exit_code == 0, again.output
    assert len(recorded()) == 2


def test_muscles_of_the_table_or_of_the_export(desk, poses):
    write_brainsight(2, poses)
    write_table(2)
    assert run("next", session="export.txt", meps="meps.csv", out="a").exit_code == 0
    assert json.loads(Path("a/watch.json").read_text())["muscles"] == ["FDI", "ADM"]
    assert run("next", session="export.txt", out="b").exit_code == 0
    assert json.loads(Path("b/watch.json").read_text())["muscles"] == ["1", "2"]
    # they stay, whatever the export has later
    write_brainsight(3, poses, empty=(0, 1, 2))
    done = run("next", session="export.txt", out="b")
    assert done.exit_code == 2
    assert "--session: stimulus 1 (S0) has other MEPs since it was used; restore" in done.output


def test_a_file_that_shrank_is_refused_after_a_while(desk, monkeypatch, poses):
    """Not at once: the navigator may be writing it again at this moment."""
    ticks = iter(np.arange(0, 1000, 0.5))
    # the session's alone: other threads look at the time too
    clock = SimpleNamespace(monotonic=lambda: float(next(ticks)), sleep=time.sleep)
    monkeypatch.setattr(_design_session, "time", clock)
    write_brainsight(4, poses)
    steps = [lambda: write_brainsight(2, poses), lambda: None, lambda: write_brainsight(5, poses)]
    steps += [lambda: write_brainsight(1, poses), *[lambda: None] * 50]
    Growing(monkeypatch, steps)
    done = run("next", watch="export.txt", muscles="FDI,ADM")
    assert done.exit_code == 2
    check(poses, 5)
    assert done.output.count("waiting, the last proposal stands: --watch: it holds") == 2
    assert "it holds 1 stimuli, and 5 were used: it shrank" in done.output.splitlines()[-1]
    assert Path("out/hotspots.csv").exists()


def test_no_meps_anywhere_is_told(desk, poses):
    write_brainsight(4, poses, empty=range(4))
    done = run("next", session="export.txt", muscles="FDI,ADM")
    assert done.output.count("none of the 3 stimuli so far has an MEP") == 1


def test_a_row_without_an_end_is_told(desk, poses):
    write_brainsight(2, poses)
    path = Path("export.txt")
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index(b"# Session Landmark")].rstrip(b"\n"))
    done = run("next", session="export.txt", muscles="FDI,ADM")
    assert done.exit_code == 0, done.output
    assert "warning: the end of export.txt was not read: it ends in the middle of a line" in done.output
    check(poses, 1)


def test_two_at_once_are_refused(desk):
    Path("out").mkdir()
    with jm.files.lock("out"):
        done = run("next", muscles="FDI,ADM")
    assert done.exit_code == 2
    assert done.output.startswith("jaxm2m design next: --out: out is in use by")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"watch": "e.txt", "session": "e.txt"}, "--session: --watch reads an export too; leave one of the two out"),
        ({"meps": "meps.csv"}, "--meps: not used without an export; give --watch or --session EXPORT"),
        ({"channels": "1,2"}, "--channels: not used without an export"),
        ({"session": "export.txt", "channels": "1"}, "--channels: 1 of them; name as many muscles by --muscles"),
        ({"session": "export.txt", "channels": "1", "meps": "meps.csv"}, "--channels: of the export's EMG, and --meps"),
        ({"session": "absent.txt"}, "--session: absent.txt does not exist; check the path"),
        ({"watch": "absent/e.txt"}, "--watch: the folder absent does not exist"),
        ({"session": "basis.h5"}, "--session: basis.h5 is not written while a session runs; give text or XML"),
        ({"session": "head.nii.gz"}, "--session: head.nii.gz is no Brainsight text export and no Localite XML"),
        ({"muscles": None}, "--muscles: missing; name those that are recorded, such as FDI,ADM"),
        ({"muscles": None, "watch": "later.txt"}, "--muscles: missing, and the export has no MEP yet"),
        ({"muscles": "FDI,FDI"}, "--muscles: 'FDI,FDI'; give different names"),
        ({"goal": "maps"}, "--goal: 'maps'; choose one of 'map', 'hotspot', 'select', 'threshold'"),
        ({"goal": "threshold", "muscle": ["FDI", "ADM"]}, "--muscle: a threshold is that of one muscle"),
        ({"goal": "threshold", "muscle": "FDI", "rule": "grid"}, "--rule: a threshold is that of one muscle"),
        ({"goal": "threshold", "muscle": "FDI"}, "--didt: --goal threshold needs LOWEST,HIGHEST, between which"),
        ({"pose": "best.json"}, "--pose: not used with --goal map, which chooses poses"),
        ({"rule": "entropy"}, "--rule: 'entropy'"),
        ({"goal": "hotspot"}, "--muscle: missing; --goal hotspot asks for the muscle that should answer"),
        ({"goal": "select", "muscle": "FDI"}, "--avoid-muscle: --goal select asks for those that should not answer"),
        ({"avoid_muscle": "ADM"}, "--avoid-muscle: --goal map spares none; leave it out"),
        ({"muscle": "APB"}, "--muscle: 'APB'; choose one of 'FDI', 'ADM'"),
        ({"goal": "select", "muscle": "FDI", "avoid_muscle": "FDI"}, "--avoid-muscle: FDI should answer too"),
        ({"goal": "hotspot", "muscle": "FDI", "stop": 3}, "--stop: 3; with --goal hotspot it is a share of the draws"),
        ({"stop": -1}, "--stop: -1; give a positive number"),
        ({"n_stimulus": 0}, "--n-stimulus: 0"),
        ({"interval": 0}, "--interval: 0; give a positive number"),
        ({"threshold": "60"}, "--threshold: '60'; give a number above zero and its unit"),
        ({"didt": None}, "--didt: missing; give that of the stimuli, A/s"),
        ({"didt": None, "threshold": "15 V/m per A/us"}, "--didt: missing"),
        ({"didt": -1e6}, "--didt: -1e+06; give a positive number"),
        ({"didt": "80A"}, "--didt: '80A'; give one number (A/s), or LOWEST,HIGHEST, with commas"),
        ({"didt": "9e7,6e7"}, "--didt: '9e7,6e7'; give one number (A/s), or LOWEST,HIGHEST, the lowest first"),
        ({"didt": "6e7,7e7,8e7"}, "--didt: '6e7,7e7,8e7'; give one number (A/s), or LOWEST,HIGHEST, the lowest first"),
        ({"didt": "0,8e7"}, "--didt: 0; give a positive number"),
        ({"didt": "6e7,9e7", "largest_didt": 8e7}, "--didt: 9e+07 A/s is more than 100 %MSO, 8e+07 A/s; lower it"),
        ({"handle": "0,0,0"}, "--handle: 0,0,0 points nowhere"),
        ({"radius": 0}, "--radius: 0"),
        ({"avoid": "1,2,3"}, "--avoid: '1,2,3'; give X,Y,Z,R in mm"),
        ({"target": "1,2"}, "--target: '1,2'; give X,Y,Z in mm"),
        ({"basis": "absent.h5"}, "--basis: absent.h5 does not exist"),
        ({"head": "absent.nii"}, "--head: absent.nii does not exist"),
        ({"coil": "absent.ccd"}, "--coil: absent.ccd does not exist"),
        ({"format": "nexstim"}, "--format: 'nexstim'; choose one of 'brainsight', 'localite'"),
        ({"seed": -1}, "--seed: -1; must be at least 0"),
        ({"out": "basis.h5"}, "--out: basis.h5 is a file; name a folder"),
    ],
)
def test_bad_input_is_one_line(desk, options, said):
    Path("export.txt").write_text("# Version: 14\n")
    done = run("next", **({"muscles": "FDI,ADM"} | options))
    assert done.exit_code == 2, done.output
    (line,) = done.output.splitlines()
    assert line.startswith("jaxm2m design next: ")
    assert said in line


def test_what_the_folder_holds_is_respected(desk, poses):
    write_brainsight(2, poses)
    assert run("next", session="export.txt", muscles="FDI,ADM").exit_code == 0
    for options, said in (
        ({"muscles": "FDI,APB"}, "--muscles: FDI, APB, but the session of out has FDI, ADM"),
        ({"muscles": "FDI,ADM", "session": "export.txt"}, "holds a loop of 2 stimuli, of which 0 came from an export"),
    ):
        if "session" in options:
            Path("out/watch.json").unlink()
        done = run("next", **({"session": "export.txt"} | options))
        assert done.exit_code == 2
        assert said in done.output
    assert run("next", session="export.txt", muscles="FDI,ADM", out="new").exit_code == 0
    for options in ({"channels": "2,1"}, {"meps": "meps.csv"}):
        write_table(2)
        done = run("next", session="export.txt", muscles="FDI,ADM", out="new", **options)
        assert "--out: the MEPs of the session of new come from channels 1, 2; go on as it was begun" in done.output
    Path("out/watch.json").write_text('{"content": "other"}')
    done = run("next", session="export.txt", muscles="FDI,ADM")
    assert "--out: out/watch.json is no journal of a session" in done.output


def test_another_space_than_the_heads(desk, poses):
    text = write_brainsight(1, poses) or Path("export.txt").read_text()
    Path("export.txt").write_text(text.replace("NIfTI:Aligned", "NIfTI:MNI-152"))
    done = run("next", session="export.txt", muscles="FDI,ADM")
    assert done.exit_code == 2
    assert "--session: export.txt is in 'MNI152' space, the head in 'subject'; take a head in that space" in done.output


def test_a_plan(desk, monkeypatch, poses):
    def plan(at_roi, *, coil, scalp, target, n, key, rate, didt, radius, handle, distance, avoid):
        assert (n, radius, handle, distance) == (5, 15.0, (-1.0, 0.0, 0.0), 6.0)
        assert avoid == (((0.0, 45.0, 0.0), 4.0),)
        assert rate.threshold.unit == "V/m"
        np.testing.assert_array_equal(jax.random.key_data(key), jax.random.key_data(jax.random.key(3)))
        return poses[:n]

    monkeypatch.setattr(jm.design, "plan", plan, raising=False)
    options = {"radius": 15, "handle": "-1,0,0", "distance": 6, "avoid": "0,45,0,4", "threshold": "60 V/m", "seed": 3}
    done = run("plan", n=5, **options)
    assert done.exit_code == 0, done.output
    names = {"targets_brainsight.txt", "targets_localite.xml", "targets.json", "table.csv", "plan.png"}
    assert {p.name for p in Path("out").iterdir()} == names
    for name in ("targets_brainsight.txt", "targets_localite.xml", "targets.json"):
        read, space = jm.session.load_poses(f"out/{name}")
        assert space == "subject"
        np.testing.assert_allclose(read, poses[:5], atol=1e-5)
    table = pd.read_csv("out/table.csv")
    assert table["target"].tolist() == [f"jaxm2m {k}" for k in range(1, 6)]
    np.testing.assert_allclose(table["move_mm"][1:], np.hypot(0.25, 0.5), rtol=1e-4)
    done = run("plan", n=0)
    assert done.exit_code == 2
    assert "--n: 0; must be at least 1" in done.output


class Subject:
    """MEPs that follow the largest field, and a density at one point."""

    def __init__(self, n_point):
        self.muscles, self.rmt_didt = ("FDI", "ADM", "APB"), np.array(5e7)
        self.points = np.array([[0.0, 0.0, 20.0], [0.0, 0.0, 25.0]])
        self.n_point = n_point

    def expected_meps(self, e):
        size = jnp.linalg.norm(e, axis=-1).max(-1)
        return jnp.stack([40 * size, 10 * size, 5 * size], -1)

    def draw_meps(self, key, e):
        return self.expected_meps(e) * jnp.exp(0.3 * jax.random.normal(key, (3,)))

    def densities(self):
        return np.full((3, 2), 0.5)


@pytest.fixture
def subject(desk, monkeypatch, head):
    made = Subject(head[1].n_point)
    monkeypatch.setattr(_design_simulate, "generate_subject", lambda *_: made)
    return made


def simulate(**options):
    line = ["design", "simulate", "--out", "out", "--basis", "basis.h5", "--target", ",".join(map(str, TARGET))]
    for name, value in options.items():
        line += [f"--{name.replace('_', '-')}", str(value)]
    return CliRunner().invoke(cli.app, line)


def test_a_simulated_session_and_its_clock(subject):
    done = simulate(stimuli=5)
    assert done.exit_code == 0, done.output
    lines = [line for line in done.output.splitlines() if line.startswith("stimulus ")]
    assert [int(line[8:12]) for line in lines] == [1, 2, 3, 4, 5]
    assert all(re.search(r"next +\d+\.\d\d s, record +\d+\.\d\d s", line) for line in lines)
    assert "s at most (after the third)" in done.output
    table = pd.read_csv("out/truth.csv", index_col=0)
    spots = made_sources().hotspots()[["x", "y", "z"]].to_numpy(float)
    np.testing.assert_allclose(table["error"], np.linalg.norm(spots - (0, 0, 22.5), axis=1), rtol=1e-4)
    assert f"{table['error'].median():.1f} mm off the truth (median of 3 muscles)" in done.output
    first = recorded()
    np.testing.assert_allclose([row[1] for row in first], 5e7 * np.geomspace(1, 1.5, 4)[[0, 1, 2, 3, 0]])
    assert "1.31 RMT" in lines[2]
    assert pd.read_csv("out/progress.csv")["stimuli"].tolist() == [0, 1, 2, 3, 4, 5]
    report = Path("out/report.html").read_text()
    for said in ("The subject was generated", "What each stimulus told", "<td>1,1.5</td>"):
        assert said in report
    # it goes on, with the noise that it would have had
    Path("out/loop.json").write_text(json.dumps(first[:2]))
    assert simulate(stimuli=5).exit_code == 0
    assert recorded() == first


@pytest.mark.slow
def test_a_simulated_pose_is_held_against_the_best_one(subject):
    done = simulate(stimuli=3, goal="select", muscle="FDI", avoid_muscle="ADM", missed=0.5)
    assert done.exit_code == 0, done.output
    table = pd.read_csv("out/truth.csv", index_col=0)
    assert list(table.index) == ["FDI", "ADM"]
    assert "share of the target's MEP at the pose: 0.8, 100% of 0.8 at the best pose there is" in done.output
    assert any(mep is None for row in recorded() for mep in row[2])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"stimuli": 0}, "--stimuli: 0"),
        ({"missed": 1}, "--missed: 1; give a share of 0 to 1"),
        ({"modes": 1}, "--modes: 1; must be at least 2"),
        ({"intensity": 0}, "--intensity: 0; give a positive number"),
        ({"intensity": "1.5,1"}, "--intensity: '1.5,1'; give one number (resting motor thresholds), or LOWEST,HIGHEST"),
        ({"threshold": "15 V/m per A/us"}, "--threshold: 15 V/m per A/us; a generated subject takes V/m or V/cm"),
        ({"goal": "hotspot"}, "--muscle: missing"),
        ({"goal": "threshold", "muscle": "FDI", "intensity": 1}, "--intensity: --goal threshold needs LOWEST,HIGHEST"),
        ({"goal": "hotspot", "muscle": "APL"}, "--muscle: 'APL'; choose one of 'FDI', 'ADM', 'APB'"),
    ],
)
def test_bad_input_of_a_simulation_is_one_line(subject, options, said):
    done = simulate(**options)
    assert done.exit_code == 2, done.output
    line = done.output.splitlines()[-1]
    assert line.startswith("jaxm2m design simulate: ")
    assert said in line


@pytest.mark.slow
def test_the_loop_itself_proposes_the_same_however_it_is_fed(tmp_path, monkeypatch, poses):
    """No stand-in: the same proposals, bit by bit, whether the session was watched or read a row at a time."""
    monkeypatch.chdir(tmp_path)
    conducting = SimpleNamespace(scalp=cheap_map().scalp, space="subject")
    at_roi = cheap_map()
    monkeypatch.setattr(_design_input, "load", lambda *args, **options: make_setup((conducting, at_roi), args[3]))
    Path("basis.h5").write_text("a basis")
    Path("head.nii.gz").write_text("a head")
    options = {"muscles": "FDI,ADM", "threshold": "60 V/m", "didt": "5e7,1e8"}
    proposed = []
    for n in range(4):
        write_brainsight(n, poses)
        done = run("next", session="export.txt", out="a", **options)
        assert done.exit_code == 0, done.output
        proposed.append(Path("a/next.json").read_text())
    steps = [partial(write_brainsight, n, poses) for n in range(1, 4)]
    write_brainsight(0, poses)
    growing = Growing(monkeypatch, steps, "b")
    done = run("next", watch="export.txt", out="b", **options)
    assert done.exit_code == 0, done.output
    assert [text for k, text in enumerate(growing.seen) if text not in growing.seen[:k]] == proposed
    assert "3 stimuli; stopped by Ctrl-C" in done.output
    assert Path("a/stimuli.csv").read_text() == Path("b/stimuli.csv").read_text()
    assert set(pd.read_csv("b/stimuli.csv")["didt"] / 1e6) <= {50.0, 62.9961, 79.3701, 100.0}
    assert {"hotspots.csv", "model.h5", "report.html"} <= {p.name for p in Path("b").iterdir()}
    assert jm.muscle.load("b/model.h5").muscles == MUSCLES


@pytest.mark.slow
def test_a_session_on_a_generated_subject(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    at_roi = cheap_map()
    conducting = SimpleNamespace(scalp=at_roi.scalp, space="subject")
    monkeypatch.setattr(_design_input, "load", lambda *args, **options: make_setup((conducting, at_roi), args[3]))
    Path("basis.h5").write_text("a basis")
    done = simulate(stimuli=11, seed=2)
    assert done.exit_code == 0, done.output
    assert re.search(r"hot spots: \d+\.\d mm off the truth \(median of \d+ muscles\)", done.output)
    assert pd.read_csv("out/truth.csv", index_col=0)["error"].median() < 15


@pytest.mark.slow
def test_a_threshold_of_a_generated_subject(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    at_roi = cheap_map()
    conducting = SimpleNamespace(scalp=at_roi.scalp, space="subject")
    monkeypatch.setattr(_design_input, "load", lambda *args, **options: make_setup((conducting, at_roi), args[3]))
    Path("basis.h5").write_text("a basis")
    done = simulate(stimuli=30, seed=2, goal="threshold", muscle="FDI")
    assert done.exit_code == 0, done.output
    table = pd.read_csv("out/truth.csv", index_col=0).loc["FDI"]
    assert 0.9 < table["threshold_a_per_s"] / table["true_a_per_s"] < 1.1
    assert re.search(r"threshold: \d+ A/µs, [+-]\d\.\d% off the truth, which lies (in|out)side", done.output)
