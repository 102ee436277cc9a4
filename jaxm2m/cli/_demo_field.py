"""The demo's head, coil, field and basis."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxm2m.cli import _demo_settings as about

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.figure import Figure

    from jaxm2m.cli._demo import Stages
    from jaxm2m.coil import Coil
    from jaxm2m.efield import Basis, FieldMap, Grid, Simulator
    from jaxm2m.head import Head


@dataclass(frozen=True)
class Fields:
    """What conducts, what drives, and the field of any pose.

    Attributes
    ----------
    head, coil, sim, grid, basis
        As their rooms make them.
    table
        The coil as a table of its potential, for many poses.
    hot_spot
        (4, 4) mm, the coil over the target with the usual handle.
    field
        There, at `DIDT`.
    summary
        Of this field.
    at_grid
        The field on the grid, by the basis.
    """

    head: "Head"
    coil: "Coil"
    table: "Coil"
    hot_spot: "np.ndarray"
    sim: "Simulator"
    field: Any
    summary: "pd.DataFrame"
    grid: "Grid"
    basis: "Basis"
    at_grid: "FieldMap"


def run(out: Path, size: about.Size, stages: "Stages") -> Fields:
    """From a head to a basis; writes hot_spot.txt, summary.csv and basis.h5."""
    import jax
    import numpy as np

    import jaxm2m as jm

    with stages("head") as said:
        head = jm.head.atlas(size.spacing)
        said.append(f"{' x '.join(map(str, head.shape))} voxels of {head.spacing:g} mm, {head.space}")
    with stages("coil") as said:
        coil = jm.coil.figure8()
        table = jm.coil.tabulate(coil)
        hot_spot = np.asarray(jm.coil.place(head.scalp, about.TARGET, about.HANDLE, about.DISTANCE), np.float64)
        jm.session.save_targets(out / "hot_spot.txt", hot_spot, space=head.space)
        said.append(f"{coil.notes['name']}, {about.DISTANCE:g} mm over the scalp at {shown(hot_spot[:3, 3])} mm")
    with stages("field") as said:
        sim = jm.efield.Simulator(head)
        jax.block_until_ready(sim.parts)
        field = sim(coil, hot_spot, didt=about.DIDT)
        summary = field.summary(about.TARGET, about.RADIUS)
        with jm.files.atomic(out / "summary.csv") as temporary:
            summary.to_csv(temporary)
        said.append(
            f"|E| in grey matter {summary.loc['grey', 'p99.9']:.2f} V/m (99.9th percentile) at 1 A/\N{MICRO SIGN}s, "
            f"{summary.loc['grey', 'target']:.2f} V/m in the target"
        )
    with stages("basis") as said:
        grid = jm.efield.Grid.around(about.TARGET, about.SHAPE, about.STEP)
        basis = jm.efield.Basis.build(sim, grid, out / "basis.h5", modes=size.modes, rank=min(80, size.modes))
        error = basis.accuracy["error"]
        said.append(
            f"{size.modes} solves; any coil, any pose over the hand knob; against full solves of two other coils "
            f"{error.median():.2f} % off (median), {error.max():.2f} % (largest)"
        )
    at_grid = basis.bind(table, limit=size.limit)
    return Fields(head, coil, table, hot_spot, sim, field, summary, grid, basis, at_grid)


def pictures(fields: Fields) -> dict[str, Callable[[], "Figure"]]:
    """Name -> what draws it."""
    import jaxm2m as jm

    return {
        "pose.png": lambda: jm.plot.pose(fields.head, fields.coil, fields.hot_spot, target=about.TARGET),
        "slices.png": lambda: jm.plot.slices(fields.field, about.TARGET),
    }


def shown(vector: Any) -> str:
    """A vector in words."""
    return "(" + ", ".join(f"{float(x):.4g}" for x in vector) + ")"
