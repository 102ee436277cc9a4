"""What differs where a coil is placed for a muscle: the model's grid, its predictions, a report."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxm2m.cli import _arguments
from jaxm2m.cli._muscle_input import find_model, format_shape

if TYPE_CHECKING:
    import numpy as np

    from jaxm2m.coil import Coil
    from jaxm2m.efield import Basis, FieldMap, Grid, Simulator
    from jaxm2m.muscle import MuscleObjective
    from jaxm2m.placement import Placement

_COLUMNS = ["value", "x", "y", "z", "mm from best", "degrees from best", "starts"]  # of the table, for the report
FILES = ("fields.h5", "muscles.csv", "muscles.png", "report.html")  # beside those of every placement


@dataclass(frozen=True)
class MuscleAim:
    """Which muscles a coil is for, by which model.

    Attributes
    ----------
    path
        Where the model is.
    model
        From fields on its `grid` to the MEPs of its `muscles`.
    objective
        What is to be raised.
    wanted, spared
        Muscles that should answer, and those that should not.
    weight, least, risk
        As in `muscle.activate`.
    didt
        dI/dt of the stimulus, A/s.
    relative
        Whether the model's threshold is one of the field per dI/dt.
    reference_pose
        (4, 4) where the wanted muscles answer most, whose responses `least` is a share of; None: those of the session.
    """

    path: Path
    model: Any
    objective: "MuscleObjective"
    wanted: tuple[str, ...]
    spared: tuple[str, ...]
    weight: float
    least: float
    risk: float | None
    didt: float
    relative: bool
    reference_pose: "np.ndarray | None" = None

    @property
    def grid(self) -> "Grid":
        """The grid that the model's fields are on."""
        return self.model.grid

    @property
    def text(self) -> str:
        """What is raised, in words."""
        wanted, spared = (" and ".join(names) for names in (self.wanted, self.spared))
        text = f"share of {wanted} in {wanted} and {spared}" if spared else f"{wanted} over its largest"
        return text if self.risk is None else f"{text} ({self.risk:g} quantile)"

    @property
    def middle(self) -> tuple[float, ...]:
        """Middle of the grid, mm."""
        import numpy as np

        return tuple(map(float, np.asarray(self.grid.positions(), float).mean(0)))

    def check_basis(self, loaded: "Basis", basis: Path) -> None:
        """Refuse a basis of other points than the model's."""
        import numpy as np

        import jaxm2m as jm

        roi = loaded.roi
        if isinstance(roi, jm.efield.Grid):
            if roi.shape == tuple(self.grid.shape) and np.allclose(roi.affine, self.grid.affine, atol=1e-3):
                return
            what = f"a grid of {_describe_grid(roi)}"
        else:
            what = f"{len(roi.positions())} points"
        raise ValueError(
            f"--basis: {basis} is of {what}, the model {self.path} of {_describe_grid(self.grid)}; "
            f"{_name_build(self.grid)}, or leave it out."
        )

    def check_place(self, centre: "np.ndarray") -> None:
        """Refuse a start from which the model's grid is not under the coil."""
        import numpy as np

        affine = np.asarray(self.grid.affine, float)
        index = np.linalg.solve(affine[:3, :3], np.asarray(centre, float) - affine[:3, 3])
        if (index < -0.5).any() or (index > np.asarray(self.grid.shape) - 0.5).any():
            raise ValueError(
                f"--target: {_arguments.format_vector(centre)} mm lies outside the model's grid of "
                f"{_describe_grid(self.grid)}; leave it out to start over the grid's middle."
            )

    def refer(self, search: "Callable[[MuscleObjective], Placement]", field: "FieldMap") -> "MuscleAim":
        """Take `least` of the strongest responses that a search finds, where the model holds for poses like those.

        A session of few orientations may have reached half of what a muscle can answer. Sources hold for others, since
        they follow the field; networks know what their session showed, and keep its strongest.
        """
        import jaxm2m as jm

        if not (self.spared and isinstance(self.model, jm.muscle.Sources)):
            return self
        _arguments.say(f"first where {' and '.join(self.wanted)} answers most ...")
        pose = search(self._activate(spared=())).pose
        objective = self._activate(self.spared, field(pose, didt=self.didt))
        return replace(self, objective=objective, reference_pose=pose)

    def _activate(self, spared: tuple[str, ...], reference: Any = None) -> "MuscleObjective":
        import jaxm2m as jm

        return jm.muscle.activate(
            self.model, self.wanted, spared, weight=self.weight, least=self.least, risk=self.risk,
            reference=reference, didt=self.didt if self.relative else None,
        )  # fmt: skip

    def predict(self, e: Any) -> "np.ndarray":
        """Predict the MEPs (n_muscle,), uV, of a field (n_point, 3) V/m."""
        import numpy as np

        return np.asarray(self.model(e, didt=self.didt) if self.relative else self.model(e), np.float64)

    @property
    def settings(self) -> dict[str, Any]:
        """What was asked for, for placement.json."""
        return {
            "model": self.path.name,
            "muscle": list(self.wanted),
            "avoid_muscle": list(self.spared),
            "weight": self.weight,
            "least": self.least,
            "risk": self.risk,
            "reference_pose": None if self.reference_pose is None else self.reference_pose.tolist(),
        }

    @property
    def fingerprints(self) -> dict[str, str]:
        """What tells another time whether the model is the same."""
        import jax

        from jaxm2m import files

        return {"model": files.fingerprint(type(self.model).__name__, jax.tree.leaves(self.model))}

    def summarise(self, meps: dict[str, dict[str, float]]) -> str:
        """Tell the MEPs of the muscles that were named."""
        values = meps["predicted_uv"]
        named = ", ".join(f"{name} {values[name]:.0f}" for name in (*self.wanted, *self.spared))
        return f"predicted at the best pose: {named} \N{MICRO SIGN}V"


def load_aim(
    path: Path,
    wanted: list[str],
    spared: list[str],
    *,
    weight: float,
    least: float,
    risk: float | None,
    didt: float,
) -> MuscleAim:
    """Load the model, networks or sources, by itself or in the folder of `muscle fit`, and make the objective."""
    import jaxm2m as jm

    path = find_model(path, "--model")
    names = {"path": "--model", "muscle": "--muscle", "avoid": "--avoid-muscle"}
    with _name_options(**names, weight="--weight", least="--least", risk="--risk"):
        model = jm.muscle.load(path)
        if model.grid is None:
            raise ValueError(f"path: {path} is of points, not of a grid; search in Python (jaxm2m.muscle.activate).")
        rate = model.rate
        relative = rate is not None and rate.threshold.unit not in ("V/m", "V/cm")
        objective = jm.muscle.activate(
            model, wanted, spared, weight=weight, least=least, risk=risk, didt=didt if relative else None
        )
    return MuscleAim(path, model, objective, tuple(wanted), tuple(spared), weight, least, risk, didt, relative)


@contextmanager
def _name_options(**options: str) -> Iterator[None]:
    """Name the option where an error names the argument that it became."""
    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        argument, colon, rest = str(error).partition(": ")
        if not colon or argument not in options:
            raise
        raise type(error)(f"{options[argument]}: {rest}") from error


def _describe_grid(grid: "Grid") -> str:
    import numpy as np

    middle = np.asarray(grid.positions(), float).mean(0)
    steps = np.unique(np.linalg.norm(np.asarray(grid.affine, float)[:3, :3], axis=0).round(3))
    return (
        f"{format_shape(grid.shape)} points of {' x '.join(f'{step:g}' for step in steps)} mm round "
        f"{_arguments.format_vector(middle.round(3))} mm"
    )


def _name_build(grid: "Grid") -> str:
    """Name what builds a basis of the grid."""
    import numpy as np

    affine = np.asarray(grid.affine, float)[:3, :3]
    if not np.allclose(affine, affine[0, 0] * np.eye(3), atol=1e-4):
        return "build one of its grid with efield.Basis.build"
    middle = np.asarray(grid.positions(), float).mean(0).round(3)
    return (
        f"build one with `jaxm2m basis build --roi={','.join(f'{x:g}' for x in middle)} "
        f"--shape {','.join(map(str, grid.shape))} --step {affine[0, 0].round(4):g}`"
    )


def write(
    out: Path,
    aim: MuscleAim | None,
    placement: "Placement",
    field: "FieldMap",
    sim: "Simulator",
    coil: "Coil",
    settings: dict[str, Any],
) -> dict[str, dict[str, float]]:
    """Write the field at the best pose and what the muscles do there; return MEPs (uV) at the best pose.

    Without an aim, remove these files: those of an earlier run would not belong to the results.
    """
    if aim is None:
        for name in FILES:
            (out / name).unlink(missing_ok=True)
        return {}

    import h5py
    import numpy as np
    import pandas as pd

    import jaxm2m as jm
    from jaxm2m import files

    path = out / FILES[0]
    # beside it, since a file that an earlier run began is of another pose
    with tempfile.TemporaryDirectory(dir=out) as folder:
        new = Path(folder) / path.name
        jm.efield.compute_fields(sim, coil, placement.pose[None], new, roi=aim.grid, didt=aim.didt, progress=False)
        new.replace(path)
    with h5py.File(path) as file:
        solved = aim.predict(file["e"][0].reshape(-1, 3))
    predicted = np.stack([aim.predict(field(c.pose, didt=aim.didt)) for c in placement.ranked])
    names = aim.model.muscles
    table = pd.DataFrame(predicted, columns=[f"mep_{name}_uv" for name in names])
    table.insert(0, "value", [candidate.value for candidate in placement.ranked])
    with files.atomic(out / FILES[1]) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g")
    with files.atomic(out / FILES[2]) as temporary:
        jm.plot.responses(
            predicted[0], muscles=names, wanted=aim.wanted, spared=aim.spared, marks=solved,
            label="by a full solve", title=f"predicted at the best pose, {aim.didt / 1e6:.4g} A/\N{MICRO SIGN}s",
        ).savefig(temporary, format="png")  # fmt: skip
    meps = {
        "predicted_uv": dict(zip(names, map(float, predicted[0]), strict=True)),
        "predicted_uv_full_solve": dict(zip(names, map(float, solved), strict=True)),
    }
    _write_report(out, aim, placement, meps, settings)
    return meps


def _write_report(
    out: Path, aim: MuscleAim, placement: "Placement", meps: dict[str, dict[str, float]], settings: dict[str, Any]
) -> None:
    import pandas as pd

    import jaxm2m as jm
    from jaxm2m.cli import _report

    wanted, spared = (" and ".join(names) for names in (aim.wanted, aim.spared))
    purpose = f"A coil for {wanted}" + (f" that spares {spared}" if spared else "")
    x, y, z = placement.pose[:3, 3]
    table = pd.DataFrame(meps).rename(
        columns={"predicted_uv": "MEP (uV), the search's field", "predicted_uv_full_solve": "by a full solve"}
    )
    _report.write(
        out / FILES[3],
        purpose,
        f"jaxm2m {jm.__version__}: {aim.text} is {placement.value:.3f} with the coil at ({x:.1f}, {y:.1f}, "
        f"{z:.1f}) mm and {aim.didt / 1e6:.4g} A/\N{MICRO SIGN}s.",
        {
            "Predicted responses": [
                _report.embed_picture(out / FILES[2], "Mean MEPs that the model predicts at the best pose."),
                _report.format_table(table.rename_axis("muscle")),
                _report.format_paragraph(
                    "They are predictions of a model of one session: good where the session was, a guess at "
                    "places, orientations and intensities that it did not have. Try the pose, and the next best, "
                    "before relying on it."
                ),
            ],
            "Search": [
                _report.embed_picture(out / "search.png", "Where the starts lay and where they ended."),
                _report.format_table(placement.table().rename_axis("pose")[_COLUMNS]),
            ],
            "Settings": [
                _report.format_table({name: value for name, value in settings.items() if name != "sha256"}),
                _report.format_table(_report.find_versions("jaxm2m", "jax", "jaxlib", "numpy", "scipy")),
            ],
        },
    )
