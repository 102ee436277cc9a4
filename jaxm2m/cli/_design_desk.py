"""What a session leaves in its folder: the next target with a small figure, and at the end what is known."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxm2m.cli import _arguments, _design_input, _design_report
from jaxm2m.cli._design_intensity import describe_didt, to_percent

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.figure import Figure

    from jaxm2m.cli._design_input import Setup
    from jaxm2m.coil import Stimulator
    from jaxm2m.design import Loop

PROPOSAL = "next_stimulus.json"
_LEAST = 50.0  # uV, of a response
_ATTEMPTS = 10  # to replace a target
_SHOWN = 4  # muscles in a figure


@dataclass
class Desk:
    """The folder of a session.

    Attributes
    ----------
    out
        The folder.
    setup
        Head, coil and field.
    goal, muscles
        What is asked for: the words of the goal, and the muscles that figures are of.
    formats
        Navigators' formats of the next target.
    settings
        For the report.
    stimulator
        What leads from dI/dt to %MSO; None: not known.
    source
        Where poses and MEPs came from, a sentence for the methods.
    source_space
        What Brainsight's file calls the space; None: the usual name.
    """

    out: Path
    setup: "Setup"
    goal: str
    muscles: tuple[str, ...]
    formats: tuple[str, ...]
    settings: dict[str, Any]
    stimulator: "Stimulator | None" = None
    source: str = "Poses are those that the navigator recorded."
    source_space: str | None = None

    @property
    def standing(self) -> float | None:
        """dI/dt of the proposal that stands, A/s; None where none does."""
        from jaxm2m import files

        path = self.out / PROPOSAL
        if not path.exists():
            return None
        try:
            return float(files.read_json(path, "--out")["didt_a_per_s"])
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"--out: {path} is no proposal; remove it, and the next one is written.") from None

    def read_didt(self, loop: "Loop") -> float:
        """dI/dt of a stimulus that the navigator tells nothing of, A/s: that of the proposal that stands."""
        standing = self.standing
        if standing is None and len(loop.levels) > 1:
            raise ValueError(
                "--didt: LOWEST,HIGHEST, and the export has a stimulus from before the first proposal, of no dI/dt and "
                "no %MSO (or 100 %MSO is not known, --largest-didt), so that its intensity is not known; give one "
                "number, or an export that begins with the session."
            )
        return float(loop.levels[0]) if standing is None else standing

    def propose(self, loop: "Loop", prepare: Callable[[], None] = lambda: None) -> None:
        """Write the next target; the one before stands until then, also while `prepare` is called."""
        import numpy as np

        start = time.monotonic()
        pose, didt = loop.next()
        number, seconds = len(loop) + 1, time.monotonic() - start
        strength, table = describe_didt(didt, self.stimulator), loop.table()
        picture = draw_session(self.setup, table, self.muscles, pose, f"stimulus {number}: {strength}")
        prepare()
        self.save_targets("next", pose, [f"jaxm2m {number}"])
        self._save_proposal(number, pose, didt)
        self._save_picture("next.png", picture)
        _write_csv(self.out / "stimuli.csv", table)
        line = f"next: stimulus {number} at {_arguments.format_vector(pose[:3, 3].round(1))} mm, {strength}"
        if len(table):
            moved = float(np.linalg.norm(pose[:3, 3] - table[["x", "y", "z"]].to_numpy(float)[-1]))
            line += f", {moved:.0f} mm from the last"
        line += f"; {seconds:.1f} s; {self.write_progress(loop)}"
        _arguments.say(line)
        with (self.out / "log.txt").open("a", encoding="utf-8") as log:
            log.write(f"{line}\n")

    def _save_proposal(self, number: int, pose: "np.ndarray", didt: float) -> None:
        """Write the proposal with its intensity, for scripts and for this command when it goes on."""
        from jaxm2m import files

        content = {
            "stimulus": number,
            "pose": pose.tolist(),
            "space": self.setup.head.space,
            "didt_a_per_s": float(didt),
            "mso_percent": to_percent(didt, self.stimulator),
        }
        with files.atomic(self.out / PROPOSAL) as temporary:
            temporary.write_text(json.dumps(content, allow_nan=False), encoding="utf-8")

    def save_targets(self, stem: str, poses: Any, names: Sequence[str]) -> None:
        """Write targets for the navigators, and as JSON for scripts."""
        import jaxm2m as jm

        space = self.setup.head.space
        targets = {f"{stem}_{name}{_design_input.SUFFIXES[name]}": name for name in self.formats}
        if space in ("subject", "MNI152", "Talairach"):
            targets[f"{stem}.json"] = "json"
        for file, name in targets.items():
            source_space = self.source_space if name == "brainsight" else None
            for attempt in range(_ATTEMPTS):
                try:
                    jm.session.save_targets(
                        self.out / file, poses, names=list(names), space=space, format=name, source_space=source_space
                    )
                    break
                except PermissionError:
                    # a navigator that reads it keeps others from replacing it on some systems
                    if attempt == _ATTEMPTS - 1:
                        raise
                    time.sleep(0.2)

    def finish(self, loop: "Loop", reason: str) -> None:
        """Write what is known: stimuli, hot spots, the model of sources, the best pose or a threshold, a report."""
        import jaxm2m as jm

        table = loop.table()
        _write_csv(self.out / "stimuli.csv", table)
        if not len(loop):
            _arguments.say(f"{reason}; no stimulus was recorded. {self.out}")
            return
        text = self.write_progress(loop)
        account = _design_report.Account(self.goal, reason, self.source, self.settings, self.stimulator)
        self._save_picture("stimuli.png", draw_session(self.setup, table, self.muscles, None, f"{len(loop)} stimuli"))
        if loop.goal == "threshold":
            _write_csv(self.out / "threshold.csv", _design_report.tabulate_threshold(loop, self.stimulator))
            _design_report.write_report(self.out, account, loop)
            _arguments.say(f"{text}. {self.out}: {len(loop)} stimuli; {reason}.")
            return
        _arguments.say(f"{reason}; the posterior of {len(loop)} stimuli ...")
        posterior = loop.posterior
        hotspots = posterior.hotspots()
        _write_csv(self.out / "hotspots.csv", hotspots)
        _write_csv(self.out / "curves.csv", posterior.table())
        best = None
        if loop.goal != "map":
            try:
                best = loop.best()
            except ValueError as error:
                _arguments.say(f"no best pose yet: {error}")
        if best is not None:
            self.save_targets("best", best.pose, ["jaxm2m best"])
            _write_csv(self.out / "best.csv", best.table(), index=False)
        known = [name for name in self.muscles if name not in dict(posterior.unidentified)]
        (self.out / "sources.png").unlink(missing_ok=True)
        if known:
            self._save_picture("sources.png", jm.plot.sources(posterior, known[:_SHOWN]))
        _design_report.write_report(self.out, account, loop, posterior, best)
        posterior.save(self.out / "model.h5")  # last, since it stands for a whole set
        _arguments.say(hotspots.drop(columns="reason", errors="ignore").round(1).to_string())
        _arguments.say(f"{self.out}: {len(loop)} stimuli; {reason}.")

    def write_csv(self, name: str, table: "pd.DataFrame") -> None:
        """Write a table with its index, whole or not at all."""
        _write_csv(self.out / name, table)

    def _save_picture(self, name: str, picture: "Figure") -> None:
        from jaxm2m import files

        with files.atomic(self.out / name) as temporary:
            picture.savefig(temporary, format="png")

    def write_progress(self, loop: "Loop") -> str:
        """Add to progress.csv what is known after so many stimuli, first by the prior; the same in words."""
        import pandas as pd

        numbers, text = _design_report.measure_progress(loop)
        path = self.out / "progress.csv"
        row = pd.DataFrame([numbers], index=pd.Index([len(loop)], name="stimuli"))
        if path.exists():
            before = pd.read_csv(path, index_col=0)
            before = before[before.index < len(loop)]
            if len(before) and list(before.columns) == list(row.columns):
                row = pd.concat([before.rename_axis("stimuli"), row])
        _write_csv(path, row)
        return text


def draw_session(
    setup: "Setup", table: "pd.DataFrame", muscles: Sequence[str], poses: "np.ndarray | None", title: str
) -> "Figure":
    """Draw the stimuli over the scalp round the target, by their largest MEP, and poses to come with their handles."""
    import numpy as np

    import jaxm2m as jm
    from jaxm2m.plot import style

    frame = np.asarray(
        jm.coil.place(setup.head.scalp, setup.target, setup.patch.handle, setup.patch.distance), np.float64
    )

    def project(points: Any) -> "np.ndarray":
        # seen from outside: x of the coil to the left of its handle's prolongation
        return (np.asarray(points, float) - frame[:3, 3]) @ np.column_stack([-frame[:3, 0], frame[:3, 1]])

    figure = style.figure(4.2, 3.7)
    ax = figure.add_axes((0.14, 0.14, 0.66, 0.76))
    around = np.linspace(0, 2 * np.pi, 97)
    ax.plot(
        *setup.patch.radius * np.array([np.cos(around), np.sin(around)]), color=style.PALE, linewidth=0.7, linestyle=":"
    )
    reach = setup.patch.radius + 4
    if len(table):
        columns = [f"mep_{name}_uv" for name in muscles if f"mep_{name}_uv" in table]
        largest = table[columns].max(axis=1).to_numpy(float)
        places = project(table[["x", "y", "z"]].to_numpy(float))
        seen = np.isfinite(largest)
        reach = max(reach, float(np.abs(places).max()) + 4)
        ax.plot(*places[~seen].T, "x", color=style.PALE, markersize=4)
        top = max(2 * _LEAST, float(largest[seen].max())) if seen.any() else 2 * _LEAST
        colours = np.log10(np.maximum(largest[seen], 10.0))
        dots = ax.scatter(
            *places[seen].T, c=colours, cmap=style.FIELD, vmin=1, vmax=np.log10(top), s=22, linewidth=0.4,
            edgecolor=style.PALE, zorder=3,
        )  # fmt: skip
        bar = figure.colorbar(dots, cax=figure.add_axes((0.83, 0.14, 0.03, 0.76)))
        ticks = [tick for tick in (10, 50, 200, 1000, 5000) if tick <= top]
        bar.set_ticks([float(np.log10(tick)) for tick in ticks], labels=[f"{tick:g}" for tick in ticks])
        bar.set_label("largest MEP (\N{MICRO SIGN}V)", fontsize=8, color=style.INK)
        bar.ax.tick_params(labelsize=7, colors=style.INK)
    for pose in () if poses is None else np.reshape(poses, (-1, 4, 4)):
        (x, y), (u, v) = project([pose[:3, 3], pose[:3, 3] - 8.0 * pose[:3, 1]])
        reach = max(reach, float(np.abs([x, y, u, v]).max()) + 2)
        ax.plot([x, u], [y, v], color=style.AXES["y"], linewidth=2.2, zorder=4)
        ax.plot(x, y, "o", color="none", markeredgecolor=style.AXES["y"], markeredgewidth=1.8, markersize=10, zorder=5)
    ax.set_xlim(-reach, reach)
    ax.set_ylim(-reach, reach)
    ax.set_aspect("equal")
    ax.set_title(title, fontsize=9, color=style.INK)
    ax.set_xlabel("mm across the handle", fontsize=8, color=style.INK)
    ax.set_ylabel("mm along the handle", fontsize=8, color=style.INK)
    ax.tick_params(labelsize=7, colors=style.INK)
    ax.spines[["top", "right"]].set_visible(False)
    return figure


def _write_csv(path: Path, table: "pd.DataFrame", index: bool = True) -> None:
    from jaxm2m import files

    with files.atomic(path) as temporary:
        table.to_csv(temporary, index=index, float_format="%.6g")
