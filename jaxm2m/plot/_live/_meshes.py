"""What the scene is made of: scalp, cortex, coil, tables of colours and the first view, as octets."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int
from matplotlib.colors import LinearSegmentedColormap

from jaxm2m import _check
from jaxm2m.coil import Coil, Dipoles, Segments
from jaxm2m.head import Head, MeshHead
from jaxm2m.plot import _cortex, _scene, style

_CELL = 4.0  # mm: vertices of the scalp that are nearer become one; it is glass, and drawn at every move
_MARGIN, _ASPECT = 14.0, 1.3  # mm round what is drawn; width over height of the picture
# what goes into cortex blue, what comes out of it red: told apart by all eyes, and in grey by their lightness
NORMAL = LinearSegmentedColormap.from_list(
    "normal", ["#0b2a66", "#2f6db5", "#93bfe0", "#f2f0eb", "#f3b184", "#c9542c", "#6b1410"]
)


@runtime_checkable
class Triangulation(Protocol):
    """A triangulated surface, its triangles outward; its `normals` (n, 3) count where it has them."""

    @property
    def vertices(self) -> Any:
        """Vertices (n, 3), mm."""
        ...

    @property
    def triangles(self) -> Any:
        """Triangles (m, 3), indices."""
        ...


class Cortex(NamedTuple):
    """The surface that is coloured: vertices mm, triangles, outward unit normals, and the light left in its folds."""

    vertices: Float[np.ndarray, "n 3"]
    triangles: Int[np.ndarray, "m 3"]
    normals: Float[np.ndarray, "n 3"]
    fold: Float[np.ndarray, " n"]


def make_cortex(head: Head | MeshHead, surface: Triangulation | None) -> Cortex:
    """Take a surface, or the middle of the head's grey ribbon."""
    if surface is None:
        ribbon = _cortex.extract_ribbon(head)
        normals = _scene.vertex_normals(ribbon.points, ribbon.triangles)
        return Cortex(ribbon.points, ribbon.triangles, normals, ribbon.fold)
    vertices = np.asarray(_check.points(surface.vertices, "surface"), np.float64)
    triangles = np.asarray(surface.triangles)
    if triangles.ndim != 2 or triangles.shape[1] != 3 or not 0 <= triangles.min() <= triangles.max() < len(vertices):
        raise ValueError(
            f"surface: triangles of shape {triangles.shape}; give (m, 3) indices of {len(vertices)} vertices."
        )
    outward = getattr(surface, "normals", None)
    if outward is None:
        normals = _scene.vertex_normals(vertices, triangles)
    else:
        normals = np.asarray(_check.points(outward, "surface"), np.float64)
    return Cortex(vertices, triangles, normals, np.ones(len(vertices)))


def make_meshes(
    head: Head | MeshHead, coil: Coil, cortex: Cortex, inside: np.ndarray, pose: np.ndarray, target: np.ndarray
) -> dict[str, Any]:
    """Gather the scene; `inside` says which vertices of the cortex have a field, `pose` is where the coil begins."""
    scalp = merge_vertices(np.asarray(head.scalp.vertices), np.asarray(head.scalp.triangles), _CELL)
    wires, beads = _list_windings(coil)
    return {
        "scalp": _pack_mesh(*scalp),
        "cortex": {
            **_pack_mesh(cortex.vertices, cortex.triangles),
            "fold": np.rint(255 * cortex.fold).astype(np.uint8).tobytes(),
            "inside": np.flatnonzero(inside).astype("<u4").tobytes(),
        },
        "casing": None if coil.casing is None else _pack_mesh(coil.casing.vertices, coil.casing.triangles),
        "wires": np.concatenate([wires, beads]).astype("<f4").tobytes(),
        "luts": {"magnitude": _list_colours(style.FIELD), "normal": _list_colours(NORMAL)},
        "target": target.tolist(),
        "look": _choose_view(head, coil, cortex, pose),
    }


def merge_vertices(
    vertices: np.ndarray, triangles: np.ndarray, cell: float
) -> tuple[Float[np.ndarray, "n 3"], Int[np.ndarray, "m 3"]]:
    """Merge the vertices that share a cell of a grid into their mean, and leave out triangles that became lines."""
    index = np.floor((vertices - vertices.min(0)) / cell).astype(np.int64)
    shape = index.max(0) + 1
    _, cells = np.unique(np.ravel_multi_index(tuple(index.T), tuple(shape)), return_inverse=True)
    count = np.bincount(cells)
    merged = np.stack([np.bincount(cells, vertices[:, axis]) / count for axis in range(3)], -1)
    corners = cells[triangles]
    whole = (corners != np.roll(corners, 1, axis=1)).all(1)
    return merged, corners[whole]


def _pack_mesh(vertices: Any, triangles: Any) -> dict[str, bytes]:
    return {
        "vertices": np.asarray(vertices, "<f4").tobytes(),
        "triangles": np.asarray(triangles).astype("<u4").tobytes(),
    }


def _list_windings(coil: Coil) -> tuple[Float[np.ndarray, "n 6"], Float[np.ndarray, "m 6"]]:
    """Segments by their ends; dipoles as beads of 1.5 mm."""
    wires, beads = [np.zeros((0, 6))], [np.zeros((0, 6))]
    for part in coil.elements:
        if isinstance(part, Segments):
            wires.append(np.concatenate([np.asarray(part.start), np.asarray(part.end)], 1))
        elif isinstance(part, Dipoles):
            middle = np.asarray(part.position)
            half = np.array([0.75, 0.0, 0.0])
            beads.append(np.concatenate([middle - half, middle + half], 1))
    return np.concatenate(wires), np.concatenate(beads)


def _list_colours(colours: LinearSegmentedColormap) -> bytes:
    return np.rint(255 * colours(np.linspace(0, 1, 256))[:, :3]).astype(np.uint8).tobytes()


def _choose_view(head: Head | MeshHead, coil: Coil, cortex: Cortex, pose: np.ndarray) -> dict[str, Any]:
    """Past the coil's edge, so that it hides less of what is under it; all of coil and cortex in the picture."""
    vertices = np.asarray(head.scalp.vertices, np.float64)
    middle = (vertices.min(0) + vertices.max(0)) / 2
    outward, across = pose[:3, 3] - middle, pose[:3, 0] * (-1 if pose[2, 0] > 0 else 1)
    view = _scene.make_camera(0.6 * outward / np.linalg.norm(outward) + 0.75 * across + np.array([0, 0, 0.3]))
    points = [cortex.vertices, pose[None, :3, 3]]
    if coil.casing is not None:
        points.append(_scene.transform_points(pose, coil.casing.vertices))
    flat = view.flat(np.concatenate(points))
    low, high = flat.min(0) - _MARGIN, flat.max(0) + _MARGIN
    right, up = (low + high) / 2
    return {
        "towards": view.towards.tolist(),
        "centre": (right * view.right + up * view.up + (middle @ view.towards) * view.towards).tolist(),
        "span": float(max(high[1] - low[1], (high[0] - low[0]) / _ASPECT)),
        "letters": head.space != "sphere",
        "alpha": 0.13,
    }
