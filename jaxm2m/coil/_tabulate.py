"""Cheaper stand-ins for a coil with many elements: an A-grid in the coil's frame, or clustered dipoles."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxm2m._tree import Notes
from jaxm2m.coil._coil import Coil
from jaxm2m.coil._dipoles import Dipoles
from jaxm2m.coil._grid import Grid, sampled
from jaxm2m.coil._potential import potential
from jaxm2m.coil._segments import Segments

# Nodes closer than this to a dipole or wire see it at this distance: the pole would spread through the prefilter.
CLAMP = 8.0


def tabulate(coil: Coil, spacing: float | int = 5.0, reach: float = 240.0) -> Coil:
    """A coil whose potential is one A-grid for each stimulator, in the coil's frame.

    Parameters
    ----------
    coil
        Any coil; its casing, `didt_max` and notes are kept.
    spacing
        mm between nodes.
    reach
        mm from the centre of the coil's frame to the faces of the grid; outside, see `Grid`.

    Returns
    -------
    A coil with `Grid` elements. Errors against the exact sum, Magstim 70 mm (2712 dipoles), default grid: see the
    "tabulated 5 mm" entry of benchmarks/coil_potential.json, which has 5 to 60 mm from the plane z = 0; at 10 mm A is
    off by 0.023 % (root mean square) and 0.049 % (maximum) of its largest value there, B by 0.24 and 0.51 %.
    """
    spacing, reach = _positive(spacing, "spacing"), _positive(reach, "reach")
    if reach < 4 * spacing:
        raise ValueError(f"reach: {reach} mm is less than four spacings of {spacing} mm; give a larger reach.")
    half = int(np.ceil(reach / spacing))
    count = 2 * half + 1
    if count > 400:
        raise ValueError(
            f"spacing: {spacing} mm over +-{reach} mm makes {count}^3 nodes, over 768 MiB; take a larger spacing."
        )
    axis = spacing * (np.arange(count) - half)
    nodes = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    affine = np.eye(4) * [spacing, spacing, spacing, 1]
    affine[:3, 3] = -spacing * half
    grids = []
    for stimulator in range(coil.n_stimulator):
        values = np.zeros((len(nodes), 3))
        own = [e for e in coil.elements if e.stimulator == stimulator]
        for element in own:
            dtype = jnp.result_type(float)
            values += np.asarray(potential(element, jnp.asarray(nodes, dtype)), float)
            _clamp(values, element, nodes, dtype)
        if own:
            grids.append(sampled(values.reshape(count, count, count, 3), affine, stimulator))
    return Coil(tuple(grids), coil.casing, coil.didt_max, Notes(coil.notes, tabulated=f"{spacing} mm, +-{reach} mm"))


def cluster(coil: Coil, size: float | int = 8.0) -> Coil:
    """Replace the dipoles in each cell of a cubic lattice by one at their |moment|-weighted centre.

    Line segments become dipoles only by `tabulate`; segments and grids are kept as they are.

    Parameters
    ----------
    coil
        Any coil.
    size
        mm, edge of the cells.

    Returns
    -------
    The coil with fewer dipoles: an exact solution of Maxwell's equations for a coarser source. Magstim 70 mm, 10 mm
    from the plane z = 0, root mean square and maximum of the largest value there: 8 mm cells (432 dipoles) A 0.25 and
    0.56 %, B 1.1 and 3.8 %; 5 mm cells A 0.08 and 0.27 %, B 0.38 and 1.2 %.
    """
    size = _positive(size, "size")
    return Coil(
        tuple(_clustered(e, size) if isinstance(e, Dipoles) else e for e in coil.elements),
        coil.casing,
        coil.didt_max,
        Notes(coil.notes, clustered=f"{size} mm"),
    )


def _clustered(element: Dipoles, size: float) -> Dipoles:
    p, m = np.asarray(element.position, float), np.asarray(element.moment, float)
    cell = np.floor(p / size).astype(int)
    # dipoles that point in opposite ways must not meet in one cell: their centre would say nothing
    main = np.abs(m).argmax(axis=1)
    key = np.column_stack([cell, main, np.sign(m[np.arange(len(m)), main])])
    _, label = np.unique(key, axis=0, return_inverse=True)
    label = label.ravel()
    count = label.max() + 1
    weight = np.linalg.norm(m, axis=1)
    total = np.bincount(label, weight, count)
    centre = np.column_stack([np.bincount(label, weight * p[:, i], count) for i in range(3)])
    moment = np.column_stack([np.bincount(label, m[:, i], count) for i in range(3)])
    keep = total > 0
    dtype = element.position.dtype
    return Dipoles(
        jnp.asarray(centre[keep] / total[keep, None], dtype), jnp.asarray(moment[keep], dtype), element.stimulator
    )


def _clamp(values: np.ndarray, element: Any, nodes: np.ndarray, dtype: Any) -> None:
    """Recompute, in place, the nodes within CLAMP of an element with that element's poles kept at CLAMP."""
    from scipy.spatial import cKDTree

    if isinstance(element, Grid):
        return
    if isinstance(element, Dipoles):
        sources = np.asarray(element.position, float)
    else:
        assert isinstance(element, Segments)
        a, b = np.asarray(element.start, float), np.asarray(element.end, float)
        sources = np.concatenate([a, (a + b) / 2, b])
    near = np.flatnonzero(cKDTree(sources).query(nodes, distance_upper_bound=CLAMP)[0] < CLAMP)
    if len(near) == 0:
        return
    x = nodes[near]
    full = np.asarray(potential(element, jnp.asarray(x, dtype)), float)
    values[near] -= full
    for block in np.array_split(np.arange(len(near)), max(1, len(near) * len(sources) // 2**20)):
        if isinstance(element, Dipoles):
            r = x[block][:, None] - sources[None]
            w = 0.1 / np.maximum(np.linalg.norm(r, axis=-1), CLAMP) ** 3
            values[near[block]] += np.einsum("ns,nsi->ni", w, np.cross(np.asarray(element.moment, float)[None], r))
        else:
            a_, b_ = np.asarray(element.start, float), np.asarray(element.end, float)
            length = np.linalg.norm(b_ - a_, axis=1)
            direction = (b_ - a_) * (np.asarray(element.turns, float) / np.where(length > 0, length, 1))[:, None]
            r1 = np.maximum(np.linalg.norm(x[block][:, None] - a_, axis=-1), CLAMP)
            r2 = np.maximum(np.linalg.norm(x[block][:, None] - b_, axis=-1), CLAMP)
            ratio = np.minimum(length / (r1 + r2), 0.9)
            values[near[block]] += 1e-7 * 2 * np.arctanh(ratio) @ direction


def _positive(value: float | int, name: str) -> float:
    if not np.isfinite(value) or value <= 0:
        raise ValueError(f"{name}: {value}; give a positive length in mm.")
    return float(value)
