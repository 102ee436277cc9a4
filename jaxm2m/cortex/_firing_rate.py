"""From the electric field to the firing rate of cortex, point by point."""

from dataclasses import field, fields
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxm2m import _check
from jaxm2m._norm import norm
from jaxm2m._tree import tree
from jaxm2m.cortex._curves import CURVES, sigmoid
from jaxm2m.cortex._threshold import PER_RATE, Threshold, threshold

COMPONENTS = ("magnitude", "normal", "scalar")
PRESETS = {"0.8 V/m per A/us (our reading of the 2019 paper)": (0.8, PER_RATE)}


@tree
class FiringRate:
    r"""Firing rate of cortex as a function of the electric field.

        rate = curve(x),    x = |E| / threshold    or    x = max(E . n, 0) / threshold

    at each point, as in M. Yarossi et al., "An experimental and computational framework for modeling multi-muscle
    responses to transcranial magnetic stimulation of the human motor cortex", IEEE EMBS Conf. Neural Eng., 2019 ("the
    2019 paper"; its curve is printed as a figure only). A pytree: the numbers of threshold and curve are leaves, so
    that they are arguments of `jax.jit` and `jax.grad` reaches them. Data tell only the products of the threshold with
    the curve's e50 and s: hold the threshold when the curve is learnt.

    Attributes
    ----------
    threshold
        Of `cortex.threshold`: a field with its unit, required.
    curve
        Of `cortex.sigmoid` (default, with illustrative numbers), `weibull`, `hill` or `table`, or any pytree that is a
        function of x (...,) -> rate (...,), such as a `jax.tree_util.Partial`.
    component
        "magnitude": |E|, of a field (..., 3), with a zero gradient at zero field.
        "normal": what of the field (..., 3) goes into the cortex. Normals point into the cortex, from pia to white
        matter (those of most surface files point out: negate them). Rectified: a field out of the cortex gives no rate.
        "scalar": one number a point is passed, a magnitude or a component; rectified alike.
    normals
        For "normal", here or at the call: (n_point, 3) or (x, y, z, 3), of any length; zero where there is none, which
        gives no rate. Those given here are held when the tree is learnt: their gradient is zero.

    Raises
    ------
    TypeError, ValueError
        A threshold without unit, another component, or normals for a component that has none.
    """

    threshold: Threshold
    curve: Any = field(default_factory=sigmoid)
    component: str = "magnitude"
    normals: Any = None

    def __post_init__(self):
        # what JAX rebuilds passes here too, with anything for leaves: nothing is said of their values
        if isinstance(self.threshold, (int, float, str, np.ndarray, np.generic, jax.Array)):
            raise TypeError(
                f'threshold: {self.threshold!r} without a unit; pass cortex.threshold(60.0, "V/m") or the like. A bare '
                'number is not taken, since papers differ: that of 2019 prints ".8 V/m", but human cortex responds at '
                "50-100 V/m, so it must be a field per dI/dt or in V/cm."
            )
        if isinstance(self.curve, str):
            raise TypeError(f"curve: {self.curve!r}; pass cortex.sigmoid(), weibull(...), hill(...) or table(...).")
        _check.option(self.component, COMPONENTS, "component")
        self._no_idle(self.normals)

    def __call__(
        self,
        e: Float[Array, "..."] | Float[np.ndarray, "..."],
        *,
        normals: Any = None,
        didt: Any = None,
    ) -> Float[Array, "..."]:
        """Rates at the points of a field; points of zero field have none.

        Parameters
        ----------
        e
            V/m: (..., n_point, 3) or (..., x, y, z, 3); without the last axis for component "scalar".
        normals
            For component "normal", instead of the tree's own.
        didt
            A/s, for a threshold in "V/m per A/us" (see `cortex.threshold` for which); other units ignore it. One
            number, or of the shape of the first axes of `e`.

        Returns
        -------
        (..., n_point) or (..., x, y, z), in the unit of the curve's rates; NaN where the field is.

        Raises
        ------
        ValueError
            Shapes that do not fit, no normals or no dI/dt where they are needed.
        """
        self._no_idle(normals)
        drive = self._drive(jnp.asarray(e), normals)
        least = self.threshold.field(didt)
        if least.shape != drive.shape[: least.ndim]:
            raise ValueError(
                f"didt: threshold and dI/dt of shape {tuple(least.shape)} for points {tuple(drive.shape)}; give one "
                "number, or one for each field along the first axes."
            )
        return self.curve(drive / least.reshape(least.shape + (1,) * (drive.ndim - least.ndim)))

    def _no_idle(self, normals: Any) -> None:
        if normals is not None and self.component != "normal":
            raise ValueError(f'normals: not used by component={self.component!r}; build with component="normal".')

    def _drive(self, e: Array, normals: Any) -> Array:
        """What of the field counts, V/m, not below zero."""
        if self.component == "scalar":
            return jax.nn.relu(e)
        if e.ndim == 0 or e.shape[-1] != 3:
            raise ValueError(
                f'e: shape {e.shape}; the last axis must hold Ex, Ey, Ez. For magnitudes take component="scalar".'
            )
        if self.component == "magnitude":
            return norm(e)
        if normals is None:
            if self.normals is None:
                raise ValueError('normals: none, and component="normal" needs one a point; pass normals=(n_point, 3).')
            normals = jax.lax.stop_gradient(self.normals)
        normals = jnp.asarray(_check.points(normals, "normals"))
        if e.shape[e.ndim - normals.ndim :] != normals.shape:
            raise ValueError(f"normals: shape {normals.shape} for a field of shape {e.shape}; give one for each point.")
        length = norm(normals)[..., None]
        return jax.nn.relu((e * normals / jnp.where(length == 0, 1, length)).sum(-1))

    @property
    def settings(self) -> dict[str, Any]:
        """What it is, without the normals, as JSON has it; `from_settings` makes it again.

        Raises
        ------
        TypeError
            A curve that is not of this room.
        """
        curve = type(self.curve)
        if curve not in CURVES.values():
            raise TypeError(
                f"curve: {curve.__name__} cannot be stored; take cortex.sigmoid, weibull, hill or table, whose numbers "
                "are known."
            )
        return {
            "threshold": float(self.threshold.value),
            "unit": self.threshold.unit,
            "component": self.component,
            "curve": curve.__name__.lower(),
            "numbers": {f.name: np.asarray(getattr(self.curve, f.name)).tolist() for f in fields(curve)},
        }


def from_settings(settings: dict[str, Any], normals: Any = None) -> FiringRate:
    """The firing rate that `FiringRate.settings` described."""
    curve = CURVES[_check.option(settings["curve"], tuple(CURVES), "curve")]
    dtype = jnp.result_type(float)
    numbers = {name: jnp.asarray(value, dtype) for name, value in settings["numbers"].items()}
    least = threshold(settings["threshold"], settings["unit"])
    return FiringRate(least, curve(**numbers), settings["component"], normals)


def preset(name: str) -> FiringRate:
    """A firing rate by name, with the default, illustrative curve.

    "0.8 V/m per A/us (our reading of the 2019 paper)": the paper prints a motor threshold of "approx. .8 V/m" in
    macaques, about a hundred times below what cortex needs, but of the size of fields computed at 1 A/us. (V/cm would
    make sense too.) Pass `didt` at the call.

    Raises
    ------
    ValueError
        Another name than those in `PRESETS`.
    """
    _check.option(name, PRESETS, "name")
    return FiringRate(threshold(*PRESETS[name]))
