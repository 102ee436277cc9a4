"""The grey matter that drives the muscles of a simulated session: its hot spot, and who is driven from where."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float
from scipy.spatial.distance import cdist

from jaxm2m import _check
from jaxm2m._types import ArrayLike
from jaxm2m.efield import FieldMap

_REACH = 20.0  # mm from the target to the nearest point of cortex, at most
_SPOT = 15.0  # mm, radius of the hot spot
_DEPTH = 2.0  # mm, standard deviation of the centres from front to back


class _Spread(NamedTuple):
    extent: float  # mm, of centres to either side
    width: float  # mm, standard deviation of the weights


DIRECT, SYNERGY = _Spread(10.0, 5.0), _Spread(11.0, 7.0)


class MotorCortex(NamedTuple):
    """The cortex that drives the muscles.

    Attributes
    ----------
    points
        (n_active, 3) mm.
    grey
        (n_active,) which of them count.
    target
        (3,) mm, as asked for.
    middle
        (3,) mm, the grey point nearest to it.
    """

    points: Float[np.ndarray, "active 3"]
    grey: Bool[np.ndarray, " active"]
    target: Float[np.ndarray, "3"]
    middle: Float[np.ndarray, "3"]

    def nearest(self, places: np.ndarray) -> np.ndarray:
        """Find the grey points nearest to places (n, 3)."""
        points = self.points[self.grey]
        return points[cdist(places, points).argmin(1)]

    def spot(self) -> np.ndarray:
        """Mark the hot spot, (n_active,) bool."""
        return self.grey & (np.linalg.norm(self.points - self.middle, axis=1) <= _SPOT)


def find_motor_cortex(field_map: FieldMap, target: ArrayLike | None) -> MotorCortex:
    """Find the grey matter of the map, and its point nearest to the target; None: to the middle of the map."""
    everywhere = np.asarray(field_map.points, np.float64)
    points = everywhere[np.asarray(field_map.active)]
    names = list(field_map.metadata["tissues"])
    grey = np.asarray(field_map.tissue) == (names.index("grey") if "grey" in names else -1)
    if not grey.any():
        grey = np.ones(len(points), bool)
    hot_spot = everywhere.mean(0) if target is None else np.asarray(_check.points(target, "target"), np.float64)
    if hot_spot.shape != (3,):
        raise ValueError(f"target: shape {hot_spot.shape}; give one point x, y, z in mm.")
    cortex = MotorCortex(points, grey, hot_spot, hot_spot)
    middle = cortex.nearest(hot_spot[None])[0]
    away = float(np.linalg.norm(middle - hot_spot))
    if away > _REACH:
        raise ValueError(
            f"target: ({', '.join(f'{x:.1f}' for x in hot_spot)}) mm lies {away:.0f} mm from the nearest point of "
            "cortex in the map; give the hot spot, in the map's coordinates, and a map that holds the cortex round it."
        )
    return cortex._replace(middle=middle)


def centres(depths: Array, extent: float, cortex: MotorCortex) -> np.ndarray:
    """Place centres (n, 3), mm, side by side, the first one lateral."""
    n = len(depths)
    places = np.zeros((n, 3))
    places[:, 0] = np.linspace(-extent, extent, n) if n > 1 else 0.0
    if cortex.target[0] > 0:
        places[:, 0] *= -1
    places[:, 1] = _DEPTH * np.asarray(depths, np.float64)
    return cortex.nearest(cortex.middle + places)


def gaussians(centres: np.ndarray, width: float, cortex: MotorCortex) -> np.ndarray:
    """Compute Gaussian weights (n, n_active); rows sum to 1."""
    weights = np.exp(-0.5 * (cdist(centres, cortex.points) / width) ** 2) * cortex.grey
    return weights / weights.sum(1, keepdims=True)
