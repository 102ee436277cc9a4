"""A closed surface as a smooth signed distance, differentiable in JAX."""

from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from skimage import measure

from jaxm2m import _check, _spline
from jaxm2m._tree import tree

Points = Float[Array, "*point 3"] | Float[np.ndarray, "*point 3"]


@tree
class Surface:
    r"""Signed distance (mm, negative inside) to a surface, as a cubic B-spline on a regular grid.

    d(p) = spline(p) inside the grid; outside of it d(p) = spline(q) + |p - q| with q the nearest point of the grid's
    box. The value is twice continuously differentiable inside the grid and continuous everywhere. Within a few mm of
    the surface |grad d| = 1 to about 1 %; far away it may fall below it, on the ridges that are equally far from two
    parts of the surface.

    Attributes
    ----------
    coefficients
        (nx, ny, nz) B-spline coefficients of the distance, mm.
    affine
        (4, 4) from index to mm: a rotation times one spacing, and an origin.
    limits
        (2, 3) index coordinates of the box that the data filled: beyond it the surface is a continuation (below a
        head's cut, say) that helps the distance and is left out of `triangles`.
    """

    coefficients: Float[Array, "nx ny nz"] | Float[np.ndarray, "nx ny nz"]
    affine: Float[Array, "4 4"] | Float[np.ndarray, "4 4"]
    limits: Float[Array, "2 3"] | Float[np.ndarray, "2 3"]

    def distance(self, points: Points) -> Float[Array, "*point"]:
        """Signed distance, mm: negative inside, differentiable.

        Parameters
        ----------
        points
            mm.
        """
        p = _points(points)
        index = _index(self.affine, p)
        high = jnp.asarray(self.coefficients.shape, index.dtype) - 1
        inner = jnp.clip(index, 0, high)
        beyond = _norm(index - inner)[..., 0] * _spacing(self.affine, p.dtype)
        return _spline.evaluate(self.coefficients, inner).astype(p.dtype) + beyond

    def normal(self, points: Points) -> Float[Array, "*point 3"]:
        """Unit gradient of the distance: outward at the surface. Zero only where the gradient vanishes, never NaN."""
        g = self.gradient(points)
        length = _norm(g)
        return g / jnp.where(length > 0, length, 1)

    def gradient(self, points: Points) -> Float[Array, "*point 3"]:
        """Gradient of the distance (mm per mm)."""
        p = _points(points)
        flat = p.reshape(-1, 3)
        return jax.grad(lambda x: self.distance(x).sum())(flat).reshape(p.shape)

    def nearest(self, points: Points, steps: int = 8) -> Float[Array, "*point 3"]:
        """Point of the surface nearest to each point, mm.

        A fixed number of closest-point steps, each of a half step along the tangent plane towards the point and a
        Newton step onto the surface: q -> q + (1/2) T (p - q), q -> q - d(q) g / |g|^2. Differentiable.
        """
        p = _points(points)
        p = jnp.reshape(p, (-1, 3))

        def project(q):
            d, g = self._value_and_gradient(q)
            return q - d[:, None] * g / jnp.maximum((g * g).sum(-1, keepdims=True), 0.25)

        def step(_, q):
            d, g = self._value_and_gradient(q)
            g2 = jnp.maximum((g * g).sum(-1, keepdims=True), 0.25)
            away = p - q
            tangent = away - g * (away * g).sum(-1, keepdims=True) / g2
            return project(q - d[:, None] * g / g2 + 0.5 * tangent)

        q = jax.lax.fori_loop(0, steps, step, project(project(p)))
        return project(q).reshape(jnp.shape(points))

    def _value_and_gradient(self, flat):
        value, pullback = jax.vjp(self.distance, flat)
        return value, pullback(jnp.ones_like(value))[0]

    @property
    def vertices(self) -> Float[np.ndarray, "n 3"]:
        """Vertices of the triangulation, mm, on the host; made on first use."""
        return self._triangulation[0]

    @property
    def triangles(self) -> np.ndarray:
        """Triangles (m, 3) as indices into `vertices`, normals outward. Open where the data ended (a head's cut)."""
        return self._triangulation[1]

    @cached_property
    def _triangulation(self):
        # from the spline, not stored: numbers of vertices differ between heads and would make programs compile anew
        values = _sample(np.asarray(self.coefficients, np.float32))
        try:
            vertices, triangles, _, _ = measure.marching_cubes(values, 0.0, gradient_direction="descent")
        except ValueError:
            return np.zeros((0, 3)), np.zeros((0, 3), np.int32)
        low, high = np.asarray(self.limits)
        inside = ((vertices >= low - 1e-4) & (vertices <= high + 1e-4)).all(1)
        triangles = triangles[inside[triangles].all(1)]
        used, triangles = np.unique(triangles, return_inverse=True)
        affine = np.asarray(self.affine, np.float64)
        return vertices[used] @ affine[:3, :3].T + affine[:3, 3], triangles.reshape(-1, 3).astype(np.int32)


def _points(points):
    p = jnp.asarray(_check.points(points, "points"))
    return p if jnp.issubdtype(p.dtype, jnp.floating) else p.astype(jnp.result_type(float))


def _spacing(affine, dtype):
    a = jnp.asarray(affine)
    return jnp.sqrt((a[:3, 0] ** 2).sum()).astype(dtype)


def _index(affine, p):
    # the inverse of a rotation times a spacing
    a = jnp.asarray(affine).astype(p.dtype)
    m = a[:3, :3] / (a[:3, 0] ** 2).sum()
    return jnp.einsum("...i,ij->...j", p - a[:3, 3], m, precision=jax.lax.Precision.HIGHEST)


def _norm(v):
    """Length along the last axis, kept, with a zero gradient at zero."""
    square = (v * v).sum(-1, keepdims=True)
    zero = square == 0
    return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, square)))


def _sample(coefficients: np.ndarray) -> np.ndarray:
    """The spline's values at the grid's own points: the taps 1/6, 2/3, 1/6 along every axis."""
    out = coefficients
    for axis in range(3):
        padded = np.pad(out, [(1, 1) if a == axis else (0, 0) for a in range(3)], mode="reflect")
        n = out.shape[axis]
        low, mid, high = (np.take(padded, range(s, s + n), axis) for s in range(3))
        out = (low + 4 * mid + high) / 6
    return out
