"""What `jaxm2m design plan` leaves in its folder."""

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from jaxm2m.cli import _design_desk, _design_input

if TYPE_CHECKING:
    import pandas as pd

    from jaxm2m.cli._design_input import Setup
    from jaxm2m.cortex import FiringRate


def write_plan(
    out: Path, setup: "Setup", n: int, *, rate: "FiringRate | None", didt: float | None, seed: int,
    formats: tuple[str, ...],
) -> "pd.DataFrame":  # fmt: skip
    """Plan the poses and write them; returns a row a pose: its name, place (mm), and how far the arm moves to it."""
    import jax
    import numpy as np
    import pandas as pd

    import jaxm2m as jm
    from jaxm2m import files

    with _design_input.name_options():
        poses = np.asarray(
            jm.design.plan(
                setup.at_roi, n=n, key=jax.random.key(seed), rate=rate, didt=didt, **setup.arguments
            ),
            np.float64,
        )  # fmt: skip
    names = [f"jaxm2m {k + 1}" for k in range(len(poses))]
    table = pd.DataFrame(poses[:, :3, 3], columns=list("xyz"), index=pd.Index(names, name="target"))
    moves = [jm.placement.pose_difference(one, other) for one, other in pairwise(poses)]
    table["move_mm"], table["turn_degrees"] = np.array([(np.nan, np.nan), *moves]).reshape(-1, 2).T
    desk = _design_desk.Desk(out, setup, "", (), formats, {})
    desk.save_targets("targets", poses, names)
    desk.write_csv("table.csv", table)
    figure = _design_desk.draw_session(setup, table.iloc[:0], (), poses, f"{len(poses)} poses")
    with files.atomic(out / "plan.png") as temporary:
        figure.savefig(temporary, format="png")
    return table
