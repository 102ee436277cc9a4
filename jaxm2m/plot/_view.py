"""Head, coil and field in three dimensions, to be turned with the mouse (PyVista)."""

from typing import TYPE_CHECKING, Any

import numpy as np

from jaxm2m import _check
from jaxm2m._types import ArrayLike
from jaxm2m.coil import Coil, Dipoles, Segments
from jaxm2m.efield import Field, MeshField
from jaxm2m.head import Head, MeshHead
from jaxm2m.plot import _cortex, _scene, style

if TYPE_CHECKING:
    import pyvista

_SKIN, _BRAIN, _CASING = "#e8cdb8", "#c9c2b8", "#b9c6d3"
_ARROW = 40.0  # mm


def view(
    head: Head | MeshHead,
    coil: Coil | None = None,
    pose: ArrayLike | None = None,
    *,
    field: Field | MeshField | None = None,
    target: ArrayLike | None = None,
    limit: float | int | None = None,
) -> "pyvista.Plotter":
    """Show scalp, cortex, field and coil in an interactive view.

    The scalp is drawn as glass, the folded cortex coloured by |E|, the coil with its axes; a target can be marked.

    `view(...).show()` opens a window, or shows it in a notebook, where `pip install "pyvista[jupyter]"` makes it turn.
    `view(...).show(screenshot="view.png")` writes it, also on a machine without a display. For paper, or without
    PyVista: `plot.pose` draws the coil over the scalp, `plot.cortex` the field on the cortex.

    Parameters
    ----------
    head
        A head of voxels or tetrahedra. Its grey matter, where it has some, is drawn as in `plot.cortex`.
    coil, pose
        A coil and its pose (4, 4), mm. Segments are drawn as wires, dipoles as points, the casing as glass; the frame's
        axes are 40 mm long.
    field
        The field of a simulator of this head.
    target
        Point (3,) to mark, mm.
    limit
        Upper end of the colours, V/m. Default: 99.9th percentile of |E| in the grey voxels.

    Returns
    -------
    pyvista.Plotter
        The view, mm; anything can be added to it with `add_mesh`.

    Raises
    ------
    ModuleNotFoundError
        PyVista is missing.
    ValueError
        A coil has no pose or a pose no coil; the field is of another head, or its head has no grey matter.
    """
    try:
        import pyvista
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "plot.view: PyVista is missing; python -m pip install 'jaxm2m[view]'. plot.pose and plot.cortex do without "
            "it."
        ) from error
    if (coil is None) != (pose is None):
        raise ValueError("pose: a coil needs a pose, and a pose a coil; pass both or neither.")
    if field is not None and not _is_same_volume(field.head, head):
        raise ValueError("field: of another head; pass the head that its simulator was made of.")
    matrix = None if pose is None else np.asarray(_check.pose(pose), np.float64)
    if matrix is not None and matrix.shape != (4, 4):
        raise ValueError(f"pose: shape {matrix.shape}; one view shows one pose (4, 4).")
    place = None if target is None else np.asarray(_check.points(target, "target"), np.float64)

    # without a display VTK can draw, but open no window
    plotter: Any = pyvista.Plotter(off_screen=None if pyvista.system_supports_plotting() else True)
    plotter.set_background("white")
    scalp = _make_mesh(head.scalp.vertices, head.scalp.triangles)
    plotter.add_mesh(scalp, color=_SKIN, opacity=0.3, smooth_shading=True, culling="back", name="scalp")
    if field is not None or "grey" in head.tissues:
        brain = _cortex.extract_ribbon(head)
        mesh = _make_mesh(brain.points, brain.triangles)
        if field is None:
            plotter.add_mesh(mesh, color=_BRAIN, smooth_shading=True, specular=0.15, name="cortex")
        else:
            value, grey = _cortex.sample_on_ribbon(field, brain)
            mesh["|E|"] = value
            highest = style.limit_of(grey) if limit is None else float(limit)
            plotter.add_mesh(
                mesh,
                scalars="|E|",
                cmap=style.FIELD,
                clim=(0, highest),
                smooth_shading=True,
                ambient=0.25,
                name="cortex",
                scalar_bar_args={
                    "title": "magnitude of E\nin grey matter (V/m)\n",  # a bar would be a column to VTK
                    "vertical": True,
                    "color": style.INK,
                    "fmt": "%.3g",
                    "position_x": 0.86,
                    "position_y": 0.2,
                    "height": 0.6,
                    "width": 0.05,
                    "title_font_size": 15,
                    "label_font_size": 14,
                },
            )
    if coil is not None and matrix is not None:
        _add_coil(plotter, coil, matrix)
    if place is not None:
        # a point inside the cortex would not be seen
        plotter.add_point_labels(place[None], ["target"], always_visible=True, shape=None, font_size=16, point_size=12,
                              text_color=style.INK, point_color=style.AXES["z"], render_points_as_spheres=True,
                              name="target")  # fmt: skip
    names = ("x", "y", "z") if head.space == "sphere" else ("R", "A", "S")
    plotter.add_axes(xlabel=names[0], ylabel=names[1], zlabel=names[2], color=style.INK, line_width=3)

    vertices = np.asarray(head.scalp.vertices, np.float64)
    middle = (vertices.min(0) + vertices.max(0)) / 2
    towards = np.array([-0.8, 0.35, 0.5])
    if matrix is not None:
        # past the coil's edge, so that it hides less of what is under it
        outward, across = matrix[:3, 3] - middle, matrix[:3, 0] * (-1 if matrix[2, 0] > 0 else 1)
        towards = 0.5 * outward / np.linalg.norm(outward) + 0.8 * across + np.array([0, 0, 0.35])
    eye = middle + towards
    plotter.camera_position = [tuple(eye), tuple(middle), (0.0, 0.0, 1.0)]
    plotter.reset_camera()
    plotter.camera.zoom(1.3)
    return plotter


def _add_coil(plotter: Any, coil: Coil, matrix: np.ndarray) -> None:
    import pyvista

    if coil.casing is not None:
        casing = _make_mesh(_scene.transform_points(matrix, coil.casing.vertices), coil.casing.triangles)
        plotter.add_mesh(casing, color=_CASING, opacity=0.3, culling="back", name="casing")
    for number, element in enumerate(coil.elements):
        if isinstance(element, Segments):
            ends = np.stack(
                [_scene.transform_points(matrix, element.start), _scene.transform_points(matrix, element.end)], 1
            )
            wires = pyvista.line_segments_from_points(ends.reshape(-1, 3))
            plotter.add_mesh(wires, color=style.COPPER, line_width=2.0, lighting=False, name=f"windings {number}")
        elif isinstance(element, Dipoles):
            points = pyvista.PolyData(_scene.transform_points(matrix, element.position))
            plotter.add_mesh(points, color=style.COPPER, point_size=3.0, lighting=False, name=f"dipoles {number}")
    for axis, (name, colour) in enumerate(style.AXES.items()):
        arrow = pyvista.Arrow(
            start=matrix[:3, 3], direction=matrix[:3, axis], scale=_ARROW, shaft_radius=0.02, tip_radius=0.05
        )
        plotter.add_mesh(arrow, color=colour, name=f"coil's {name}")


def _make_mesh(vertices: Any, triangles: Any) -> Any:
    import pyvista

    mesh_type: Any = pyvista.PolyData
    return mesh_type.from_regular_faces(np.asarray(vertices, np.float32), np.asarray(triangles, np.int64))


def _is_same_volume(one: Head | MeshHead, other: Head | MeshHead) -> bool:
    """Return whether both are the same volume; conductivities may differ."""
    return (
        one.tissues == other.tissues
        and np.array_equal(one.labels_affine, other.labels_affine)
        and np.array_equal(one.labels, other.labels)
    )
