"""The demo's head, coil, field and basis."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from jaxm2m.cli import _arguments
from jaxm2m.cli.demo import _settings as about
from jaxm2m.cli.demo._results import Fields

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from jaxm2m.cli.demo._stages import Stages


def compute_fields(out: Path, size: about.Size, stages: "Stages") -> Fields:
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
        said.append(
            f"{coil.metadata['name']}, {about.DISTANCE:g} mm over the scalp at "
            f"{_arguments.format_vector(hot_spot[:3, 3])} mm"
        )
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


def prepare_figures(fields: Fields) -> dict[str, Callable[[], "Figure"]]:
    """Name -> what draws it."""
    import jaxm2m as jm

    return {
        "pose.png": lambda: jm.plot.pose(fields.head, fields.coil, fields.hot_spot, target=about.TARGET),
        "slices.png": lambda: jm.plot.slices(fields.field, about.TARGET),
    }
