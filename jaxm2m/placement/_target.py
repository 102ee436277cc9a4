"""Where the field should go: coordinates, or the cortex under an electrode's position."""

import numpy as np
from jaxtyping import Float

from jaxm2m import _check
from jaxm2m._types import ArrayLike
from jaxm2m.head import Head, MeshHead, electrode

_REACH = 60.0  # mm between scalp and cortex at most
_USUAL = 25.0  # mm between them where people place electrodes


def target(head: Head | MeshHead, where: str | ArrayLike) -> Float[np.ndarray, "3"]:
    """Find a target point in the cortex, mm in the head's coordinates.

    Parameters
    ----------
    head
        The head.
    where
        (3,) mm: returned as it is, if it lies in the head. Or the name of a 10-20 or 10-10 position ("C3"), for heads
        in MNI152 space: the grey matter nearest to that point of the scalp.

    Returns
    -------
    point
        (3,) mm.

    Raises
    ------
    ValueError
        A point outside the head, a name that is not known, a head without grey matter or in another space.
    """
    if not isinstance(where, str):
        point = np.asarray(_check.points(where, "target"), np.float64)
        if point.shape != (3,):
            raise ValueError(f"target: shape {point.shape}; give x, y, z in mm, or a name such as 'C3'.")
        if head.tissue_at(point) < 0:
            raise ValueError(
                f"target: ({', '.join(f'{x:.1f}' for x in point)}) mm lies outside the head; give {head.space} "
                "coordinates."
            )
        return point
    on_scalp = electrode(head, where)
    if "grey" not in head.tissues:
        raise ValueError(f"target: {where!r} means the grey matter below it, and the head has none; give coordinates.")
    for reach in (_USUAL, _REACH):
        nearest = _nearest_grey(head, on_scalp, reach)
        if nearest is not None:
            return nearest
    raise ValueError(f"target: no grey matter within {_REACH:g} mm of {where!r}; give coordinates.")


def _nearest_grey(head: Head | MeshHead, point: np.ndarray, reach: float) -> np.ndarray | None:
    """The centre of the nearest voxel of grey matter within `reach` mm, looked for in the box around the point only."""
    affine = np.asarray(head.labels_affine, np.float64)
    labels = np.asarray(head.labels)
    inverse = np.linalg.inv(affine)
    middle = inverse[:3, :3] @ point + inverse[:3, 3]
    half = reach * np.linalg.norm(inverse[:3, :3], axis=1)
    low = np.clip(np.floor(middle - half), 0, labels.shape).astype(int)
    high = np.clip(np.ceil(middle + half) + 1, 0, labels.shape).astype(int)
    box = labels[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    centres = (low + np.argwhere(box == head.tissues.index("grey") + 1)) @ affine[:3, :3].T + affine[:3, 3]
    away = np.linalg.norm(centres - point, axis=1)
    return centres[away.argmin()] if away.size and away.min() <= reach else None
