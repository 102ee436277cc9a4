"""Whether arrays are a mesh on which a field can be computed; errors name the first element that is not."""

import numpy as np
from jaxtyping import Float, Int, Integer
from scipy import sparse
from scipy.sparse import csgraph

from jaxm2m.head import _mesh_geometry
from jaxm2m.head._label_tables import LabelGeometry

_FLAT = 1e-10  # of the longest edge cubed; a regular tetrahedron has 0.118
_ISLAND = 0.01  # of the volume
_SMALLEST, _WIDEST = 2.0, 5000.0  # mm


def check_arrays(nodes, elements, tags, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nodes, elements and tags of matching shapes, without NaN, and every row in range."""
    nodes, elements, tags = np.asarray(nodes, np.float64), np.asarray(elements), np.asarray(tags)
    if nodes.ndim != 2 or nodes.shape[1:] != (3,) or not len(nodes):
        raise ValueError(f"{name}: nodes of shape {nodes.shape}; (n, 3) in mm are needed.")
    if elements.ndim != 2 or elements.shape[1:] != (4,) or elements.dtype.kind not in "iu" or not len(elements):
        raise ValueError(
            f"{name}: elements are {elements.dtype} of shape {elements.shape}; (m, 4) whole numbers, tetrahedra, are "
            "needed."
        )
    if tags.shape != elements.shape[:1] or tags.dtype.kind not in "iu":
        raise ValueError(
            f"{name}: tags are {tags.dtype} of shape {tags.shape} for {len(elements)} tetrahedra; give each a whole "
            "number."
        )
    low, high = int(elements.min()), int(elements.max())
    if low < 0 or high >= len(nodes):
        wrong = np.flatnonzero(((elements < 0) | (elements >= len(nodes))).any(1))
        raise ValueError(
            f"{name}: {len(wrong)} of {len(elements)} tetrahedra name a node that is not there (nodes 0 to "
            f"{len(nodes) - 1}; tetrahedron {wrong[0]} has {elements[wrong[0]].tolist()}); export the mesh again."
        )
    good = np.isfinite(nodes).all(1)
    if not good.all():
        wrong = np.flatnonzero(~good)
        raise ValueError(
            f"{name}: {len(wrong)} of {len(nodes)} nodes are NaN or infinite (first node {wrong[0]}); export the mesh "
            "again."
        )
    return nodes, elements.astype(np.int64, copy=False), tags


def check_unit(nodes: Float[np.ndarray, "n 3"], elements: Int[np.ndarray, "m 4"], name: str) -> None:
    """Refuse a mesh that is no head in mm."""
    used = np.zeros(len(nodes), bool)
    used[elements.reshape(-1)] = True
    extent = np.ptp(nodes[used], axis=0)
    if extent.max() < _SMALLEST or extent.max() > _WIDEST:
        size = " x ".join(f"{length:.3g}" for length in extent)
        guess = "metres" if extent.max() < _SMALLEST else "micrometres"
        raise ValueError(f"{name}: the mesh is {size} mm; it seems to be in {guess}, convert its nodes to mm.")


def measure_labels(
    nodes: Float[np.ndarray, "n 3"], elements: Int[np.ndarray, "m 4"], tags: Integer[np.ndarray, " m"]
) -> LabelGeometry:
    """The geometry of a mesh's tags: what lies outside, what touches what, and parts."""
    volumes = np.abs(_mesh_geometry.compute_volumes(nodes, elements)) / 1000
    values, where = np.unique(tags, return_inverse=True)
    total = np.bincount(where, volumes)
    # the sum of random numbers of its corners names a face, whatever their order
    number = np.random.default_rng(0).integers(0, 1 << 63, elements.max() + 1, np.uint64)
    corners = number[elements]
    keys = (corners.sum(1, dtype=np.uint64)[:, None] - corners).reshape(-1)
    order = np.argsort(keys)
    shared = np.flatnonzero(keys[order[1:]] == keys[order[:-1]])
    single = np.ones(len(keys), bool)
    single[order[shared]] = single[order[shared + 1]] = False
    faces = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])

    def measure_areas(chosen: np.ndarray) -> np.ndarray:
        a, b, c = (nodes[elements[chosen // 4, faces[chosen % 4, k]]] for k in range(3))
        return np.linalg.norm(np.cross(b - a, c - a), axis=-1) / 2

    outer = np.flatnonzero(single)
    area = np.bincount(where[outer // 4], measure_areas(outer), len(values))

    def measure_parts(label: int) -> list[float]:
        inside = tags == label
        first, second = order[shared] // 4, order[shared + 1] // 4
        both = inside[first] & inside[second]
        n = len(tags)
        graph = sparse.coo_array((np.ones(both.sum(), bool), (first[both], second[both])), (n, n))
        _, part = csgraph.connected_components(graph, directed=False)
        sizes = np.bincount(part[inside], volumes[inside])
        return sorted(sizes[sizes > 0].tolist(), reverse=True)

    def measure_contacts(label: int) -> dict[int, float]:
        first, second = order[shared], order[shared + 1]
        contacts: dict[int, float] = {}
        for a, b in ((first, second), (second, first)):
            chosen = (tags[a // 4] == label) & (tags[b // 4] != label)
            sums = np.bincount(where[b[chosen] // 4], measure_areas(a[chosen]), len(values))
            for value, s in zip(values.tolist(), sums.tolist(), strict=True):
                contacts[value] = contacts.get(value, 0.0) + s
        return {value: s for value, s in contacts.items() if s > 0}

    return LabelGeometry(
        volume=dict(zip(values.tolist(), total.tolist(), strict=True)),
        outside={v: a for v, a in zip(values.tolist(), area.tolist(), strict=True) if a > 0},
        measure_parts=measure_parts,
        measure_contacts=measure_contacts,
    )


def orient(
    nodes: Float[np.ndarray, "n 3"],
    elements: Int[np.ndarray, "m 4"],
    kept: Int[np.ndarray, " k"],
    numbers: Integer[np.ndarray, " m"],
    name: str,
) -> tuple[Int[np.ndarray, "m 4"], list[str]]:
    """Elements of positive volume, and remarks; only those `kept` are looked at."""
    corners = elements[kept]
    volume = _mesh_geometry.compute_volumes(nodes, corners)
    # no edge is longer than the box: few elements need theirs measured
    flat = np.abs(volume) <= _FLAT * np.linalg.norm(np.ptp(nodes, axis=0)) ** 3
    flat[flat] = np.abs(volume[flat]) <= _FLAT * _mesh_geometry.longest_edges(nodes, corners[flat]) ** 3
    if flat.any():
        raise ValueError(
            f"{name}: {int(flat.sum())} of {len(corners)} tetrahedra have no volume, "
            f"{_describe_place(nodes, corners, numbers[kept], flat)}; mesh the head anew or remove them."
        )
    inverted = volume < 0
    if not inverted.any():
        return elements, []
    if not inverted.all():
        few = inverted if inverted.sum() <= len(inverted) / 2 else ~inverted
        raise ValueError(
            f"{name}: {int(few.sum())} of {len(corners)} tetrahedra are turned inside out against the others, "
            f"{_describe_place(nodes, corners, numbers[kept], few)}; mesh the head anew, or repair the mesh."
        )
    return elements[:, [0, 2, 1, 3]], ["all tetrahedra were inverted and have been turned"]


def check_distinct(
    elements: Int[np.ndarray, "m 4"],
    kept: Int[np.ndarray, " k"],
    numbers: Integer[np.ndarray, " m"],
    name: str,
) -> None:
    """Refuse a tetrahedron that is there twice: its place would conduct double."""
    # the sum of random numbers of the corners knows no order, and of millions no two agree by chance
    number = np.random.default_rng(0).integers(0, 1 << 63, elements.max() + 1, np.uint64)
    key = number[elements[kept]].sum(1, dtype=np.uint64)
    repeated = len(key) - len(np.unique(key))
    if repeated:
        order = np.argsort(key, kind="stable")
        second = np.flatnonzero(np.diff(key[order]) == 0)[0]
        one, other = numbers[kept[order[second : second + 2]]].tolist()
        raise ValueError(
            f"{name}: {repeated} tetrahedra are there twice (such as the numbers {one} and {other}); keep one of each."
        )


def keep_connected(
    nodes: Float[np.ndarray, "n 3"], elements: Int[np.ndarray, "m 4"], kept: Int[np.ndarray, " k"], name: str
) -> tuple[Int[np.ndarray, " left"], list[str]]:
    """Those of `kept` that hang together, and remarks."""
    corners = elements[kept]
    start, end = np.repeat(corners[:, 0], 3), corners[:, 1:].reshape(-1)
    links = sparse.coo_array((np.ones(len(start), np.int8), (start, end)), shape=(len(nodes),) * 2)
    _, part = csgraph.connected_components(links, directed=False)
    part = np.unique(part[corners[:, 0]], return_inverse=True)[1]
    size = np.bincount(part, np.abs(_mesh_geometry.compute_volumes(nodes, corners)))
    if len(size) == 1:
        return kept, []
    share = np.sort(size / size.sum())[::-1]
    if share[1] > _ISLAND:
        count = int((share > _ISLAND).sum())
        raise ValueError(
            f"{name}: {count} parts that share no node ({', '.join(f'{100 * s:.0f} %' for s in share[:count])} of the "
            "volume); merge doubled nodes where tissues meet, or drop parts that are no head."
        )
    largest = part == size.argmax()
    ml = (size.sum() - size.max()) / 1000
    return kept[largest], [f"{int((~largest).sum())} tetrahedra ({ml:.3g} ml) in islands apart from the head removed"]


def compute_anisotropy(
    tensors: np.ndarray,
    kept: Int[np.ndarray, " k"],
    scalar: Float[np.ndarray, " k"],
    numbers: Integer[np.ndarray, " m"],
    name: str,
) -> Float[np.ndarray, "k 3 3"]:
    """Tensors over their tissue's scalar conductivity, the identity where there is none."""
    tensors = np.asarray(tensors)
    if tensors.ndim != 3 or tensors.shape[1:] != (3, 3) or tensors.dtype.kind not in "iuf":
        raise ValueError(f"{name}: conductivity tensors of shape {tensors.shape}; (m, 3, 3) in S/m are needed.")
    if len(tensors) != len(numbers):
        raise ValueError(f"{name}: {len(tensors)} conductivity tensors for {len(numbers)} tetrahedra; give each one.")
    out = tensors[kept].astype(np.float64)
    none = np.isnan(out).any((1, 2)) | (out == 0).all((1, 2))
    out[none] = np.eye(3) * scalar[none, None, None]
    size = np.abs(out).max((1, 2))
    skew = np.abs(out - out.transpose(0, 2, 1)).max((1, 2)) > 1e-3 * size
    out = (out + out.transpose(0, 2, 1)) / 2
    # a bound on the contrast of directions: what is flatter than that is an error of the fit, not tissue
    wrong = ~np.isfinite(size) | skew
    wrong[~wrong] = np.linalg.eigvalsh(out[~wrong])[:, 0] <= 1e-6 * size[~wrong]
    if wrong.any():
        first = np.flatnonzero(wrong)[0]
        what = "not symmetric" if skew[first] else "not positive definite"
        raise ValueError(
            f"{name}: {int(wrong.sum())} of {len(out)} conductivity tensors are not symmetric and positive definite "
            f"(the first number {numbers[kept[first]]}: {what}); repair them, or set them to 0 to take the tissue's "
            "scalar."
        )
    return (out / scalar[:, None, None]).astype(np.float32)


def _describe_place(nodes, elements, numbers, chosen) -> str:
    first = np.flatnonzero(chosen)[0]
    x, y, z = nodes[elements[first]].mean(0)
    return f"the first number {numbers[first]} at ({x:.1f}, {y:.1f}, {z:.1f}) mm"
