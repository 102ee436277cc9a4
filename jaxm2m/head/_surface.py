"""A closed surface as a smooth signed distance, differentiable in JAX."""

from functools import cached_property, partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy import ndimage

from jaxm2m import _check, _linear, _spline
from jaxm2m._isosurface import isosurface
from jaxm2m._norm import norm
from jaxm2m._precision import full_precision
from jaxm2m._pytree import tree
from jaxm2m._types import ArrayLike

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
        """Compute the signed distance of points to the surface; differentiable.

        Parameters
        ----------
        points
            (..., 3) mm.

        Returns
        -------
        (...) array
            mm, negative inside.
        """
        return _distance(self.coefficients, self.affine, _as_points(points))

    def normal(self, points: Points) -> Float[Array, "*point 3"]:
        """Compute the unit gradient of the distance: the outward normal at the surface.

        Parameters
        ----------
        points
            (..., 3) mm.

        Returns
        -------
        (..., 3) array
            Unit vectors (no unit). Zero only where the gradient vanishes, never NaN.
        """
        return _normal(self.coefficients, self.affine, _as_points(points))

    def gradient(self, points: Points) -> Float[Array, "*point 3"]:
        """Compute the gradient of the distance.

        Parameters
        ----------
        points
            (..., 3) mm.

        Returns
        -------
        (..., 3) array
            mm per mm.
        """
        return _gradient(self.coefficients, self.affine, _as_points(points))

    def nearest(self, points: Points, steps: int = 10) -> Float[Array, "*point 3"]:
        """Find the point of the surface nearest to each point.

        A fixed number of closest-point steps, each a damped slide along the tangent plane towards the point and a
        Newton step onto the surface, q -> q - d(q) g / |g|^2; then three Newton steps on d(q) = 0, p - q = l g(q),
        left out where they are long. Derivatives, of any order, are those of that solution (implicit function
        theorem), not of the steps.

        Parameters
        ----------
        points
            (..., 3) mm.
        steps
            Number of closest-point steps.

        Returns
        -------
        (..., 3) array
            Points of the surface, mm.
        """
        return _nearest(self.coefficients, self.affine, _as_points(points), steps)

    def find_nearest(self, point: ArrayLike) -> Float[np.ndarray, "3"]:
        """Find the point of the surface nearest to one point, as `nearest` does, by NumPy: compiles nothing.

        Parameters
        ----------
        point
            (3,) mm.

        Returns
        -------
        (3,) float64 array
            A point of the surface, mm.
        """
        coefficients, affine = np.asarray(self.coefficients), np.asarray(self.affine, np.float64)
        inverse = np.linalg.inv(affine[:3, :3])
        target = inverse @ (np.asarray(point, np.float64) - affine[:3, 3])
        steps = np.concatenate([np.zeros((1, 3)), 1e-2 * np.eye(3), -1e-2 * np.eye(3)])
        size = np.array(coefficients.shape) - 1.0
        spacing = np.cbrt(abs(np.linalg.det(affine[:3, :3])))
        place = target.copy()  # in voxels, whose edges are all as long
        for i in range(60):
            inner = np.clip(place + steps, 0, size)
            beyond = spacing * np.linalg.norm(place + steps - inner, axis=1)
            values = ndimage.map_coordinates(coefficients, inner.T, order=3, mode="mirror", prefilter=False) + beyond
            value, slope = values[0] / spacing, (values[1:4] - values[4:]) / (2e-2 * spacing)
            square = max(slope @ slope, 0.25)
            away = target - place
            normal = away @ slope / square
            slide = (away - slope * normal) / (1 + abs(normal) * spacing / 20) if i > 1 else 0.0
            move = slide - value * slope / square
            place = place + move
            if i > 2 and np.linalg.norm(move) * spacing < 1e-6:
                break
        return affine[:3, :3] @ place + affine[:3, 3]

    @property
    def vertices(self) -> Float[np.ndarray, "n 3"]:
        """Vertices (n, 3) of the triangulation (mm), on the host; made on first use."""
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
            vertices, triangles = isosurface(values, 0.0)
        except ValueError:
            return np.zeros((0, 3)), np.zeros((0, 3), np.int32)
        low, high = np.asarray(self.limits)
        inside = ((vertices >= low - 1e-4) & (vertices <= high + 1e-4)).all(1)
        triangles = triangles[inside[triangles].all(1)]
        used, triangles = np.unique(triangles, return_inverse=True)
        affine = np.asarray(self.affine, np.float64)
        return vertices[used] @ affine[:3, :3].T + affine[:3, 3], triangles.reshape(-1, 3).astype(np.int32)


def _as_points(points):
    p = jnp.asarray(_check.points(points, "points"))
    return p if jnp.issubdtype(p.dtype, jnp.floating) else p.astype(jnp.result_type(float))


@jax.jit
@full_precision
def _distance(coefficients, affine, p):
    # the affine's inverse: that of a rotation times a spacing
    a = jnp.asarray(affine).astype(p.dtype)
    square = (a[:3, 0] ** 2).sum()
    index = jnp.einsum("...i,ij->...j", p - a[:3, 3], a[:3, :3] / square, precision=jax.lax.Precision.HIGHEST)
    inner = jnp.clip(index, 0, jnp.asarray(coefficients.shape, p.dtype) - 1)
    beyond = norm(index - inner) * jnp.sqrt(square)
    return _spline.evaluate(coefficients, inner).astype(p.dtype) + beyond


@jax.jit
@full_precision
def _gradient(coefficients, affine, p):
    value, pullback = jax.vjp(lambda x: _distance(coefficients, affine, x), p)
    return pullback(jnp.ones_like(value))[0]


@jax.jit
def _normal(coefficients, affine, p):
    g = _gradient(coefficients, affine, p)
    length = norm(g)[..., None]
    return g / jnp.where(length > 0, length, 1)


@partial(jax.jit, static_argnums=3)
@full_precision
def _nearest(coefficients, affine, p, steps):
    def value_and_gradient(q):
        d, g = jax.value_and_grad(lambda x: _distance(coefficients, affine, x))(q)
        return d, g, jnp.maximum(g @ g, 0.25)

    def one(p):
        def conditions(unknown):
            q, multiplier = unknown[:3], unknown[3]
            d, g, _ = value_and_gradient(q)
            return jnp.append(p - q - multiplier * g, d)

        def step(i, z):
            q = z[:3]
            d, g, square = value_and_gradient(q)
            away = p - q
            normal = away @ g / square
            tangent = away - g * normal
            # the first steps reach the surface, as does one more at the end; from a height d over a curvature k a slide
            # is 1 + k d times too long
            slide = jnp.where((i > 1) & (i < steps), 1 / (1 + jnp.abs(normal) / 20), 0.0)
            q = q - d * g / square + slide * tangent
            return jnp.append(q, (p - q) @ g / square)

        def polish(_, z):
            # Newton's step by blocks: (1 + m H) dq + g dm = p - q - m g, g . dq = - d
            q, multiplier = z[:3], z[3]
            d, g, _ = value_and_gradient(q)
            hessian = jax.jacfwd(lambda x: value_and_gradient(x)[1])(q)
            inverse = _linear.inverse(jnp.eye(3, dtype=q.dtype) + multiplier * hessian)
            rest = inverse @ (p - q - multiplier * g)
            change = (g @ rest + d) / (g @ inverse @ g)
            move = rest - change * (inverse @ g)
            near = move @ move < 4.0  # mm^2; false for NaN: a step this long is no polish
            return jnp.where(near, jnp.append(q + move, multiplier + change), z)

        def solve(_, start):
            return jax.lax.fori_loop(0, 3, polish, jax.lax.fori_loop(0, steps + 1, step, start))

        def tangent_solve(linear, right):
            return _linear.solve(jax.vmap(linear)(jnp.eye(4, dtype=right.dtype)).T, right)

        return jax.lax.custom_root(conditions, jnp.append(p, jnp.zeros((), p.dtype)), solve, tangent_solve)[:3]

    return jax.vmap(one)(p.reshape(-1, 3)).reshape(p.shape)


def _sample(coefficients: np.ndarray) -> np.ndarray:
    """The spline's values at the grid's own points: the taps 1/6, 2/3, 1/6 along every axis."""
    out = coefficients
    for axis in range(3):
        padded = np.pad(out, [(1, 1) if a == axis else (0, 0) for a in range(3)], mode="reflect")
        n = out.shape[axis]
        low, mid, high = (np.take(padded, range(s, s + n), axis) for s in range(3))
        out = (low + 4 * mid + high) / 6
    return out
