"""How a search over poses went."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxm2m import _check
from jaxm2m._types import ArrayLike
from jaxm2m.plot import style

_MOVED, _TURNED = "#2456a6", "#1e8449"


def ascent(
    poses: ArrayLike, values: ArrayLike, *, label: str = "mean |E| in the target (V/m)", title: str | None = None
) -> Figure:
    """Draw the objective and the coil's movement over the accepted steps of a search.

    Parameters
    ----------
    poses
        Poses (n, 4, 4) of the coil, mm, the start first.
    values
        Objective at each pose, (n,), in the unit that `label` names.
    label
        Name of the objective, with its unit.
    title
        Title above both panels.

    Returns
    -------
    matplotlib.figure.Figure
        Two panels: the objective; how far (mm) and by how much (degrees) the coil moved from its start.

    Raises
    ------
    ValueError
        `values` has not one number for each pose.
    """
    matrices = np.asarray(_check.pose(poses, "poses"), np.float64)
    height = np.asarray(_check.finite(values, "values"), np.float64)
    if matrices.ndim != 3 or height.shape != matrices.shape[:1]:
        raise ValueError(f"values: shape {height.shape} for poses of shape {matrices.shape}; give one for each pose.")
    step = np.arange(len(height))
    shift = np.linalg.norm(matrices[:, :3, 3] - matrices[0, :3, 3], axis=1)
    relative = matrices[0, :3, :3].T @ matrices[:, :3, :3]
    turn = np.degrees(np.arccos(np.clip((np.trace(relative, axis1=1, axis2=2) - 1) / 2, -1, 1)))

    figure = style.figure(8.4, 3.2)
    tall = 0.67 if title else 0.77
    left = figure.add_axes((0.085, 0.16, 0.37, tall))
    right = figure.add_axes((0.56, 0.16, 0.37, tall))
    left.plot(step, height, "o-", color="#c4283a", markersize=4.5, linewidth=1.6, clip_on=False)
    left.set_ylabel(label, fontsize=9)
    if len(height) > 1 and height[0] != 0:
        gain = f"{100 * (height[-1] / height[0] - 1):+.1f} %".replace("-", "\N{MINUS SIGN}")
        left.text(0.98, 0.05, gain, transform=left.transAxes, ha="right", fontsize=11, color=style.INK)
    right.plot(step, shift, "o-", color=_MOVED, markersize=4.5, linewidth=1.6, clip_on=False)
    right.set_ylabel("moved (mm)", fontsize=9, color=_MOVED)
    twin = right.twinx()
    twin.plot(step, turn, "s--", color=_TURNED, markersize=4, linewidth=1.4, clip_on=False)
    twin.set_ylabel("turned (degrees)", fontsize=9, color=_TURNED)
    for ax in (left, right, twin):
        ax.set_xlabel("accepted step", fontsize=9)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.tick_params(labelsize=8)
        ax.set_xlim(-0.3, max(len(step) - 0.7, 0.7))
        ax.spines["top"].set_visible(False)
    for ax, room in ((right, 1.0), (twin, 1.25)):  # over a round head both go the same way: one would hide the other
        ax.set_ylim(0, room * max(ax.get_ylim()[1], 1e-3))
    left.spines["right"].set_visible(False)
    if title:
        figure.suptitle(title, fontsize=11, color=style.INK, y=0.97)
    return figure
