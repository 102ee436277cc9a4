"""The stiffness as a stencil on the nodes: what a solver applies hundreds of times.

`apply_scalar` keeps one conductivity a voxel. A cube's trilinear stiffness is sigma h [1/3 on the diagonal, 0 along
edges, -1/12 on the diagonals of faces and of the body]. `apply_tensor` keeps, for a tensor conductivity, the 14
coefficients of the symmetric 27-point stencil; on a CPU that is five times the traffic of `apply_scalar`.

Coefficients and potentials carry a halo of one: a haloed potential is the only array that a stencil reads at several
places, so it is the only one that must exist in memory; all else fuses around it.
"""

from itertools import product

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

_CORNERS: list[tuple[int, ...]] = list(product((0, 1), repeat=3))
# one of each pair of opposite neighbours, the node itself first
NEIGHBOURS = [d for d in product((-1, 0, 1), repeat=3) if d >= (0, 0, 0)]


def _shift_window(a, offset, shape):
    """The window of `shape` in the haloed `a`, moved by `offset`."""
    x, y, z = (slice(1 + o, 1 + o + n) for o, n in zip(offset, shape, strict=True))
    return a[..., x, y, z]


def halo(a: Float[Array, "*batch nx ny nz"], width: int = 1) -> Float[Array, "*batch mx my mz"]:
    """`a` with a border of zeros."""
    return jnp.pad(a, [(0, 0)] * (a.ndim - 3) + [(width, width)] * 3)


def interior(a: Float[Array, "*batch mx my mz"], width: int = 1) -> Float[Array, "*batch nx ny nz"]:
    """`a` without its border."""
    inner = slice(width, -width) if width else slice(None)
    return a[..., inner, inner, inner]


def scalar_coefficients(conductivity: Float[Array, "nx ny nz"], h, width: int = 1) -> Float[Array, "mx my mz"]:
    """sigma h (S) with a halo of air."""
    return jnp.pad(conductivity * h, width)


def apply_scalar(
    coefficients: Float[Array, "cx cy cz"], potential: Float[Array, "*batch mx my mz"]
) -> Float[Array, "*batch cx-1 cy-1 cz-1"]:
    """K phi (A) of a haloed potential (V) for scalar conductivities; `coefficients` of `scalar_coefficients`.

    Both have a halo of the same width, the product one that is narrower by one.
    """
    shape = tuple(n - 2 for n in potential.shape[-3:])
    return _sum_voxels(coefficients, shape, interior(potential) / 3, lambda d: _shift_window(potential, d, shape))


def scalar_differences(
    coefficients: Float[Array, "cx cy cz"], parts: tuple[Float[Array, "*batch mx my mz"], ...]
) -> Float[Array, "*batch cx-1 cy-1 cz-1"]:
    """`apply_scalar` of the sum of `parts`, from differences of neighbours: rounding is relative to those, not to u."""
    shape = tuple(n - 2 for n in parts[0].shape[-3:])
    return _sum_voxels(coefficients, shape, jnp.zeros((), parts[0].dtype), lambda d: _difference(parts, d, shape))


def _sum_voxels(coefficients, shape, node, neighbour):
    """The sum over a node's eight voxels of what a cube's matrix makes of `node` and of each `neighbour` (offset)."""
    out = jnp.zeros((), node.dtype)
    for a in _CORNERS:  # the voxel of which the node is corner a
        inner = node
        for b in _CORNERS:
            d = tuple(q - p for p, q in zip(a, b, strict=True))
            if sum(map(abs, d)) >= 2:
                inner = inner - neighbour(d) / 12
        voxel = tuple(slice(1 - p, 1 - p + n) for p, n in zip(a, shape, strict=True))
        out = out + coefficients[voxel] * inner
    return out


def _difference(parts, offset, shape):
    """From every node to its neighbour at `offset`, of the sum of haloed `parts`."""
    steps = [_shift_window(u, offset, shape) - interior(u) for u in parts]
    return sum(steps[1:], steps[0])


def scalar_diagonal(coefficients: Float[Array, "cx cy cz"]) -> Float[Array, "cx-1 cy-1 cz-1"]:
    """The diagonal of K."""
    shape = tuple(n - 1 for n in coefficients.shape)
    total = jnp.zeros(shape, coefficients.dtype)
    for a in _CORNERS:
        total = total + coefficients[tuple(slice(p, p + n) for p, n in zip(a, shape, strict=True))]
    return total / 3


def element_stiffness() -> np.ndarray:
    """Stiffness of the unit cube, (8, 8, 6): entry [a, b] multiplies Sxx, Syy, Szz, Sxy, Sxz, Syz.

    Corners in the order of `itertools.product((0, 1), repeat=3)`; times the edge length h it is the element's matrix.
    """
    signs = 2 * np.array(_CORNERS) - 1
    matrix = np.zeros((8, 8, 6))
    for p, s in enumerate(signs):
        for q, t in enumerate(signs):
            even = 1 + s * t / 3
            for m in range(3):
                i, j = (n for n in range(3) if n != m)
                matrix[p, q, m] = s[m] * t[m] * even[i] * even[j] / 16
            for m, (i, j, k) in enumerate(((0, 1, 2), (0, 2, 1), (1, 2, 0)), start=3):
                matrix[p, q, m] = (s[i] * t[j] + s[j] * t[i]) * even[k] / 16
    return matrix


def tensor_coefficients(components: tuple, h) -> tuple[Float[Array, "mx my mz"], ...]:
    """The 14 coefficients (S) of every node's stencil, with a halo, from the voxels' conductivity tensors.

    Apart, not stacked: on a fine grid they are the largest arrays of all, and stacking them would need them twice.
    """
    matrix = element_stiffness()
    voxels = [halo(c * h) for c in components]
    shape = tuple(n - 1 for n in voxels[0].shape)
    coefficients = []
    for d in NEIGHBOURS:
        total = jnp.zeros(shape, voxels[0].dtype)
        for p, a in enumerate(_CORNERS):
            b = tuple(x + y for x, y in zip(a, d, strict=True))
            if b not in _CORNERS:
                continue
            # node n is corner a of voxel n - a, which stands at n - a + 1 in the haloed array
            window = tuple(slice(1 - x, 1 - x + n) for x, n in zip(a, shape, strict=True))
            weights = matrix[p, _CORNERS.index(b)]
            # Python numbers: NumPy's would make the coefficients float64 where that is enabled
            total = total + sum(float(w) * voxels[m][window] for m, w in enumerate(weights) if w)
        coefficients.append(jnp.pad(total, 1))
    return tuple(coefficients)


def apply_tensor(
    coefficients: tuple[Float[Array, "mx my mz"], ...], potential: Float[Array, "*batch mx my mz"]
) -> Float[Array, "*batch mx-2 my-2 mz-2"]:
    """K phi (A) of a haloed potential (V) for tensor conductivities; `coefficients` of `tensor_coefficients`."""
    shape = tuple(n - 2 for n in potential.shape[-3:])
    out = interior(coefficients[0]) * interior(potential)
    return _add_neighbours(coefficients, out, lambda d: _shift_window(potential, d, shape), shape)


def tensor_differences(
    coefficients: tuple[Float[Array, "mx my mz"], ...], parts: tuple[Float[Array, "*batch mx my mz"], ...]
) -> Float[Array, "*batch mx-2 my-2 mz-2"]:
    """`apply_tensor` of the sum of `parts`, from differences of neighbours: every row of K adds up to zero."""
    shape = tuple(n - 2 for n in parts[0].shape[-3:])
    out = jnp.zeros((), parts[0].dtype)
    return _add_neighbours(coefficients, out, lambda d: _difference(parts, d, shape), shape)


def _add_neighbours(coefficients, out, neighbour, shape):
    """`out` and what the stencil makes of each `neighbour` (offset); opposite ones share a coefficient."""
    for m, d in enumerate(NEIGHBOURS[1:], start=1):
        back = tuple(-x for x in d)
        out = out + interior(coefficients[m]) * neighbour(d)
        out = out + _shift_window(coefficients[m], back, shape) * neighbour(back)
    return out
