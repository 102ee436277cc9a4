"""The widget: its traits are the state of the coil that is moved; what they say of it comes from `placement`."""

import threading
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import traitlets
from jaxtyping import Float

from jaxm2m._types import ArrayLike, PathLike
from jaxm2m.coil import Coil
from jaxm2m.files import atomic
from jaxm2m.head import Head, MeshHead
from jaxm2m.placement import Controls, Explorer, PoseReport
from jaxm2m.plot import style
from jaxm2m.plot._live import _export, _page, _saved
from jaxm2m.plot._live._answer import CONTROLS, finite_or_none, make_answer, select_values
from jaxm2m.plot._live._recording import Recording
from jaxm2m.plot._live._server import Server
from jaxm2m.plot._pose import pose as draw_pose

_STEPS = 10  # values with gradients of a climb
_PAUSE = 0.07  # s between two steps that are shown
# the state that a page needs
STATE = (
    *CONTROLS, "component", "limit", "stimulus", "request", "answer", "field", "kept", "meshes", "ranges", "muscles",
    "formats", "n_stimulus", "has_loop", "offline", "still",
)  # fmt: skip


class LiveView(anywidget.AnyWidget):
    """A coil over a head that a person moves; made by `plot.live`.

    Its state is traits, which can be linked to those of other widgets.

    Attributes
    ----------
    x, y, turn, tilt_x, tilt_y, distance, didt
        Where the coil is and how it is driven: mm, degrees, A/s, as in `placement.Controls`.
    component
        What colours the cortex: "magnitude", or "normal", the part along its outward normal.
    limit
        Upper end of the colours, V/m.
    stimulus
        Number of the recorded stimulus that is shown, from 1; 0: the coil as it is moved.
    kept
        The poses that were kept: dicts of "name", "pose" (16 numbers, mm, row by row), "mean" (V/m) and "controls".
    answer
        What is known of the pose: "pose", "mean", "percentile", "gradient", "clearance", "error", "meps", ...
    field
        Octets of the coloured vertices' values, V/m (float32).
    """

    _esm = _page.read_module()
    _css = _page.read_style()

    x = traitlets.Float(0.0).tag(sync=True)
    y = traitlets.Float(0.0).tag(sync=True)
    turn = traitlets.Float(0.0).tag(sync=True)
    tilt_x = traitlets.Float(0.0).tag(sync=True)
    tilt_y = traitlets.Float(0.0).tag(sync=True)
    distance = traitlets.Float(4.0).tag(sync=True)
    didt = traitlets.Float(1e6).tag(sync=True)
    component = traitlets.Enum(("magnitude", "normal"), "magnitude").tag(sync=True)
    limit = traitlets.Float(1.0).tag(sync=True)
    stimulus = traitlets.Int(0).tag(sync=True)
    request = traitlets.Int(0).tag(sync=True)
    answer = traitlets.Dict().tag(sync=True)
    field = traitlets.Bytes(b"").tag(sync=True)
    kept = traitlets.List().tag(sync=True)
    meshes = traitlets.Dict().tag(sync=True)
    ranges = traitlets.Dict().tag(sync=True)
    muscles = traitlets.List().tag(sync=True)
    formats = traitlets.Dict().tag(sync=True)
    n_stimulus = traitlets.Int(0).tag(sync=True)
    has_loop = traitlets.Bool(False).tag(sync=True)
    offline = traitlets.Bool(False).tag(sync=True)
    still = traitlets.Bytes(b"").tag(sync=True)

    def __init__(
        self,
        head: Head | MeshHead,
        coil: Coil,
        explorer: Explorer,
        meshes: dict[str, Any],
        ranges: dict[str, list[float]],
        *,
        didt: float,
        loop: Any = None,
        recording: Recording | None = None,
    ):
        super().__init__()
        self._head, self._coil, self._explorer, self._loop, self._recording = head, coil, explorer, loop, recording
        self._lock, self._buttons = threading.RLock(), threading.Lock()
        self._described: Any = None
        self._count = 0
        self._report: PoseReport = explorer.report(Controls(didt=didt))
        muscles = explorer.muscles or (recording.muscles if recording else ())
        with self.hold_sync():
            self.didt, self.meshes, self.ranges, self.muscles = didt, meshes, ranges, list(muscles)
            self.formats, self.has_loop = _export.list_formats(head.space), loop is not None
            self.n_stimulus = 0 if recording is None else len(recording)
            self.limit = _choose_limit(self._report.magnitude)
            self._describe()
        self.observe(self._follow, [*CONTROLS, "component", "stimulus", "request"])
        self.on_msg(self._handle)

    @traitlets.validate(*CONTROLS)
    def _keep_in_range(self, proposal: Any) -> float:
        value = proposal["value"]
        if not np.isfinite(value):
            raise traitlets.TraitError(f"{proposal['trait'].name}: {value}; give a finite number.")
        low, high = self.ranges.get(proposal["trait"].name, (-np.inf, np.inf))
        return float(np.clip(value, low, high))

    @property
    def controls(self) -> Controls:
        """Where the coil is, as `placement.Controls` (mm, degrees, A/s)."""
        return Controls(*(getattr(self, name) for name in CONTROLS))

    @property
    def pose(self) -> Float[np.ndarray, "4 4"]:
        """The pose (4, 4) that is shown, mm."""
        return np.asarray(self._report.pose, np.float64)

    @property
    def poses(self) -> Float[np.ndarray, "n 4 4"]:
        """The poses (n, 4, 4) that were kept, mm, as `efield.compute_fields` takes them."""
        return np.array([entry["pose"] for entry in self.kept], np.float64).reshape(-1, 4, 4)

    def move_to(self, pose: ArrayLike, didt: float | int | None = None) -> None:
        """Bring the coil over the place of a pose, as far from the scalp and turned as it is, without tilts.

        Parameters
        ----------
        pose
            (4, 4) coil frame to world, mm.
        didt
            A/s; by default as it is.
        """
        located = self._explorer.locate(pose, Controls(didt=self.didt if didt is None else float(didt)))
        self._set(located._replace(distance=float(self._head.scalp.distance(np.asarray(pose)[:3, 3]))))

    def reset(self) -> None:
        """Bring the coil back to where it began; dI/dt stays."""
        self._set(Controls(didt=self.didt))

    def climb(self, steps: int = _STEPS) -> None:
        """Climb a few steps of the placement search, and show each.

        Parameters
        ----------
        steps
            Number of values with gradients that the search may take.
        """
        path, request = self._explorer.climb(self.controls, steps), self.request
        if len(path) < 2:
            self._describe("no step up from here" if path else "no climb: the field is not known here")
            return
        values = []
        for controls in path:
            if self.request != request:  # whoever moves the coil meanwhile has it
                return
            self._set(controls)
            values.append(float(self._report.value))
            time.sleep(_PAUSE)
        gain = 100 * (values[-1] / values[0] - 1)
        self._describe(f"climbed {len(path) - 1} steps: {gain:+.1f} %".replace("-", "\N{MINUS SIGN}"))

    def next_stimulus(self) -> None:
        """Bring the coil to the stimulus that the loop proposes.

        Raises
        ------
        ValueError
            The widget has no loop.
        """
        if self._loop is None:
            raise ValueError("loop: missing; pass a design.Loop to plot.live.")
        if self._loop.done:
            self._describe(f"the loop is done: {self._loop.reason}")
            return
        pose, didt = self._loop.next()
        self.move_to(pose, didt)
        self._describe(f"stimulus {len(self._loop) + 1}: {didt / 1e6:.4g} A/\N{MICRO SIGN}s, at the pose shown")

    def keep(self, name: str | None = None) -> None:
        """Add the pose that is shown to those that are kept.

        Parameters
        ----------
        name
            What it is called; by default "pose 1", "pose 2", ...
        """
        taken = {entry["name"] for entry in self.kept}
        number = next(n for n in range(1, len(taken) + 2) if f"pose {n}" not in taken)
        controls = self.controls
        if self.stimulus and self._recording is not None:  # going back to it is as near as the controls come
            driven = self._recording.look_up(self.stimulus - 1).didt
            controls = self._explorer.locate(self.pose, Controls(didt=self.didt if driven is None else driven))
        entry = {
            "name": name or f"pose {number}",
            "pose": self.pose.ravel().tolist(),
            "mean": finite_or_none(self._report.mean),
            "controls": controls._asdict(),
        }
        self.kept = [*self.kept, entry]

    def export(self, path: PathLike, *, format: str | None = None) -> Path:
        """Write the kept poses for a navigator or a script.

        Parameters
        ----------
        path
            The file to make; `.npy` for poses (n, 4, 4), else as `session.save_targets` writes it.
        format
            As in `session.save_targets`, or "npy"; by default by the suffix.

        Returns
        -------
        pathlib.Path
            The file.

        Raises
        ------
        ValueError
            No pose was kept, or a format that the head's space has no name in.
        """
        return _export.write_poses(path, self.poses, [entry["name"] for entry in self.kept], self._head.space, format)

    def save(self, path: PathLike) -> Path:
        """Write one page that can be opened without Python and without a network.

        It shows the coil as it is, the poses that were kept, and the recorded session; the view can be turned, the coil
        not be moved.

        Parameters
        ----------
        path
            `.html`.

        Returns
        -------
        pathlib.Path
            The file.
        """
        target = Path(path).expanduser()
        if target.suffix.lower() not in (".html", ".htm"):
            raise ValueError(f"path: {target} does not end in .html; name a page.")
        text = _saved.write_page(self, self._explorer, self._recording)
        with atomic(target) as temporary:
            temporary.write_text(text, encoding="utf-8")
        return target

    def serve(self, port: int = 0) -> Server:
        """Make a page of this machine's loopback address, which no other machine can open.

        Parameters
        ----------
        port
            To listen on; 0 takes one that is free.

        Returns
        -------
        Server
            Its `url` holds the token that every request needs; `start` answers in a thread, `serve` until interrupted,
            and `close` ends it.
        """
        return Server(self, STATE, port)

    def draw_still(self) -> bytes:
        """Draw the figure that stands in where a browser cannot draw the scene.

        Returns
        -------
        bytes
            A picture, PNG.
        """
        file = BytesIO()
        draw_pose(self._head, self._coil, self.pose, target=self._explorer.target).savefig(file, format="png")
        return file.getvalue()

    def take_changes(self, changes: dict[str, Any]) -> None:
        """Take changes of the state from a page, all at once.

        Parameters
        ----------
        changes
            Values by the names of traits.

        Raises
        ------
        ValueError
            A value that a trait does not take.
        """
        try:
            with self._lock, self.hold_trait_notifications():
                for name, value in changes.items():
                    setattr(self, name, value)
        except traitlets.TraitError as error:
            raise ValueError(str(error)) from None

    def take_message(self, content: dict[str, Any]) -> None:
        """Do what a button of a page asks for; what is wrong is said in the page.

        Parameters
        ----------
        content
            The button as "type", and what it is of.
        """
        self._handle(self, content, [])

    def _set(self, controls: Controls) -> None:
        with self._lock, self.hold_trait_notifications():
            self.stimulus = 0
            for name, value in controls._asdict().items():
                setattr(self, name, float(value))

    def _follow(self, _: Any = None) -> None:
        with self._lock:
            # one move may change several traits, each of which calls
            state = (self.controls, self.component, self.stimulus, self.request)
            if state == self._described:
                return
            self._describe()

    def _describe(self, message: str = "") -> None:
        """Answer with what is known of the pose."""
        with self._lock, self.hold_sync():
            self._described = (self.controls, self.component, self.stimulus, self.request)
            recorded: dict[str, Any] = {}
            if self.stimulus and self._recording is not None:
                stimulus = self._recording.look_up(min(self.stimulus, len(self._recording)) - 1)
                didt = self.didt if stimulus.didt is None else stimulus.didt
                self._report = self._explorer.report_pose(stimulus.pose, didt)
                recorded = {"recorded": [stimulus.meps.get(name) for name in self.muscles]}
                message = message or _describe_stimulus(self.stimulus, stimulus.didt)
            else:
                self._report = self._explorer.report(self.controls)
            self._count += 1
            self.field = select_values(self._report, self.component).astype("<f4").tobytes()
            self.answer = {
                **make_answer(self._report, message), **recorded, "request": self.request, "count": self._count,
            }  # fmt: skip

    def _handle(self, _: Any, content: dict[str, Any], buffers: Any) -> None:
        """Do what a button asks for; what is wrong is said in the page."""
        with self._buttons:  # one after the other, also where pages ask in threads of their own
            self._press(content)

    def _press(self, content: dict[str, Any]) -> None:
        try:
            kind, index = content.get("type"), content.get("index")
            if kind in ("climb", "reset", "keep"):
                {"climb": self.climb, "reset": self.reset, "keep": self.keep}[kind]()
            elif kind == "next":
                self.next_stimulus()
            elif kind in ("go", "remove") and isinstance(index, int) and 0 <= index < len(self.kept):
                if kind == "go":
                    self._set(Controls(**self.kept[index]["controls"]))
                else:
                    self.kept = [entry for i, entry in enumerate(self.kept) if i != index]
            elif kind == "export" and content.get("format") in self.formats:
                name, octets = _export.format_poses(
                    self.poses, [entry["name"] for entry in self.kept], self._head.space, content["format"]
                )
                self.send({"type": "file", "name": name}, [octets])
            elif kind == "still":
                self.still = self.draw_still()
        except (ValueError, RuntimeError, OSError) as error:
            self._describe(str(error))


def _choose_limit(magnitude: np.ndarray) -> float:
    known = magnitude[np.isfinite(magnitude)]
    return float(f"{1.1 * style.limit_of(known):.2g}")


def _describe_stimulus(number: int, didt: float | None) -> str:
    driven = "dI/dt not recorded: that of the slider" if didt is None else f"{didt / 1e6:.4g} A/\N{MICRO SIGN}s"
    return f"recorded stimulus {number}: {driven}"
