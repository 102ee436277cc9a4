"""What `jaxm2m design` reads: head, coil, basis, rate and goal, refused before anything is computed."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxm2m.cli import _arguments
from jaxm2m.cli._design_intensity import Limits

if TYPE_CHECKING:
    import numpy as np

    from jaxm2m.coil import Coil
    from jaxm2m.cortex import FiringRate
    from jaxm2m.design import Loop
    from jaxm2m.efield import FieldMap, Grid
    from jaxm2m.head import Head, MeshHead

HANDLE = "-1,-1,0"
_LIMIT = 0.02  # largest error of a field, of a basis of few modes that only a generated subject sees
SHAPE, STEP = (24, 24, 24), 2.0  # of the grid of a basis that is built: 48 mm
SPACES = {"brainsight": ("subject", "MNI152", "Talairach"), "localite": ("subject", "MNI152")}
SUFFIXES = {"brainsight": ".txt", "localite": ".xml"}
# arguments of a loop, and the options that they came from
_OPTIONS = {
    "at_roi": "--basis",
    "target": "--target",
    "muscle": "--muscle",
    "muscles": "--muscles",
    "avoid_muscle": "--avoid-muscle",
    "didt": "--didt",
    "stop": "--stop",
    "n_stimulus": "--n-stimulus",
    "n": "--n",
    "radius": "--radius",
    "handle": "--handle",
    "avoid": "--avoid",
    "directory": "--out",
    "pose": "--pose",
    "rule": "--rule",
    "goal": "--goal",
}


@dataclass(frozen=True)
class Goal:
    """What a session is for, and how it goes on.

    Attributes
    ----------
    goal, rule
        As of `design.Loop`.
    muscle, avoid_muscle
        Names.
    stop, n_stimulus, largest_move, largest_turn
        As of `design.Loop`.
    pose
        A file with that of a threshold.
    """

    goal: str
    rule: str | None
    muscle: tuple[str, ...]
    avoid_muscle: tuple[str, ...]
    stop: float | None
    n_stimulus: int
    largest_move: float | None
    largest_turn: float | None
    pose: Path | None = None

    def check(self, count: str = "--n-stimulus") -> None:
        """Refuse what no loop takes, in the words of the options; `count` is that of the number of stimuli."""
        import jaxm2m as jm
        from jaxm2m import _check

        _check.option(self.goal, jm.design.GOALS, "--goal")
        if self.rule is not None:
            _check.option(self.rule, (jm.design.INFORMATION, jm.design.THOMPSON, *jm.design.RULES), "--rule")
        _check.integer(self.n_stimulus, count, minimum=1)
        _arguments.check_positive(
            {"--stop": self.stop, "--largest-move": self.largest_move, "--largest-turn": self.largest_turn}
        )
        if self.goal != "map" and not self.muscle:
            raise ValueError(f"--muscle: missing; --goal {self.goal} asks for the muscle that should answer.")
        if bool(self.avoid_muscle) != (self.goal == "select"):
            what = "asks for those that should not answer" if self.goal == "select" else "spares none; leave it out"
            raise ValueError(f"--avoid-muscle: --goal {self.goal} {what}.")
        if self.stop is not None and self.goal != "map" and not self.stop < 1:
            what = "its interval's half width as a share of it" if self.goal == "threshold" else "a share of the draws"
            raise ValueError(f"--stop: {self.stop:g}; with --goal {self.goal} it is {what}, under 1.")
        if self.goal == "threshold" and (len(self.muscle) > 1 or self.rule not in (None, jm.design.INFORMATION)):
            option = "--muscle" if len(self.muscle) > 1 else "--rule"
            raise ValueError(f"{option}: a threshold is that of one muscle, hunted by information; leave the rest out.")
        if self.pose is not None:
            if self.goal != "threshold":
                raise ValueError(f"--pose: not used with --goal {self.goal}, which chooses poses; leave it out.")
            _check.file(self.pose, "--pose")

    def load_pose(self, space: str) -> "np.ndarray | None":
        """Load the one pose of the file, mm, in the head's space; None where there is no file."""
        import jaxm2m as jm

        if self.pose is None:
            return None
        poses, there = jm.session.load_poses(self.pose)
        if len(poses) != 1:
            raise ValueError(f"--pose: {self.pose} holds {len(poses)} poses; give a file with one.")
        if there is not None and there != space:
            raise ValueError(f"--pose: {self.pose} is in {there!r} space, the head in {space!r}; bring it into that.")
        return poses[0]

    def describe(self) -> str:
        """Name what the session is for."""
        wanted = " and ".join(self.muscle) or "all muscles"
        if self.goal == "map":
            return f"a map of {wanted}"
        if self.goal == "hotspot":
            return f"the best pose for {wanted}"
        if self.goal == "select":
            return f"a pose for {wanted} that spares {' and '.join(self.avoid_muscle)}"
        return f"the motor threshold of {wanted}"

    def settings(self, muscles: Sequence[str], loop: "Loop") -> dict[str, Any]:
        """What was asked for, for the report; what was left out as the loop has it."""
        return {
            "goal": self.goal,
            "rule": loop.rule,
            "muscles": ", ".join(muscles),
            "muscle": ", ".join(self.muscle),
            "avoid_muscle": ", ".join(self.avoid_muscle),
            "stop": loop.stop,
            "pose": None if self.pose is None else self.pose.name,
            "n_stimulus": self.n_stimulus,
            "largest_move_mm": self.largest_move,
            "largest_turn_degrees": self.largest_turn,
        }

    def check_muscles(self, muscles: Sequence[str]) -> None:
        """Refuse muscles that are not recorded."""
        from jaxm2m import _check

        for option, names in (("--muscle", self.muscle), ("--avoid-muscle", self.avoid_muscle)):
            for name in names:
                _check.option(name, tuple(muscles), option)
        both = set(self.muscle) & set(self.avoid_muscle)
        if both:
            raise ValueError(f"--avoid-muscle: {', '.join(sorted(both))} should answer too; name others.")


@dataclass(frozen=True)
class Patch:
    """Where the coil may go.

    Attributes
    ----------
    target
        Millimetres, or the name of an electrode.
    handle
        Where the handle points at a turn of zero.
    radius, distance
        mm.
    avoid
        (centre, radius) mm.
    """

    target: Any
    handle: tuple[float, ...]
    radius: float
    distance: float
    avoid: tuple[tuple[tuple[float, ...], float], ...]

    @classmethod
    def parse(cls, target: str, handle: str, radius: float, distance: float, avoid: list[str] | None) -> "Patch":
        """Read the options."""
        where: Any = target
        if "," in target:
            where = _arguments.parse_numbers(target, "--target", "X,Y,Z in mm", count=3)
        along = _arguments.parse_numbers(handle, "--handle", "X,Y,Z", count=3)
        if not any(along):
            raise ValueError("--handle: 0,0,0 points nowhere; give a vector.")
        balls = [_arguments.parse_numbers(ball, "--avoid", "X,Y,Z,R in mm", count=4) for ball in avoid or []]
        _arguments.check_positive({"--radius": radius, "--avoid": min((ball[3] for ball in balls), default=None)})
        if not 0 <= distance < 100:
            raise ValueError(f"--distance: {distance:g} mm; give 0 to 100.")
        return cls(where, along, radius, distance, tuple((ball[:3], ball[3]) for ball in balls))


@dataclass(frozen=True)
class Setup:
    """Head, coil and field of a session.

    Attributes
    ----------
    head
        With its scalp and its coordinate space.
    coil
        The coil as its file has it.
    at_roi
        Its field.
    grid
        Of the map's points, where they are one.
    target
        (3,) mm.
    patch
        Where the coil may go.
    """

    head: "Head | MeshHead"
    coil: "Coil"
    at_roi: "FieldMap"
    grid: "Grid | None"
    target: "np.ndarray"
    patch: Patch

    @property
    def arguments(self) -> dict[str, Any]:
        """What `design.Loop` and `design.plan` both take."""
        return {
            "coil": self.coil,
            "scalp": self.head.scalp,
            "target": self.target,
            "handle": self.patch.handle,
            "radius": self.patch.radius,
            "distance": self.patch.distance,
            "avoid": self.patch.avoid,
        }

    def describe(
        self, basis: Path | None, threshold: str | None, levels: "np.ndarray", seed: int
    ) -> dict[str, Any]:  # fmt: skip
        """What it was made of, for the report; `levels` are the dI/dt that stimuli may have, A/s."""
        return {
            "head_space": self.head.space,
            "coil": str(self.coil.metadata.get("name", "")),
            "basis": None if basis is None else basis.name,
            "target_mm": _arguments.format_vector(self.target),
            "handle": _arguments.format_vector(self.patch.handle),
            "radius_mm": self.patch.radius,
            "distance_mm": self.patch.distance,
            "threshold": threshold,
            "didt_a_per_s": ", ".join(f"{level:.4g}" for level in levels),
            "seed": seed,
        }

    def make_loop(
        self,
        goal: Goal,
        *,
        muscles: Sequence[str],
        rate: "FiringRate | None",
        didt: Limits | None,
        seed: int,
        directory: Path | None,
    ) -> "Loop":
        """Make the loop, or go on with that of the directory."""
        import jax

        import jaxm2m as jm

        with name_options():
            return jm.design.Loop(
                self.at_roi,
                **self.arguments,
                muscles=tuple(muscles),
                key=jax.random.key(seed),
                rate=rate,
                goal=goal.goal,
                muscle=goal.muscle or None,
                avoid_muscle=goal.avoid_muscle,
                didt=didt[0] if didt is not None and len(didt) == 1 else didt,
                rule=goal.rule,
                largest_move=goal.largest_move,
                largest_turn=goal.largest_turn,
                pose=goal.load_pose(self.head.space),
                stop=goal.stop,
                n_stimulus=goal.n_stimulus,
                grid=self.grid,
                directory=directory,
            )


@contextmanager
def name_options() -> Iterator[None]:
    """Name the option where an error names the argument that it became."""
    try:
        yield
    except ValueError as error:
        argument, colon, rest = str(error).partition(": ")
        if not colon or argument not in _OPTIONS:
            raise
        raise type(error)(f"{_OPTIONS[argument]}: {rest}") from error


@contextmanager
def lock_folder(out: Path) -> Iterator[None]:
    """Keep other sessions out of the folder while the block runs."""
    from jaxm2m import files

    with ExitStack() as stack:
        try:
            stack.enter_context(files.lock(out))
        except RuntimeError as error:
            raise ValueError(f"--out: {str(error).removeprefix('path: ')}") from None
        yield


def check_files(
    head: str, coil: str, basis: Path | None, *, spacing: float, space: str | None, labels: str | None, flip: bool,
    casing: Path | None,
) -> None:  # fmt: skip
    """Refuse what can be neither a head, a coil nor a basis."""
    _arguments.check_positive({"--spacing": spacing})
    _arguments.check_head(head, space, labels)
    _arguments.check_coil(coil, flip, casing)
    if basis is not None:
        from jaxm2m import _check

        _check.file(basis, "--basis", suffixes=(".h5", ".hdf5"))


def load(
    head: str, coil: str, basis: Path | None, patch: Patch, *, spacing: float = 2.0, space: str | None = None,
    labels: str | None = None, flip: bool = False, casing: Path | None = None, build: Path | None = None,
    modes: int = 120,
) -> Setup:  # fmt: skip
    """Load head, coil and basis; without a basis one is built round the target, in the file `build`."""
    import jaxm2m as jm

    driving = _arguments.load_coil(coil, flip, casing)
    jm.placement.check_zones(list(patch.avoid), driving)
    loaded = None if basis is None else jm.efield.Basis.load(basis)
    _arguments.say("the head ...")
    conducting = _arguments.load_head(head, spacing, space, labels)
    with name_options():
        centre = jm.placement.target(conducting, patch.target)
    if isinstance(patch.target, str):
        _arguments.say(f"{patch.target}: {jm.head.electrode_source(conducting, patch.target)}.")
    sim = _arguments.make_simulator(
        conducting, None if loaded is None else loaded.metadata["settings"]["interfaces"]["value"]
    )
    if loaded is None:
        assert build is not None
        grid = jm.efield.Grid.around(centre, SHAPE, STEP)
        _arguments.say(f"a basis of {modes} modes round {_arguments.format_vector(centre)} mm: minutes, once ...")
        with _arguments.report_progress(build, modes, "modes"):
            loaded = jm.efield.Basis.build(sim, grid, build, modes=modes, rank=min(80, modes))
    else:
        loaded.check_simulator(sim, "--basis")
    roi = loaded.roi
    limit = {} if build is None else {"limit": _LIMIT}
    # a session asks for the fields of hundreds of poses, and for gradients
    quick = _arguments.tabulate_if_cheaper(driving, 1000)
    return Setup(
        conducting,
        driving,
        loaded.bind(quick, **limit),
        roi if isinstance(roi, jm.efield.Grid) else None,
        centre,
        patch,
    )


def choose_formats(space: str, wanted: str | None, option: str = "--format") -> tuple[str, ...]:
    """Which navigators' formats targets are written in: the one that is wanted, else all that can hold the space."""
    from jaxm2m import _check

    possible = tuple(name for name, spaces in SPACES.items() if space in spaces)
    if wanted is not None:
        _check.option(wanted, tuple(SPACES), option)
        if wanted not in possible:
            raise ValueError(f"{option}: {wanted}'s targets have no name for the head's space, {space!r}; see --space.")
        return (wanted,)
    return possible


def guess_format(export: Path | None) -> str | None:
    """Which navigator's an export is, by its name."""
    if export is None:
        return None
    return "localite" if export.suffix.lower() == ".xml" or export.is_dir() else "brainsight"
