"""Cheaper stand-ins for a coil with many elements: an A-grid in the coil's frame, or clustered dipoles."""

import jax.numpy as jnp
import numpy as np
from scipy.spatial import cKDTree

from jaxm2m._pytree import StaticMetadata
from jaxm2m.coil._coil import Coil, Element
from jaxm2m.coil._dipoles import Dipoles
from jaxm2m.coil._grid import PotentialGrid, quasi_interpolate
from jaxm2m.coil._segments import Segments
from jaxm2m.coil._sums import merge_elements, sum_clamped_potential, sum_far_potential, sum_potential

# Nodes closer than this to a dipole or wire see it at this distance: the pole would spread through the prefilter.
CLAMP = 8.0
# Spacings: farther from all dipoles and wires every second node along each axis is enough, and those between follow
# from six neighbours, by 1/r at that distance to 3.5 (2/10)^6 = 2e-4 of it. 9/10 of the work is out there.
NEAR = 10
_MIDDLE = np.array([3, -25, 150, 150, -25, 3]) / 256  # weights of the six


def tabulate(coil: Coil, spacing: float | int = 5.0, reach: float = 240.0) -> Coil:
    """Replace a coil's elements by one A-grid for each stimulator, in the coil's frame.

    Parameters
    ----------
    coil
        Any coil; its casing, `didt_max` and metadata are kept.
    spacing
        mm between nodes.
    reach
        mm from the centre of the coil's frame to the faces of the grid; outside, see `PotentialGrid`.

    Returns
    -------
    Coil
        With `PotentialGrid` elements.

    Notes
    -----
    Errors against the exact sum, Magstim 70 mm (2712 dipoles), default grid: see the "tabulated 5 mm" entry of
    benchmarks/coil_potential.json, which has 5 to 60 mm from the plane z = 0; at 10 mm A is off by 0.023 % (root mean
    square) and 0.049 % (maximum) of its largest value there, B by 0.24 and 0.51 %.
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
    affine = np.eye(4) * [spacing, spacing, spacing, 1]
    affine[:3, 3] = -spacing * half
    grids = []
    for stimulator in range(coil.n_stimulator):
        elements = merge_elements(coil, stimulator)
        if elements:
            values = sum(_tabulate_element(element, half, spacing) for element in elements)
            grids.append(quasi_interpolate(np.asarray(values), affine, stimulator))
    return Coil(
        tuple(grids), coil.casing, coil.didt_max, StaticMetadata(coil.metadata, tabulated=f"{spacing} mm, +-{reach} mm")
    )


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
    Coil
        With fewer dipoles: an exact solution of Maxwell's equations for a coarser source.

    Notes
    -----
    Errors of the Magstim 70 mm, 10 mm from the plane z = 0, root mean square and maximum of the largest value there:
    8 mm cells (432 dipoles) A 0.25 and 0.56 %, B 1.1 and 3.8 %; 5 mm cells A 0.08 and 0.27 %, B 0.38 and 1.2 %.
    """
    size = _positive(size, "size")
    return Coil(
        tuple(_cluster_dipoles(e, size) if isinstance(e, Dipoles) else e for e in coil.elements),
        coil.casing,
        coil.didt_max,
        StaticMetadata(coil.metadata, clustered=f"{size} mm"),
    )


def _cluster_dipoles(element: Dipoles, size: float) -> Dipoles:
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


def _tabulate_element(element: Element, half: int, spacing: float) -> np.ndarray:
    """A (count, count, count, 3) of one element at the nodes."""
    index = np.arange(-half, half + 1)
    if isinstance(element, PotentialGrid):
        return sum_potential(element, _lattice(spacing * index)).reshape(*3 * (len(index),), 3)
    sources = cKDTree(_source_points(element))
    # two more on each side than the lattice reaches, for the six neighbours
    m = (half + 1) // 2 + 2
    every_second = _lattice(2 * spacing * np.arange(-m, m + 1))
    shape = 3 * (2 * m + 1,)
    values = sum_far_potential(element, every_second).reshape(*shape, 3)
    bound = (NEAR + 3) * spacing  # a node lies within sqrt(3) spacings of one that is kept, and rounding
    close = (sources.query(every_second, distance_upper_bound=bound)[0] < bound).reshape(shape)
    for axis in range(3):
        values = _refine(values, axis)
    cut = (values.shape[0] - len(index)) // 2
    values = values[(slice(cut, cut + len(index)),) * 3].copy()
    nodes = np.argwhere(close[np.ix_(*3 * ((index + 2 * m) // 2,))]) - half
    if not len(nodes):  # a coil beside its grid
        return values
    x = spacing * nodes
    values[tuple((nodes + half).T)] = sum_potential(element, x)
    inside = sources.query(x, distance_upper_bound=CLAMP)[0] < CLAMP
    values[tuple((nodes[inside] + half).T)] = sum_clamped_potential(element, x[inside], CLAMP)
    return values


def _refine(values: np.ndarray, axis: int) -> np.ndarray:
    """With a node between each two along an axis; two at each end are lost."""
    values = np.moveaxis(values, axis, 0)
    result = np.empty((2 * len(values) - 9, *values.shape[1:]))
    result[::2] = values[2:-2]
    result[1::2] = sum(w * values[i : len(values) - 5 + i] for i, w in enumerate(_MIDDLE))
    return np.moveaxis(result, 0, axis)


def _lattice(axis: np.ndarray) -> np.ndarray:
    """(n^3, 3) points."""
    return np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)


def _source_points(element: Dipoles | Segments) -> np.ndarray:
    """(n, 3) points that tell where a source is, mm."""
    if isinstance(element, Dipoles):
        return np.asarray(element.position, float)
    a, b = np.asarray(element.start, float), np.asarray(element.end, float)
    return np.concatenate([a, (a + b) / 2, b])


def _positive(value: float | int, name: str) -> float:
    if not np.isfinite(value) or value <= 0:
        raise ValueError(f"{name}: {value}; give a positive length in mm.")
    return float(value)
