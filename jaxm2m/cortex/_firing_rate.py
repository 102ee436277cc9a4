"""From the electric field to the firing rate of cortex, point by point."""

from dataclasses import field, fields
from typing import Any, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxm2m import _check
from jaxm2m._norm import norm
from jaxm2m._pytree import tree
from jaxm2m._types import ArrayLike
from jaxm2m.cortex._curves import CURVES, sigmoid
from jaxm2m.cortex._threshold import PER_RATE, Threshold, threshold

COMPONENTS = ("magnitude", "normal", "scalar")
PRESETS = {"yarossi2019": (0.8, PER_RATE)}
_YAROSSI_0_1 = "0.8 V/m per A/us (our reading of the 2019 paper)"  # its name in version 0.1


class FiringRateSettings(TypedDict):
    """What defines a firing rate but its normals, as JSON values."""

    threshold: float
    unit: str
    component: str
    curve: str
    numbers: dict[str, Any]


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

    Examples
    --------
    >>> import numpy as np
    >>> import jaxm2m as jm
    >>> rate = jm.cortex.FiringRate(jm.cortex.threshold(60.0, "V/m"))
    >>> e = np.array([[0.0, 60.0, 0.0], [0.0, 0.0, 75.0]])  # V/m at two points
    >>> [round(float(r), 3) for r in rate(e)]
    [0.349, 0.924]
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
        self._refuse_idle(self.normals)

    def __call__(
        self,
        e: Float[Array, "..."] | Float[np.ndarray, "..."],
        *,
        normals: ArrayLike | None = None,
        didt: ArrayLike | None = None,
    ) -> Float[Array, "..."]:
        """Compute the rates at the points of a field; points of zero field have none.

        Parameters
        ----------
        e
            V/m: (..., n_point, 3) or (..., x, y, z, 3); without the last axis for component "scalar".
        normals
            (n_point, 3) or (x, y, z, 3), of any length, in any unit, for component "normal", instead of the tree's own.
        didt
            dI/dt, A/s, for a threshold in "V/m per A/us" (see `cortex.threshold` for which); other units ignore it. One
            number, or of the shape of the first axes of `e`.

        Returns
        -------
        array
            (..., n_point) or (..., x, y, z), in the unit of the curve's rates; NaN where the field is.

        Raises
        ------
        ValueError
            Shapes that do not fit, no normals or no dI/dt where they are needed.
        """
        self._refuse_idle(normals)
        drive = self._drive(jnp.asarray(e), normals)
        least = self.threshold.field(didt)
        if least.shape != drive.shape[: least.ndim]:
            raise ValueError(
                f"didt: threshold and dI/dt of shape {tuple(least.shape)} for points {tuple(drive.shape)}; give one "
                "number, or one for each field along the first axes."
            )
        return self.curve(drive / least.reshape(least.shape + (1,) * (drive.ndim - least.ndim)))

    def _refuse_idle(self, normals: object) -> None:
        if normals is not None and self.component != "normal":
            raise ValueError(f'normals: not used by component={self.component!r}; build with component="normal".')

    def _drive(self, e: Array, normals: ArrayLike | None) -> Array:
        """Compute what of the field counts, V/m, not below zero."""
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
        inward = jnp.asarray(_check.points(normals, "normals"))
        if e.shape[e.ndim - inward.ndim :] != inward.shape:
            raise ValueError(f"normals: shape {inward.shape} for a field of shape {e.shape}; give one for each point.")
        length = norm(inward)[..., None]
        return jax.nn.relu((e * inward / jnp.where(length == 0, 1, length)).sum(-1))

    @property
    def settings(self) -> FiringRateSettings:
        """What defines the rate but its normals, as JSON values; `from_settings` makes it again.

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


def from_settings(settings: FiringRateSettings, normals: ArrayLike | None = None) -> FiringRate:
    """Make the firing rate that `FiringRate.settings` described.

    Parameters
    ----------
    settings
        Threshold with its unit, component, curve and its numbers.
    normals
        For component "normal": (n_point, 3) or (x, y, z, 3), of any length, in any unit.

    Returns
    -------
    FiringRate
        The firing rate.
    """
    curve = CURVES[_check.option(settings["curve"], tuple(CURVES), "curve")]
    dtype = jnp.result_type(float)
    numbers = {name: jnp.asarray(value, dtype) for name, value in settings["numbers"].items()}
    least = threshold(settings["threshold"], settings["unit"])
    return FiringRate(least, curve(**numbers), settings["component"], normals)


def preset(name: str) -> FiringRate:
    """Make a firing rate by name, with the default, illustrative curve.

    "yarossi2019", 0.8 V/m per A/us, is our reading of the 2019 paper: it prints a motor threshold of "approx. .8 V/m"
    in macaques, about a hundred times below what cortex needs, but of the size of fields computed at 1 A/us. (V/cm
    would make sense too.) Pass `didt` at the call.

    Parameters
    ----------
    name
        A name of `PRESETS`; the one that version 0.1 had is understood too.

    Returns
    -------
    FiringRate
        The firing rate.

    Raises
    ------
    ValueError
        Another name than those in `PRESETS`.
    """
    if name == _YAROSSI_0_1:
        name = "yarossi2019"
    _check.option(name, PRESETS, "name")
    return FiringRate(threshold(*PRESETS[name]))
