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
_DEPTH = 2.0  # mm, standard deviation of the centres of a line from front to back
_SIDE = 25.0  # mm, edge of the square that centres are drawn from
_APART = 12.0  # mm between two places of a muscle
_TRIES = 32  # second places to choose from: of a square of cortex, one in four or more is far enough


class _Spread(NamedTuple):
    extent: float  # mm, of the centres of a line to either side
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


class Centres(NamedTuple):
    """Centres of the weights, mm.

    Attributes
    ----------
    direct
        (n_muscle, 3).
    second
        (n_muscle, 3), NaN for muscles with one place.
    synergy
        (n_synergy, 3).
    """

    direct: Float[np.ndarray, "muscle 3"]
    second: Float[np.ndarray, "muscle 3"]
    synergy: Float[np.ndarray, "synergy 3"]


def line_centres(depths: Array, n_muscle: int, cortex: MotorCortex) -> Centres:
    """Place centres side by side, the first one lateral; depths (n_muscle + n_synergy,) are standard normal."""

    def side_by_side(depths: np.ndarray, extent: float) -> np.ndarray:
        n = len(depths)
        places = np.zeros((n, 3))
        places[:, 0] = np.linspace(-extent, extent, n) if n > 1 else 0.0
        if cortex.target[0] > 0:
            places[:, 0] *= -1
        places[:, 1] = _DEPTH * depths
        return cortex.nearest(cortex.middle + places)

    muscles, synergies = np.split(np.asarray(depths, np.float64), [n_muscle])
    direct = side_by_side(muscles, DIRECT.extent)
    return Centres(direct, np.full_like(direct, np.nan), side_by_side(synergies, SYNERGY.extent))


def n_uniform(n_muscle: int, n_synergy: int) -> int:
    """Count the variates that `draw_centres` takes."""
    return n_muscle + 2 * n_synergy + 2 * n_muscle * (1 + _TRIES)


def draw_centres(uniform: Array, axes: np.ndarray, n_muscle: int, doubled: int, cortex: MotorCortex) -> Centres:
    """Draw centres over the hand area, and second ones for `doubled` muscles.

    `uniform` are variates in 0 to 1, `axes` (2, 3) lie along the scalp: the cortex that the coil reaches slopes as the
    scalp does, and a level square would go from its crowns on one side to 2 cm below them on the other.
    """
    order, across = np.split(np.asarray(uniform, np.float64), [n_muscle])
    across = _SIDE * (across.reshape(-1, 2) - 0.5) @ axes
    direct, options, synergy = np.split(cortex.nearest(cortex.middle + across), [n_muscle, n_muscle * (1 + _TRIES)])
    options = options.reshape(n_muscle, _TRIES, 3)
    second = np.full_like(direct, np.nan)
    for muscle in order.argsort()[:doubled]:
        away = np.linalg.norm(options[muscle] - direct[muscle], axis=1)
        far = away >= _APART
        # in a small piece of cortex the farthest
        second[muscle] = options[muscle, far.argmax() if far.any() else away.argmax()]
    return Centres(direct, second, synergy)


def gaussians(centres: np.ndarray, width: float, cortex: MotorCortex, second: np.ndarray | None = None) -> np.ndarray:
    """Compute Gaussian weights (n, n_active), half about the second centre where there is one; rows sum to 1."""
    weights = np.exp(-0.5 * (cdist(centres, cortex.points) / width) ** 2) * cortex.grey
    weights = weights / weights.sum(1, keepdims=True)
    if second is not None:
        two = np.isfinite(second).all(1)
        if two.any():
            weights[two] = (weights[two] + gaussians(second[two], width, cortex)) / 2
    return weights
