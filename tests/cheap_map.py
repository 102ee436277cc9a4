"""A field map whose fields cost nothing, for tests of sessions."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxm2m import coil as coils
from jaxm2m import efield, head
from jaxm2m._pytree import StaticMetadata, tree
from jaxm2m.efield import FieldMap, Region

TARGET = np.array([-40.0, -8.0, 65.0])
HEAD, CORTEX, CORE = 92.0, 78.0, 70.0  # mm, radii of scalp, cortex and white matter


@tree
class Bump:
    """Fields along the coil's y axis that fall off with the distance from the coil, V/m."""

    points: object

    def batch_size(self):
        return 16

    def raise_for_status(self, report):
        assert isinstance(report, jax.core.Tracer) or np.isfinite(report).all()

    def pick(self, active):
        return Bump(self.points[active])

    def fields(self, coil, poses, didt, batch_size):
        away = ((self.points - poses[:, None, :3, 3]) ** 2).sum(-1)
        size = 1e-6 * jnp.broadcast_to(jnp.asarray(didt, away.dtype), away.shape[:1])
        e = (size[:, None] * jnp.exp(-away / (2 * 18.0**2)))[..., None] * poses[:, None, :3, 1]
        return e, jnp.zeros(len(poses), e.dtype)


def cheap_map(shape=(14, 14, 9), spacing=4.0, *, target=TARGET, grey=True):
    """A shell of grey matter on a grid round `target`, under a spherical scalp."""
    dtype = jnp.result_type(float)
    coil = coils.Coil(
        (coils.Dipoles(jnp.zeros((1, 3), dtype), jnp.ones((1, 3), dtype)),),
        None,
        jnp.full(1, jnp.nan, dtype),
        StaticMetadata(name="one dipole"),
    )
    positions = efield.Grid.around(target, shape, spacing).positions()
    radius = np.linalg.norm(positions, axis=1)
    active = np.flatnonzero(radius < CORTEX)
    points = jnp.asarray(positions, dtype)
    tissue = jnp.asarray(np.where(radius[active] > CORE, 1, 0), jnp.int32)
    names = ("white", "grey") if grey else ("inner", "outer")
    return FieldMap(
        Bump(points[active]),
        coil,
        Region(
            jax.tree.map(jnp.asarray, head.sphere((CORE, CORTEX, 80, 86, HEAD), 12.0).scalp),
            points,
            jnp.asarray(active, jnp.int32),
            tissue,
            StaticMetadata(tissues=names, space="sphere"),
        ),
    )
