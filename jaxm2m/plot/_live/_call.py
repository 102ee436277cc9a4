"""The call that makes the widget, or the figure that stands still where the extra is missing."""

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from jaxm2m._types import ArrayLike
from jaxm2m.coil import Coil, place
from jaxm2m.design import Loop
from jaxm2m.efield import FieldMap
from jaxm2m.head import Head, MeshHead
from jaxm2m.muscle import ResponseModel
from jaxm2m.placement import Controls, check_didt, explore
from jaxm2m.placement import target as find_target
from jaxm2m.plot._live._meshes import Triangulation, make_cortex, make_meshes
from jaxm2m.plot._live._recording import read_session
from jaxm2m.plot._pose import pose as draw_pose
from jaxm2m.session import Session
from jaxm2m.simulate import SimulatedSession

if TYPE_CHECKING:
    from jaxm2m.plot._live._widget import LiveView

EXTRA = "python -m pip install 'jaxm2m[live]'"
_REACH = 60.0  # mm along the scalp, which a basis covers


def live(
    head: Head | MeshHead,
    at_grid: FieldMap,
    coil: Coil,
    *,
    target: ArrayLike | str | None = None,
    model: ResponseModel | None = None,
    loop: Loop | None = None,
    session: Session | SimulatedSession | None = None,
    surface: Triangulation | None = None,
    handle: ArrayLike = (-1.0, -1.0, 0.0),
    didt: float | int = 1e6,
) -> "LiveView | Figure":
    """Hold a coil over a head: move it, and see the field on the cortex and the muscles that answer.

    A widget for notebooks (JupyterLab, VS Code), drawn by the browser. The coil is moved by sliders, by dragging it
    (with Alt it turns) or by keys, and never enters the head; an arrow on the scalp, and one round the coil, say where
    the target's field grows. Poses that the map does not cover are shown without a field. Beside it stand mean and
    percentile of |E| in the target, the casing's distance, the basis' estimated error, and the muscles' predicted mean
    MEPs with 90 % intervals. Buttons climb a few steps of the placement search, go back, keep poses, and go to the next
    stimulus of a loop; kept poses are exported to navigators, as JSON, and as poses for `efield.compute_fields`.

    `view.save("scene.html")` writes one page that opens without Python. `jaxm2m live` shows the same outside of
    notebooks.

    Parameters
    ----------
    head
        The head, of voxels or tetrahedra.
    at_grid
        The field map of the coil: `basis.bind(jm.coil.tabulate(coil))`, with which a move takes milliseconds. With the
        map of a simulator each takes three solves or four.
    coil
        The coil that is drawn, and kept out of the head.
    target
        (3,) mm or a 10-20 name, as in `placement.target`; its grey matter within 5 mm counts. By default the middle of
        the map's points.
    model
        From fields at the map's points to MEPs: `muscle.Sources` or a `muscle.Model`.
    loop
        A session that plans itself, for the button "next stimulus".
    session
        A recorded session in the head's space, whose stimuli can be gone through; or a simulated one.
    surface
        The surface that is coloured: anything with `vertices` (n, 3) mm, `triangles` (m, 3) and, if it has them,
        outward `normals` (n, 3). By default the middle of the head's grey ribbon.
    handle
        (3,) the direction in which the handle points at first, of any length (no unit).
    didt
        A/s at first.

    Returns
    -------
    LiveView
        The widget; its state is traits: `x`, `y`, `turn`, `tilt_x`, `tilt_y`, `distance`, `didt`, `component`, `limit`,
        `stimulus`, `kept`, `answer`. Without the extra "live" the figure of `plot.pose`, and a line that
        says what to install.

    Raises
    ------
    ValueError
        A target outside the head or without grey matter, a model of other points, a session in another space.
    """
    if _has_extra():
        return make_view(
            head, at_grid, coil, target=target, model=model, loop=loop, session=session, surface=surface,
            handle=handle, didt=didt,
        )  # fmt: skip
    print(f"plot.live: anywidget is missing, so this figure stands still; {EXTRA}.")
    point = _find_point(head, target)
    centre = at_grid.region.active_points().mean(0) if point is None else point
    return draw_pose(head, coil, place(head.scalp, centre, handle), target=centre)


def _has_extra() -> bool:
    try:
        import anywidget  # noqa: F401
    except ModuleNotFoundError:
        return False
    return True


def make_view(
    head: Head | MeshHead,
    at_grid: FieldMap,
    coil: Coil,
    *,
    target: Any = None,
    model: Any = None,
    loop: Any = None,
    session: Any = None,
    surface: Any = None,
    handle: ArrayLike = (-1.0, -1.0, 0.0),
    didt: float | int = 1e6,
) -> "LiveView":
    """Make the widget; arguments as in `live`."""
    from jaxm2m.plot._live._widget import LiveView

    current = float(check_didt(float(didt), coil))
    recording = None if session is None else read_session(session, head.space)
    cortex = make_cortex(head, surface)
    explorer = explore(
        at_grid, coil=coil, scalp=head.scalp, target=_find_point(head, target), handle=handle,
        vertices=cortex.vertices, normals=cortex.normals, model=model,
    )  # fmt: skip
    start = np.asarray(explorer.report(Controls(didt=current)).pose, np.float64)
    meshes = make_meshes(head, coil, cortex, explorer.inside, start, explorer.target)
    strongest = 2 * current
    if recording is not None:
        strongest = max(strongest, float(np.nanmax(recording.didt, initial=0.0)))
    limits = np.asarray(coil.didt_max)[np.isfinite(np.asarray(coil.didt_max))]
    ranges = {
        "x": [-_REACH, _REACH], "y": [-_REACH, _REACH], "turn": [-180.0, 180.0], "tilt_x": [-30.0, 30.0],
        "tilt_y": [-30.0, 30.0], "distance": [0.0, 30.0], "didt": [0.0, float(min([strongest, *limits]))],
    }  # fmt: skip
    return LiveView(head, coil, explorer, meshes, ranges, didt=current, loop=loop, recording=recording)


def _find_point(head: Head | MeshHead, target: Any) -> Any:
    return None if target is None else jnp.asarray(find_target(head, target))
