r"""Least-squares sigmoids, as many at once as there are voxels and muscles.

    y = y0 + (amp - y0) / (1 + exp(-r (x - x0))) ,    r >= 0, amp >= y0 .

For given r and x0 the best y0 and amp are a linear regression, so only two parameters are searched for: in units of the
mean and SD of x, by Levenberg-Marquardt steps on what is left of y once that regression is taken out (variable
projection, with Kaufman's approximation of the Jacobian). The number of steps is fixed.

A foot of the curve without its plateau could be anything. So r keeps between a straight line and a step, and x0 within
the x that there are and a margin of 1 / (1 / s + r / 4), with s the span of x: the logistic function then passes 0.02
at the highest x and is below 0.98 at the lowest. At such a bound the data do not determine the parameters, and the fit
says so.

L. Kaufman, BIT 15, 49 (1975).
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

SLOPES = (0.1, 30.0)  # per SD of x: below, a straight line over the data; above, a step within a tenth of the SD
_START_SLOPES = (1.0, 3.0, 8.0, 20.0)
_START_PLACES = 16  # quantiles of x
MARGIN = 4.0  # logit of the logistic function at the far end of x
_ITERATIONS = 40
_BATCH_SIZE = 1 << 20  # numbers in one array of the loop over voxels


class Sigmoids(NamedTuple):
    """Fitted sigmoids, (n_voxel, n_muscle) each; NaN where x does not vary.

    Where y does not rise with x in any way, r and r2 are 0, y0 and amp the mean, x0 is NaN.
    """

    y0: Float[Array, "n_voxel n_muscle"]
    amp: Float[Array, "n_voxel n_muscle"]
    r: Float[Array, "n_voxel n_muscle"]
    x0: Float[Array, "n_voxel n_muscle"]
    r2: Float[Array, "n_voxel n_muscle"]
    bounded: Bool[Array, "n_voxel n_muscle"]


@jax.jit
def sigmoid(x: Any, y0: Any, amp: Any, r: Any, x0: Any) -> Any:
    """Compute y(x); y0 where r is 0."""
    rises = r > 0
    a = jnp.where(rises, r * (x - jnp.where(rises, x0, 0)), 0)
    return y0 + jnp.where(rises, amp - y0, 0) * jax.nn.sigmoid(a)


@jax.jit
def fit(x: Float[Array, "n_stimulus n_voxel"], y: Float[Array, "n_stimulus n_muscle"]) -> Sigmoids:
    """Fit a sigmoid of y on x for each voxel and muscle."""
    mean = y.mean(0)
    z, length = _unit(y.T)
    n_voxel = x.shape[1]
    batch_size = max(1, _BATCH_SIZE // (len(_START_SLOPES) * y.size))
    batch_size = -(-n_voxel // -(-n_voxel // batch_size))
    # a last batch that is smaller would be compiled on its own
    filled = jnp.pad(x.T, ((0, -n_voxel % batch_size), (0, 0)))
    fits = jax.lax.map(partial(_voxel, z=z), filled, batch_size=batch_size)
    k, u0, b, r2, bounded, level, centre, scale, varies = (v[:n_voxel] for v in fits)
    rise = b * length
    rises, varies = b > 0, varies[:, None]
    scale, centre = scale[:, None], centre[:, None]

    def where_it_varies(v: Any) -> Any:
        return jnp.where(varies, v, jnp.nan)

    y0 = mean - rise * level
    return Sigmoids(
        y0=where_it_varies(y0),
        amp=where_it_varies(y0 + rise),
        r=where_it_varies(jnp.where(rises, k / scale, 0)),
        x0=where_it_varies(jnp.where(rises, centre + scale * u0, jnp.nan)),
        r2=where_it_varies(r2),
        bounded=bounded & rises & varies,
    )


def _voxel(x: Float[Array, " n"], z: Float[Array, "m n"]) -> tuple[Any, ...]:
    """Fit the sigmoids of one voxel, x in SD from its mean, y as vectors of mean zero and length one."""
    centre = x.mean()
    # a field that is constant but for rounding
    varies = x.max() - x.min() > 1e-6 * jnp.abs(x).max()
    square = ((x - centre) ** 2).mean()
    scale = jnp.where(varies, jnp.sqrt(jnp.where(varies, square, 1)), 1)
    u = jnp.where(varies, (x - centre) / scale, 0)
    ends = (u.min(), u.max())

    kappa, u0 = _starts(u, z)
    low, width, _, _ = _range(jnp.exp(kappa), ends)
    nothing = jnp.zeros_like(kappa)
    # the first step goes nowhere: it evaluates the start, by the same code
    state = (kappa, (u0 - low) / width, nothing + 1e-2, nothing + jnp.inf, *[nothing] * 5)
    state = jax.lax.fori_loop(0, 1 + _ITERATIONS, lambda _, s: _step(s, u, z, ends), state)
    best = state[3].argmin(0)[None]
    kappa, place, cost = (jnp.take_along_axis(v, best, 0)[0] for v in (state[0], state[1], state[3]))

    k = jnp.exp(kappa)
    low, width, _, _ = _range(k, ends)
    u0 = low + width * place
    s = jax.nn.sigmoid(k[:, None] * (u - u0[:, None]))
    b = _slope((s * z).sum(-1), _centred_product(s, s))
    near = 1e-3
    bounded = (kappa < jnp.log(SLOPES[0]) + near) | (kappa > jnp.log(SLOPES[1]) - near)
    bounded |= (place < near) | (place > 1 - near)
    return k, u0, b, jnp.clip(1 - cost, 0, 1), bounded, s.mean(-1), centre, scale, varies


def _range(k: Any, ends: tuple[Any, Any]) -> tuple[Any, Any, Any, Any]:
    """Compute the lowest u0 and the width of its range, with their derivatives to log k."""
    low, high = ends
    span = jnp.where(high > low, high - low, 1)
    margin = 1 / (1 / span + k / MARGIN)
    slope = -(margin**2) * k / MARGIN
    return low - margin, span + 2 * margin, -slope, 2 * slope


def _starts(u: Float[Array, " n"], z: Float[Array, "m n"]) -> tuple[Any, Any]:
    """Choose log k and u0, (n_start, m): each slope of a grid at the place where it fits best."""
    slopes = jnp.asarray(_START_SLOPES, u.dtype)
    places = jnp.quantile(u, (jnp.arange(_START_PLACES, dtype=u.dtype) + 0.5) / _START_PLACES)
    s, _ = _unit(jax.nn.sigmoid(slopes[:, None, None] * (u - places[:, None])))
    best = jnp.einsum("kqn,mn->kmq", s, z).argmax(-1)
    return jnp.broadcast_to(jnp.log(slopes)[:, None], best.shape), places[best]


def _normal_equations(kappa: Any, place: Any, u: Float[Array, " n"], z: Any, ends: tuple[Any, Any]) -> tuple[Any, ...]:
    """Compute 1 - R^2 after the linear regression, half its gradient in (log k, place), and Gauss-Newton's matrix."""
    k = jnp.exp(kappa)
    low, width, low_slope, width_slope = _range(k, ends)
    u0, moved = low + width * place, low_slope + width_slope * place
    a = k[..., None] * (u - u0[..., None])
    s = jax.nn.sigmoid(a)
    t = s * (1 - s)
    # ds/dkappa = e + moved f, ds/dplace = width f, with f = -k t
    e = t * a
    # of a flat sigmoid only the variation is kept, for the sake of the digits
    s = s - jax.nn.sigmoid(-k * u0)[..., None]
    ss, se, sf = _centred_product(s, s), _centred_product(s, e), -k * _centred_product(s, t)
    ee, ef, ff = _centred_product(e, e), -k * _centred_product(e, t), k * k * _centred_product(t, t)
    sz, ez, fz = (s * z).sum(-1), (e * z).sum(-1), -k * (t * z).sum(-1)
    b = _slope(sz, ss)
    inverse = jnp.where(ss > 0, 1 / jnp.where(ss > 0, ss, 1), 0)
    g1, g2 = -b * (ez - b * se), -b * (fz - b * sf)
    a11, a12, a22 = (b * b * v for v in (ee - se * se * inverse, ef - se * sf * inverse, ff - sf * sf * inverse))
    gradient = (g1 + moved * g2, width * g2)
    matrix = (a11 + 2 * moved * a12 + moved**2 * a22, width * (a12 + moved * a22), width**2 * a22)
    return (1 - b * sz, *gradient, *matrix)


def _step(state: tuple[Any, ...], u: Any, z: Any, ends: tuple[Any, Any]) -> tuple[Any, ...]:
    kappa, place, damping, cost, g1, g2, a11, a12, a22 = state
    flat, steep = (jnp.log(jnp.asarray(v, u.dtype)) for v in SLOPES)
    # a coordinate that is held by a bound takes no part, so that the other one is free to follow its own
    bound1 = ((kappa <= flat) & (g1 > 0)) | ((kappa >= steep) & (g1 < 0))
    bound2 = ((place <= 0) & (g2 > 0)) | ((place >= 1) & (g2 < 0))
    g1, g2, a12 = jnp.where(bound1, 0, g1), jnp.where(bound2, 0, g2), jnp.where(bound1 | bound2, 0, a12)
    tiny = jnp.finfo(cost.dtype).tiny ** 0.5
    d1, d2 = (v * (1 + damping) + tiny for v in (jnp.maximum(a11, 0), jnp.maximum(a22, 0)))
    # by a correlation, since products of the matrix' entries may underflow
    root1, root2 = jnp.sqrt(d1), jnp.sqrt(d2)
    c = jnp.clip(a12 / root1 / root2, -0.99999, 0.99999)
    h1, h2 = g1 / root1, g2 / root2
    to_kappa = jnp.clip(kappa - (h1 - c * h2) / (1 - c * c) / root1, flat, steep)
    to_place = jnp.clip(place - (h2 - c * h1) / (1 - c * c) / root2, 0, 1)
    evaluation = _normal_equations(to_kappa, to_place, u, z, ends)
    better = evaluation[0] < cost
    damping = jnp.where(better, jnp.maximum(damping / 5, 1e-6), jnp.minimum(damping * 4, 1e6))
    new, old = (to_kappa, to_place, *evaluation), (kappa, place, *state[3:])
    kappa, place, *rest = (jnp.where(better, n, o) for n, o in zip(new, old, strict=True))
    return (kappa, place, damping, *rest)


def _centred_product(a: Any, b: Any) -> Any:
    """Sum products of deviations from the mean, over the last axis."""
    return (a * b).sum(-1) - a.sum(-1) * b.sum(-1) / a.shape[-1]


def _slope(sz: Any, ss: Any) -> Any:
    """Compute amp - y0, not below zero."""
    return jnp.where(ss > 0, jnp.maximum(sz, 0) / jnp.where(ss > 0, ss, 1), 0)


def _unit(y: Any) -> tuple[Any, Any]:
    """Scale vectors to mean zero and length one along the last axis; also return their lengths, zero where constant."""
    z = y - y.mean(-1, keepdims=True)
    square = (z * z).sum(-1)
    length = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)
    return z / jnp.where(length > 0, length, 1)[..., None], length
