"""Tetrahedra that conform to the tissues of a label volume.

1. Geometry. Every tissue, and air, has a level in each voxel; between voxels levels are trilinear, and a point belongs
   to the tissue whose level is highest. Levels of labels are their indicators smoothed by 2 G - G G, G a Gaussian
   (which, unlike G, moves no curved surface to its centre, to first order), and raised where a voxel's centre would
   lose its label; levels of volume fractions that tell more than the labels are those fractions, splined to half the
   spacing.
2. A body-centred cubic lattice, coarse away from the brain and bisected to the wanted size near it.
3. Edges that cross a tissue found at neither end get a node in it.
4. Nodes near an interface are moved onto it; edges that still cross one are bisected there (isosurface stuffing:
   Labelle & Shewchuk 2007; for several materials Bronson, Levine & Whitaker 2012). A node carries the tissues that meet
   in it, an element the one that its four nodes share.
5. Nodes of flat elements are moved until none is flat.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from scipy import ndimage

from jaxm2m import _check
from jaxm2m.head import _bisection, _distance, _mesh_repair, _overlap
from jaxm2m.head._head import Head
from jaxm2m.head._mesh_head import MeshHead, from_mesh

_BRAIN = ("white", "grey")
_EDGE = 1.5  # voxels: the mesh then has about as many nodes as the voxel head
REACH = 2.75  # cubes from the brain's interfaces to where larger ones begin
_SMOOTH = 1.2  # voxels, of labels
_MARGIN = 0.1  # by which a label wins at its voxel's centre
_CORRECTIONS = 5
_SAME = 0.02  # labels whose shares differ from the fractions by less on average of cut voxels are their source
_SNAP = 0.1  # of an edge: nodes this near an interface are moved onto it
_NEAR = 0.06  # of an edge: later cuts this near a node are that node
_KEPT = 0.1  # of its volume: what a move must leave of an element
_ROUNDS = 8
_STEPS = 8  # halvings of an edge to find an interface: 0.4 % of it
_BATCH_SIZE = 1 << 18  # points
_LARGEST = 4_000_000  # lattice nodes


class Levels:
    """Levels of materials, trilinear between voxels: a point belongs to the material whose level is highest.

    Called with points (n, 3) mm it returns their levels (n, n_material), no unit.

    Parameters
    ----------
    volumes
        (nx, ny, nz, n_material) levels in the voxels, no unit. In a head 0 is air and k is tissues[k - 1].
    affine
        (4, 4) voxel index -> mm.
    """

    def __init__(self, volumes: Float[np.ndarray, "nx ny nz material"], affine: Float[np.ndarray, "4 4"]):
        self.volumes = volumes
        self.inverse = np.linalg.inv(affine)

    def __call__(self, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n material"]:
        shape = np.array(self.volumes.shape[:3])
        _, ny, nz, count = self.volumes.shape
        flat = self.volumes.reshape(-1, count)
        out = np.empty((len(points), count), np.float32)
        for start in range(0, len(points), _BATCH_SIZE):
            part = slice(start, start + _BATCH_SIZE)
            x = np.clip(points[part] @ self.inverse[:3, :3].T + self.inverse[:3, 3], 0, shape - 1.001)
            low = x.astype(np.int64)
            t = (x - low).astype(np.float32)
            home = (low[:, 0] * ny + low[:, 1]) * nz + low[:, 2]
            total = np.zeros((len(x), count), np.float32)
            for i in (0, 1):
                for j in (0, 1):
                    for k in (0, 1):
                        w = np.abs(1 - i - t[:, 0]) * np.abs(1 - j - t[:, 1]) * np.abs(1 - k - t[:, 2])
                        total += w[:, None] * flat[home + (i * ny + j) * nz + k]
            out[part] = total
        return out


def tetrahedralise(head: Head, spacing: float | int | None = None) -> MeshHead:
    """Mesh a voxel head with tetrahedra that follow its tissue boundaries.

    When they pay (`benchmarks/conforming.py`; L2 error of E in grey matter of a folded cortex, %, the worse of two
    coils, by what the tissues are known from):

    ================  ========  =====  ===========  =========
    mesh              unknowns  exact  0.5 mm       1 mm
                                       labels       labels
    ================  ========  =====  ===========  =========
    voxels of 2 mm     42 000   10.3   10.3         11.9
    cubes of 3 mm      29 000    8.4    8.6         10.4
    cubes of 2.57 mm   43 000    6.7    7.0          9.4
    cubes of 2 mm      69 000    4.8    5.3          8.5
    voxels of 1 mm    325 000    4.7    5.7         17.5
    ================  ========  =====  ===========  =========

    In grey matter of a five-shell sphere, voxels of 2 mm (428 000 unknowns) are wrong by 2.4 %, cubes of 3 mm (333 000)
    by 0.7 %. But a pose takes about ten times as long on a CPU. So voxels for searches over poses and wherever labels
    are 0.5 mm or finer and time counts; tetrahedra where labels are 1 mm and the error counts, since no size of voxels
    gets below 11.9 % there, and where unknowns are what is short. In both, labels limit: finer ones help more than a
    finer mesh.

    Parameters
    ----------
    head
        Its labels give the geometry, or its fractions where they hold more than the labels do.
    spacing
        Edge of the lattice's cubes within 2.75 edges of the boundaries of white and grey matter, mm; elsewhere they are
        twice as large. Default: 1.5 times the voxels', which makes about as many nodes as the voxel head has (half a
        million for a whole head of 2 mm voxels; a minute and 1.6 GB).

    Returns
    -------
    MeshHead
        With the head's tissues, conductivities and surfaces. Of a whole head, dihedral angles lie between 2 and 175
        degrees (all but two in a thousand between 6.9 and 160), volumes of tissues within 1.3 % of the voxels'. A
        tissue of which no element is left is named in the remarks.

    Raises
    ------
    ValueError
        A spacing that makes a mesh too large.
    """
    edge = _EDGE * head.spacing if spacing is None else float(_check.positive(float(spacing), "spacing"))
    nodes, elements = _build_lattice(head, edge)
    nodes, elements, tissue = conform(_build_levels(head), nodes, elements)
    elements, tissue = elements[tissue > 0], tissue[tissue > 0]
    nodes = _mesh_repair.repair(nodes, elements)
    names, sigma = dict(enumerate(head.tissues, 1)), np.asarray(head.conductivity)
    present = set(np.unique(tissue).tolist())
    remarks = [*head.metadata.get("remarks", ()), f"tetrahedra of {edge:g} mm that conform to the tissues"]
    remarks += [f"{name}: too little for an element, left out" for k, name in names.items() if k not in present]
    return from_mesh(
        nodes,
        elements,
        tissue,
        {k: name for k, name in names.items() if k in present},
        conductivity={names[k]: float(sigma[k - 1]) for k in present},
        scalp=head.scalp,
        cortex=head.cortex,
        space=head.space,
        source=head.metadata["source"],
        remarks=remarks,
        name="head",
    )


def conform(
    levels: Callable[[np.ndarray], np.ndarray],
    nodes: Float[np.ndarray, "node 3"],
    elements: Int[np.ndarray, "element 4"],
) -> tuple[Float[np.ndarray, "more 3"], Int[np.ndarray, "many 4"], Int[np.ndarray, " many"]]:
    """Fit a lattice of tetrahedra to the interfaces between materials; `repair` then makes flat elements rounder.

    Parameters
    ----------
    levels
        Levels of the materials at points: (n, 3) mm to (n, n_material).
    nodes
        (n_node, 3) mm of the lattice.
    elements
        (n_element, 4) indices of their nodes.

    Returns
    -------
    nodes
        (n_node, 3) mm, more than before.
    elements
        (n_element, 4) indices of their nodes.
    material
        (n_element,) index of each element's material.
    """
    material = _argmax(levels, nodes)
    nodes, elements, material = _insert_hidden(levels, nodes, elements, material)
    meets = np.left_shift(1, material, dtype=np.int64)
    nodes, meets = _snap(levels, nodes, elements, meets)
    for _ in range(_ROUNDS):
        mixed = np.bitwise_and.reduce(meets[elements], axis=1) == 0
        edges = np.unique(_bisection.edge_keys(elements[mixed]))
        start, end = _bisection.edge_ends(edges).T
        cut = (meets[start] & meets[end]) == 0
        edges, start, end = edges[cut], start[cut], end[cut]
        if not len(edges):
            break
        at = _find_crossings(levels, nodes[start], nodes[end], meets[start])
        where = nodes[start] + at[:, None] * (nodes[end] - nodes[start])
        both = _find_meeting(levels(where), meets[start])
        for node, near in ((start, at < _NEAR), (end, at > 1 - _NEAR)):
            np.bitwise_or.at(meets, node[near], both[near])
        new = (at >= _NEAR) & (at <= 1 - _NEAR)
        order = np.flatnonzero(new)
        order = order[np.argsort(-np.linalg.norm(nodes[start[order]] - nodes[end[order]], axis=1), kind="stable")]
        elements = _bisection.bisect(elements, edges[order], len(nodes)) if len(order) else elements
        nodes, meets = np.concatenate([nodes, where[order]]), np.concatenate([meets, both[order]])
    return nodes, elements, _assign_materials(levels, nodes, elements, meets)


def _build_levels(head: Head) -> Levels:
    """Levels of a head, with two voxels of air round them."""
    labels, affine = np.asarray(head.labels), np.asarray(head.labels_affine, np.float64)
    if _fractions_tell_more(head):
        fractions = np.pad(np.asarray(head.fractions), [(0, 0), (2, 2), (2, 2), (2, 2)])
        fractions = np.concatenate([1 - fractions.sum(0, keepdims=True), fractions])
        affine = _distance.shift_affine(np.asarray(head.affine, np.float64), -np.full(3, 2))
        return Levels(levels_of_fractions(fractions), affine @ np.diag([0.5, 0.5, 0.5, 1.0]))
    filled = ndimage.find_objects((labels > 0).view(np.uint8))[0]
    labels = np.pad(labels[filled], 2)
    affine = _distance.shift_affine(affine, np.array([s.start for s in filled]) - 2)
    return Levels(levels_of_labels(labels, len(head.tissues) + 1), affine)


def levels_of_fractions(fractions: Float[np.ndarray, "material nx ny nz"]) -> Float[np.ndarray, "mx my mz material"]:
    """Compute levels of volume fractions at the voxels' centres and halfway between them, by cubic splines.

    Parameters
    ----------
    fractions
        (n_material, nx, ny, nz) volume fractions.

    Returns
    -------
    levels
        (2 nx - 1, 2 ny - 1, 2 nz - 1, n_material), no unit.
    """
    count, *shape = fractions.shape
    fine = [2 * n - 1 for n in shape]
    out = np.empty((*fine, count), np.float32)
    for k, f in enumerate(fractions):
        out[..., k] = ndimage.zoom(f, [m / n for m, n in zip(fine, shape, strict=True)], order=3, mode="nearest")
    return out


def levels_of_labels(labels: UInt8[np.ndarray, "nx ny nz"], count: int) -> Float[np.ndarray, "nx ny nz material"]:
    """Compute levels of labels at the voxels' centres.

    Parameters
    ----------
    labels
        (nx, ny, nz) labels from 0 to `count` - 1.
    count
        Number of materials.

    Returns
    -------
    levels
        (nx, ny, nz, n_material), no unit.
    """
    material = np.arange(count, dtype=np.uint8)
    indicator = labels[..., None] == material
    level = indicator.astype(np.float32)
    out = np.empty_like(level)
    for correction in range(_CORRECTIONS + 1):
        for k in range(count):
            once = ndimage.gaussian_filter(level[..., k], _SMOOTH, mode="nearest", truncate=3.0)
            out[..., k] = 2 * once - ndimage.gaussian_filter(once, _SMOOTH, mode="nearest", truncate=3.0)
        if correction == _CORRECTIONS:
            break
        mine = np.take_along_axis(out, labels[..., None].astype(np.int64), -1)
        rest = np.where(indicator, -np.inf, out)
        rival = rest.argmax(-1)[..., None]
        lack = np.maximum(_MARGIN + np.take_along_axis(rest, rival, -1) - mine, 0)
        level += lack * indicator
        level -= lack * (material == rival)
    return out


def _fractions_tell_more(head: Head) -> bool:
    """Whether the fractions are not those of the labels (as of spheres, whose fractions are exact)."""
    labels, fine = np.asarray(head.labels), np.linalg.norm(np.asarray(head.labels_affine)[:3, :3], axis=0)
    cells = [_overlap.count_cells(n, h, head.spacing) for n, h in zip(labels.shape, fine, strict=True)]
    if tuple(cells) != head.shape:  # a cropped head: made from labels
        return False
    matrices = [_overlap.overlap_matrix(n, h, head.spacing) for n, h in zip(labels.shape, fine, strict=True)]
    for k, f in enumerate(np.asarray(head.fractions)):
        cut = (f > 0) & (f < 1)
        if cut.any() and np.abs(_overlap.average(labels == k + 1, matrices) - f)[cut].mean() > _SAME:
            return True
    return False


def _build_lattice(head: Head, edge: float) -> tuple[np.ndarray, np.ndarray]:
    """Lattice along the head's axes round all that is not air: cubes of `edge` near the brain's interfaces, else twice.

    Where a head has neither white nor grey matter, all are small.
    """
    spacing, axes = head.spacing, np.asarray(head.affine, np.float64)[:3, :3] / head.spacing
    fractions = np.asarray(head.fractions)
    total = fractions.sum(0)
    occupied = np.argwhere(total > 0)
    low, high = occupied.min(0) - 0.5, occupied.max(0) + 0.5
    cube = 2 * edge
    shape = np.ceil((high - low) * spacing / cube).astype(int) + 2
    middle = (low + high) / 2
    cubes = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) + 0.5
    index = np.moveaxis((cubes - shape / 2) * cube / spacing + middle, -1, 0)

    def distance(away):
        """From cubes' centres to the voxels, mm."""
        reach = int(np.ceil(2 * cube / spacing))
        far = ndimage.distance_transform_edt(np.pad(away, reach, constant_values=True)).astype(np.float32) * spacing
        return ndimage.map_coordinates(far, index + reach, order=1, mode="nearest")

    # half a cube's diagonal, and half a cube for the neighbours that cover its outer parts
    used = distance(total == 0) < 1.4 * cube + spacing
    brain = [k for k, name in enumerate(head.tissues) if name in _BRAIN]
    fine = used if not brain else used & (distance(~_find_interface(fractions, total, brain)) < REACH * edge)
    count = 16 * int(fine.sum()) + 2 * int(used.sum())
    if count > _LARGEST:
        raise ValueError(f"spacing: {edge:g} mm makes about {count:,} nodes; take a coarser one.")
    nodes, elements = _bisection.build_lattice(fine, used)
    centre = np.asarray(head.affine, np.float64)[:3, 3] + axes @ middle * spacing
    return (nodes - shape) * edge @ axes.T + centre, elements


def _find_interface(fractions, total, brain) -> Bool[np.ndarray, "nx ny nz"]:
    """Voxels at boundaries of the tissues numbered `brain`."""
    most = np.where(total > 0.5, fractions.argmax(0), -1)
    out = (fractions[brain].max(0) > 0) & (fractions.max(0) < 0.999)
    for axis in range(3):
        a, b = np.moveaxis(most, axis, 0)[:-1], np.moveaxis(most, axis, 0)[1:]
        step = (a != b) & (np.isin(a, brain) | np.isin(b, brain))
        np.moveaxis(out, axis, 0)[:-1] |= step
        np.moveaxis(out, axis, 0)[1:] |= step
    return out


def _insert_hidden(levels, nodes, elements, material):
    """A node on edges in whose middle a material wins that neither end has, and the nodes' materials."""
    edges = np.unique(_bisection.edge_keys(elements))
    best = np.zeros(len(edges), np.float32)
    at, winner = np.zeros(len(edges)), np.zeros(len(edges), np.int64)
    for start in range(0, len(edges), _BATCH_SIZE):
        part = slice(start, start + _BATCH_SIZE)
        a, b = _bisection.edge_ends(edges[part]).T
        for t in (0.5, 0.3, 0.7):
            level = levels(nodes[a] + t * (nodes[b] - nodes[a]))
            top = level.argmax(1)
            ends = np.maximum(_level_of(level, material[a]), _level_of(level, material[b]))
            lead = _level_of(level, top) - ends
            more = lead > best[part]
            best[part] = np.where(more, lead, best[part])
            at[part] = np.where(more, t, at[part])
            winner[part] = np.where(more, top, winner[part])
    order = np.flatnonzero(best > 0)
    order = order[np.argsort(-best[order], kind="stable")]
    if not len(order):
        return nodes, elements, material
    a, b = _bisection.edge_ends(edges[order]).T
    elements = _bisection.bisect(elements, edges[order], len(nodes))
    nodes = np.concatenate([nodes, nodes[a] + at[order, None] * (nodes[b] - nodes[a])])
    return nodes, elements, np.concatenate([material, winner[order]])


def _snap(levels, nodes, elements, meets):
    """Nodes moved onto interfaces near them, as far as no element loses most of its volume."""
    bits = meets[elements]
    mixed = (bits != bits[:, :1]).any(1)
    edges = np.unique(_bisection.edge_keys(elements[mixed]))
    start, end = _bisection.edge_ends(edges).T
    crossed = meets[start] != meets[end]
    start, end = start[crossed], end[crossed]
    if not len(start):
        return nodes, meets
    at = _find_crossings(levels, nodes[start], nodes[end], meets[start])
    node, at = np.concatenate([start, end]), np.concatenate([at, 1 - at])
    towards = np.concatenate([end, start])
    near = at < _SNAP
    node, towards, at = node[near], towards[near], at[near]
    length = np.linalg.norm(nodes[node] - nodes[towards], axis=1)
    order = np.lexsort((at * length, node))
    node, first = np.unique(node[order], return_index=True)
    order = order[first]
    target = nodes[node] + at[order, None] * (nodes[towards[order]] - nodes[node])
    both = _find_meeting(levels(target), meets[node])
    moved = np.zeros(len(nodes), bool)
    moved[node] = True
    affected = elements[moved[elements].any(1)]
    volume = _signed_volumes(nodes, affected)
    accepted = np.ones(len(node), bool)
    while True:
        out = nodes.copy()
        out[node[accepted]] = target[accepted]
        flat = _signed_volumes(out, affected) < _KEPT * volume
        moved[:] = False
        moved[affected[flat]] = True
        back = accepted & moved[node]
        if not back.any():
            break
        accepted &= ~back
    meets = meets.copy()
    meets[node[accepted]] = both[accepted]
    return out, meets


def _find_crossings(levels, a, b, bits) -> Float[np.ndarray, " n"]:
    """Where, from 0 at a to 1 at b, the materials in `bits` stop winning."""
    low, high = np.zeros(len(a)), np.ones(len(a))
    for _ in range(_STEPS):
        t = (low + high) / 2
        mine, rest = _split_levels(levels(a + t[:, None] * (b - a)), bits)
        win = mine.max(1) > rest.max(1)
        low, high = np.where(win, t, low), np.where(win, high, t)
    return (low + high) / 2


def _split_levels(level, bits):
    """Levels of the materials in `bits` and of the others, -inf elsewhere."""
    mine = ((bits[:, None] >> np.arange(level.shape[1])) & 1).astype(bool)
    return np.where(mine, level, -np.inf), np.where(mine, -np.inf, level)


def _find_meeting(level, bits):
    """Bits of the best material in `bits` and of the best of the others."""
    mine, rest = _split_levels(level, bits)
    return np.left_shift(1, mine.argmax(1)) | np.left_shift(1, rest.argmax(1))


def _assign_materials(levels, nodes, elements, meets) -> Int[np.ndarray, " element"]:
    """The material that an element's nodes share; among several the highest at its centroid."""
    bits = meets[elements]
    shared: np.ndarray = np.bitwise_and.reduce(bits, axis=1)
    either: np.ndarray = np.bitwise_or.reduce(bits, axis=1)
    may: np.ndarray = np.where(shared > 0, shared, either)
    out = np.rint(np.log2(may)).astype(np.int64)
    open_ = np.flatnonzero(may & (may - 1))
    mine, _ = _split_levels(levels(nodes[elements[open_]].mean(1)), may[open_])
    out[open_] = mine.argmax(1)
    return out


def _argmax(levels, points) -> Int[np.ndarray, " n"]:
    parts = [levels(points[i : i + _BATCH_SIZE]).argmax(1) for i in range(0, len(points), _BATCH_SIZE)]
    return np.concatenate(parts)


def _level_of(level, material):
    return np.take_along_axis(level, material[:, None], 1)[:, 0]


def _signed_volumes(nodes, elements):
    a, b, c, d = (nodes[elements[:, i]] for i in range(4))
    return np.einsum("ni,ni->n", np.cross(b - a, c - a), d - a) / 6
