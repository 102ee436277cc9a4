"""The field at a point, from the fields of the voxels round it.

The field of a voxel that an interface cuts belongs to none of its tissues: across the interface the normal component
jumps. With the voxel's conductivity sigma_n across the interface and its normal n, the field of tissue t in the voxel
is

    E_t = E + (sigma_n / sigma_t - 1) (E . n) n,

and the field at a point in tissue t is a weighted least-squares fit of E_t, linear in position, over the 27 voxels
round the point, of which those that hold more of the tissue and lie nearer count more,

    w = [f_t > 0.02] max(f_t, 0.1)^2 exp(-1.5 |d|^2 / h^2),

with a ridge of 0.1 sum(w) on the slopes, evaluated at the point. All of it is linear in the field and in 1 / sigma_t.
"""

from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxm2m import _linear
from jaxm2m._pytree import tree

_OFFSETS = np.array(list(product((-1, 0, 1), repeat=3)))
_BATCH_SIZE = 1 << 14  # points whose 27 neighbours are looked up at once


@tree
class Recovery:
    """Weights of the voxels for each point.

    Attributes
    ----------
    weights
        (27, n_point), zero for points that no voxel serves.
    voxels
        (n_point,) flat index of the voxel a point lies in, on a grid with a halo of one.
    tissue
        (n_point,) tissue of each point.
    """

    weights: Float[Array, "27 point"]
    voxels: Int[Array, " point"]
    tissue: Int[Array, " point"]

    @property
    def served(self) -> Bool[Array, " point"]:
        """Points whose tissue is found in the voxels round them."""
        return jnp.any(self.weights != 0, axis=0)

    def __call__(
        self,
        field: Float[Array, "nx ny nz 3"],
        across: Float[Array, "nx ny nz"],
        normal: Float[Array, "3 nx ny nz"],
        conductivity: Float[Array, " tissue"],
    ) -> Float[Array, "point 3"]:
        """Compute the field at the points (V/m, the grid's axes) from that at the voxels' centres."""
        n = jnp.moveaxis(normal, 0, -1)
        jump = (field * n).sum(-1, keepdims=True) * n
        table = jnp.concatenate([field - jump, across[..., None] * jump], axis=-1)
        table = jnp.pad(table, [(1, 1), (1, 1), (1, 1), (0, 0)])
        _, ny, nz, _ = table.shape
        steps = jnp.asarray(_OFFSETS @ (ny * nz, nz, 1), jnp.int32)
        table = table.reshape(-1, 6)

        def add(total: Any, slot: Any) -> Any:
            weight, step = slot
            return total + weight[:, None] * table[self.voxels + step], None

        start = jnp.zeros((self.voxels.shape[0], 6), table.dtype)
        both = jax.lax.scan(add, start, (self.weights, steps))[0]
        return both[:, :3] + both[:, 3:] / _conductivity_at(conductivity, self.tissue)[:, None]


def build_recovery(
    fractions: Float[Array, "tissue nx ny nz"], index: Float[Array, "point 3"], tissue: Int[Array, " point"]
) -> Recovery:
    """Compute the weights that recover the field at points from that at the centres of voxels.

    Parameters
    ----------
    fractions
        (n_tissue, nx, ny, nz) volume fractions of the tissues.
    index
        (n_point, 3) fractional voxel indices of the points.
    tissue
        (n_point,) index of each point's tissue; negative: in none.

    Returns
    -------
    Recovery
        Call it with the field at the voxels' centres, and the voxels' mixtures.
    """
    haloed = jnp.pad(fractions, [(0, 0), (1, 1), (1, 1), (1, 1)])
    shape = haloed.shape[1:]
    offsets = jnp.asarray(_OFFSETS)

    def one(args: Any) -> Any:
        x, t = args
        middle = jnp.clip(jnp.floor(x + 0.5).astype(jnp.int32), 0, jnp.asarray(shape) - 3)
        i, j, k = (middle + 1 + offsets).T
        d = (middle + offsets - x).astype(fractions.dtype)
        f = jnp.where(t >= 0, haloed[jnp.maximum(t, 0), i, j, k], 0)
        w = jnp.where(f > 0.02, jnp.maximum(f, 0.1) ** 2 * jnp.exp(-1.5 * (d * d).sum(-1)), 0)
        # the constant last: the slopes' block is regular wherever there is any weight
        basis = jnp.concatenate([d, jnp.ones_like(d[:, :1])], axis=1)
        total = w.sum()
        ridge = jnp.diag(jnp.asarray([0.1, 0.1, 0.1, 0], d.dtype)) * total
        normal = (basis * w[:, None]).T @ basis + ridge
        served = total > 0
        unit = jnp.eye(4, dtype=d.dtype)
        at_point = _linear.solve(jnp.where(served, normal, unit), unit[3])
        home = ((middle[0] + 1) * shape[1] + middle[1] + 1) * shape[2] + middle[2] + 1
        return jnp.where(served, w * (basis @ at_point), 0), home.astype(jnp.int32)

    weights, voxels = jax.lax.map(one, (index, tissue), batch_size=_BATCH_SIZE)
    return Recovery(weights.T, voxels, jnp.maximum(tissue, 0).astype(jnp.int32))


def dominant_field(
    fractions: Float[Array, "tissue nx ny nz"],
    field: Float[Array, "nx ny nz 3"],
    across: Float[Array, "nx ny nz"],
    normal: Float[Array, "3 nx ny nz"],
    conductivity: Float[Array, " tissue"],
) -> tuple[Float[Array, "nx ny nz 3"], Int[Array, "nx ny nz"]]:
    """Field of the tissue that fills most of each voxel, at its centre, and that tissue (-1 in air)."""
    tissue = jnp.argmax(fractions, 0)
    active = fractions.sum(0) > 0
    n = jnp.moveaxis(normal, 0, -1)
    jump = (field * n).sum(-1, keepdims=True) * n
    ratio = across / _conductivity_at(conductivity, tissue) - 1
    return jnp.where(active[..., None], field + ratio[..., None] * jump, 0), jnp.where(active, tissue, -1)


def _conductivity_at(conductivity: Float[Array, " tissue"], tissue: Int[Array, "*shape"]) -> Float[Array, "*shape"]:
    # a gather would do, but its transpose adds millions of numbers into five: on GPUs by far the slowest step
    return sum((jnp.where(tissue == t, s, 0) for t, s in enumerate(conductivity)), jnp.zeros((), conductivity.dtype))
