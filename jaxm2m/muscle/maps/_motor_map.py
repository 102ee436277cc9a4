r"""Maps of MEPs over the sites of stimulation.

With z the map in uV, a smooth surface on a square grid of spacing h, set to zero under 50 uV,

    volume = h^2 sum z ,   mean = mean of z where it is not zero ,   area = volume / mean ,   centre = sum x z / sum z .

The area is so the number of points at which z is not zero, times h^2.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Array, Bool, Float, Key
from scipy.spatial import Delaunay, QhullError
from scipy.stats import norm

from jaxm2m import _check
from jaxm2m._types import ArrayLike, PathLike
from jaxm2m.muscle._random import numpy_generator
from jaxm2m.muscle._volumes import save_volumes
from jaxm2m.muscle.maps._maps import name_muscles
from jaxm2m.muscle.maps._surface import Surface, fit_surfaces
from jaxm2m.muscle.responses._meps import Meps

_LARGEST = 1 << 22  # points of a map
_GAP = 2.0  # an empty circle of so many times the usual radius is a gap


@dataclass(frozen=True, eq=False, repr=False)
class MotorMap:
    """Maps of MEPs in a plane, one for each muscle.

    Attributes
    ----------
    x, y : (nx,), (ny,) float arrays
        Coordinates of the maps' points in the plane, mm.
    maps : (n_muscle, nx, ny) float array
        Mean MEPs, uV; 0 under `least`, NaN where nothing was stimulated.
    se : (n_muscle, nx, ny) float array
        Standard error of log(MEP + `least`), no unit: 0.1 is about 10 % of a large MEP.
    noise : (n_muscle,) float array
        SD of single MEPs about the map, as a share of MEP + `least`.
    sites : (n_stimulus, 2) float array
        Sites of stimulation in the plane, mm.
    meps : (n_stimulus, n_muscle) float array
        MEPs as measured at the sites, uV.
    plane : (4, 4) float array or None
        (x, y, 0) to mm in space; None where the positions were in a plane.
    muscles : tuple of str
        Names of the muscles.
    spacing, least : float
        Spacing of the points, mm, and the least MEP that counts, uV.
    surfaces : tuple
        What was fitted to each muscle.
    """

    x: Float[np.ndarray, " nx"]
    y: Float[np.ndarray, " ny"]
    maps: Float[np.ndarray, "n_muscle nx ny"]
    se: Float[np.ndarray, "n_muscle nx ny"]
    noise: Float[np.ndarray, " n_muscle"]
    sites: Float[np.ndarray, "n_stimulus 2"]
    meps: Float[np.ndarray, "n_stimulus n_muscle"]
    plane: Float[np.ndarray, "4 4"] | None
    muscles: tuple[str, ...]
    spacing: float
    least: float
    surfaces: tuple[Surface, ...]

    def __repr__(self) -> str:
        width, height = np.ptp(self.x), np.ptp(self.y)
        return f"MotorMap({len(self.muscles)} muscles, {len(self.sites)} stimuli, {width:g} x {height:g} mm)"

    @property
    def area(self) -> Float[np.ndarray, " n_muscle"]:
        """Area with at least `least` uV, mm^2, (n_muscle,)."""
        return _area(self.maps, self.spacing)

    @property
    def volume(self) -> Float[np.ndarray, " n_muscle"]:
        """Volume under the map, uV mm^2, (n_muscle,)."""
        return np.nansum(self.maps, (1, 2)) * self.spacing**2

    @property
    def mean(self) -> Float[np.ndarray, " n_muscle"]:
        """Mean over the area, uV, (n_muscle,); NaN without one."""
        return self.volume / np.where(self.area > 0, self.area, np.nan)

    @property
    def centre(self) -> Float[np.ndarray, "n_muscle 2"]:
        """Centre of gravity, mm in the plane, (n_muscle, 2); NaN without an area."""
        return _centre(self.maps, self.x, self.y)

    @property
    def hotspot(self) -> Float[np.ndarray, "n_muscle 2"]:
        """Place where the map is largest, mm in the plane, (n_muscle, 2); NaN without an area."""
        i, j = self._peaks()
        active = np.asarray(np.nan_to_num(self.maps).any((1, 2)))
        return np.where(active[:, None], np.stack([self.x[i], self.y[j]], -1), np.nan)

    @property
    def at_edge(self) -> Bool[np.ndarray, " n_muscle"]:
        """Mask of the muscles whose hotspot lies at the edge of what was stimulated, (n_muscle,) bool, no unit.

        The true one may lie beyond: stimulate further out.
        """
        beyond = np.pad(np.isnan(self.maps).all(0), 1, constant_values=True)
        i, j = self._peaks()
        near = np.array([beyond[a : a + 3, b : b + 3].any() for a, b in np.stack([i, j], -1)])
        return np.logical_and(np.nan_to_num(self.maps).any((1, 2)), near)

    @property
    def largest_site(self) -> Float[np.ndarray, "n_muscle 2"]:
        """Site of the largest MEP that was measured, mm in the plane, (n_muscle, 2)."""
        return self.sites[self.meps.argmax(0)]

    def interval(
        self, confidence: float = 0.9
    ) -> tuple[Float[np.ndarray, "n_muscle nx ny"], Float[np.ndarray, "n_muscle nx ny"]]:
        """Compute the interval of the mean MEP at each point, given the smoothness that the data chose.

        Parameters
        ----------
        confidence
            Confidence of the interval at each point, 0 to 1.

        Returns
        -------
        tuple of arrays
            Low and high end, (n_muscle, nx, ny) uV, not below 0; NaN where nothing was stimulated.
        """
        _check_confidence(confidence)
        inside = np.isfinite(self.maps[0])
        points = np.stack(np.meshgrid(self.x, self.y, indexing="ij"), -1)[inside]
        low, high = np.full((2, *self.maps.shape), np.nan)
        width = norm.ppf((1 + confidence) / 2)
        for k, surface in enumerate(self.surfaces):
            mean, se = surface.evaluate(points)
            for ends, side in ((low, -1), (high, 1)):
                ends[k, inside] = np.maximum((mean + self.least) * np.exp(side * width * se) - self.least, 0)
        return low, high

    def _peaks(self) -> tuple[np.ndarray, np.ndarray]:
        flat = np.nan_to_num(self.maps).reshape(len(self.maps), -1)
        i, j = np.unravel_index(flat.argmax(1), self.maps.shape[1:])
        return np.asarray(i), np.asarray(j)

    def to_space(self, points: ArrayLike) -> Float[np.ndarray, "*batch 3"]:
        """Convert points of the plane to points in space, on the plane that fits the positions best.

        Parameters
        ----------
        points
            (..., 2) points of the plane, mm.

        Returns
        -------
        array
            (..., 3) points in space, mm.

        Raises
        ------
        ValueError
            The positions were in a plane.
        """
        if self.plane is None:
            raise ValueError("points: the positions were in a plane; pass motor_map positions (n, 3) or poses.")
        points = np.asarray(_check.array(points, "points"), np.float64)
        return points @ self.plane[:3, :2].T + self.plane[:3, 3]

    def table(self) -> pd.DataFrame:
        """Tabulate the maps.

        Returns
        -------
        pandas.DataFrame
            A row for each muscle: area (mm^2), volume (uV mm^2), mean, peak (uV, of the map), peak_low, peak_high (90 %
            interval of the mean MEP there), largest (uV, measured), at_edge (the hotspot lies at the edge of what was
            stimulated, the true one may lie beyond); centre_x, centre_y, hotspot_x, hotspot_y, largest_x, largest_y (mm
            in the plane), and with a plane in space the same points as centre_r, centre_a, centre_s, ... in the
            coordinates of the positions.
        """
        at = (np.arange(len(self.maps)), *self._peaks())
        columns = {"area": self.area, "volume": self.volume, "mean": self.mean, "peak": np.nan_to_num(self.maps)[at]}
        columns |= {f"peak_{side}": ends[at] for side, ends in zip(("low", "high"), self.interval(), strict=True)}
        columns |= {"largest": self.meps.max(0), "at_edge": self.at_edge}
        places = {"centre": self.centre, "hotspot": self.hotspot, "largest": self.largest_site}
        for name, place in places.items():
            columns |= {f"{name}_{axis}": place[:, i] for i, axis in enumerate("xy")}
        if self.plane is not None:
            for name, place in places.items():
                columns |= {f"{name}_{axis}": self.to_space(place)[:, i] for i, axis in enumerate("ras")}
        return pd.DataFrame(columns, index=pd.Index(self.muscles, name="muscle"))

    def overlap(self, kind: str = "jaccard") -> pd.DataFrame:
        """Compute the overlap of the areas.

        Parameters
        ----------
        kind
            "jaccard": shared area over the area of both together. "share": shared area over that of the row's muscle.

        Returns
        -------
        pandas.DataFrame
            A row and a column for each muscle; NaN where the area is zero.
        """
        shares = _overlap(self.maps, _check.option(kind, ("jaccard", "share"), "kind"))
        return pd.DataFrame(shares, index=list(self.muscles), columns=list(self.muscles))

    def bootstrap(
        self, resamples: int = 500, *, confidence: float = 0.9, key: Key[Array, ""] | None = None
    ) -> "MapBootstrap":
        """Map resampled stimuli, many times.

        Each is mapped where the whole was, by a surface as smooth as the whole's. Resamples from which no map can be
        made are NaN.

        Parameters
        ----------
        resamples
            Number of resamples.
        confidence
            Confidence of the intervals, 0 to 1.
        key
            Draws the resamples; None: `jax.random.key(0)`.

        Returns
        -------
        MapBootstrap
            Areas, centres and overlaps of the resamples.
        """
        _check.integer(resamples, "resamples")
        _check_confidence(confidence)
        n, m = self.meps.shape
        counts = numpy_generator(key).multinomial(n, np.full(n, 1 / n), size=resamples).astype(float)
        inside = np.isfinite(self.maps[0])
        points = np.stack(np.meshgrid(self.x, self.y, indexing="ij"), -1)[inside]
        designs = [(surface, surface.design(self.sites), surface.design(points)) for surface in self.surfaces]
        area, centre, overlap = np.zeros((resamples, m)), np.empty((resamples, m, 2)), np.empty((resamples, m, m))
        maps = np.full(self.maps.shape, np.nan)
        for i, count in enumerate(counts):
            drawn = self.sites[count > 0]
            if np.linalg.matrix_rank(drawn - drawn[0], tol=1e-9 * np.ptp(self.sites)) < 2:
                area[i], centre[i], overlap[i] = np.nan, np.nan, np.nan
                continue
            for k, (surface, at_sites, at_points) in enumerate(designs):
                eta = at_points @ surface.refit(at_sites, self.meps[:, k], count)
                maps[k, inside] = _zero_small(np.exp(eta) - self.least, self.least)
            area[i], centre[i] = _area(maps, self.spacing), _centre(maps, self.x, self.y)
            overlap[i] = _overlap(maps, "jaccard")
        return MapBootstrap(self, area, centre, overlap, float(confidence))

    def save(self, path: PathLike) -> Path:
        """Write the maps to `.nii` or `.nii.gz`: (nx, ny, 1, n_muscle), uV, a slice in the space of the positions.

        Parameters
        ----------
        path
            The file to be written.

        Returns
        -------
        pathlib.Path
            The file.

        Raises
        ------
        ValueError
            The positions were in a plane.
        """
        if self.plane is None:
            raise ValueError("path: a map in a plane has no place in space; pass motor_map positions (n, 3) or poses.")
        affine = self.plane @ np.diag([self.spacing, self.spacing, self.spacing, 1.0])
        affine[:3, 3] = self.to_space([self.x[0], self.y[0]])
        return save_volumes(path, self.maps[..., None], affine, self.muscles, "motor map", "uV")


@dataclass(frozen=True, eq=False, repr=False)
class MapBootstrap:
    """Maps of resampled stimuli.

    Attributes
    ----------
    map : MotorMap
        The map of all stimuli.
    area : (n_resample, n_muscle) float array
        Areas, mm^2.
    centre : (n_resample, n_muscle, 2) float array
        Centres of gravity, mm in the plane.
    overlap : (n_resample, n_muscle, n_muscle) float array
        Jaccard overlaps.
    confidence : float
        Confidence of the intervals, 0 to 1.
    """

    map: MotorMap
    area: Float[np.ndarray, "n_resample n_muscle"]
    centre: Float[np.ndarray, "n_resample n_muscle 2"]
    overlap: Float[np.ndarray, "n_resample n_muscle n_muscle"]
    confidence: float

    def __repr__(self) -> str:
        return f"MapBootstrap({len(self.area)} resamples of {self.map!r}, {100 * self.confidence:g} % intervals)"

    def table(self) -> pd.DataFrame:
        """Tabulate percentile intervals of areas and centres.

        Returns
        -------
        pandas.DataFrame
            A row for each muscle: area, area_low, area_high (mm^2), centre_x, centre_x_low, ..., centre_y_high (mm),
            and radius: within so many mm of the centre lie those of a share `confidence` of the resamples.
        """
        columns = _interval("area", self.map.area, self.area, self.confidence)
        for i, axis in enumerate("xy"):
            columns |= _interval(f"centre_{axis}", self.map.centre[:, i], self.centre[..., i], self.confidence)
        away = np.linalg.norm(self.centre - self.map.centre, axis=-1)
        columns["radius"] = _quantile(away, self.confidence)
        return pd.DataFrame(columns, index=pd.Index(self.map.muscles, name="muscle"))

    def pairs(self) -> pd.DataFrame:
        """Tabulate percentile intervals of the shift and the overlap of pairs of muscles.

        Centres of neighbouring muscles are often too close for a shift that can be told from none, while their overlap
        is well determined.

        Returns
        -------
        pandas.DataFrame
            A row for each pair of muscles: shift_x, shift_x_low, ..., shift_y_high (mm, centre of `other` minus that of
            `muscle`), overlap, overlap_low, overlap_high.
        """
        a, b = np.triu_indices(len(self.map.muscles), 1)
        names = [(self.map.muscles[i], self.map.muscles[j]) for i, j in zip(a, b, strict=True)]
        columns: dict[str, np.ndarray] = {}
        for i, axis in enumerate("xy"):
            shift, shifts = (c[..., b, i] - c[..., a, i] for c in (self.map.centre, self.centre))
            columns |= _interval(f"shift_{axis}", shift, shifts, self.confidence)
        columns |= _interval(
            "overlap", _overlap(self.map.maps, "jaccard")[a, b], self.overlap[:, a, b], self.confidence
        )
        return pd.DataFrame(columns, index=pd.MultiIndex.from_tuples(names, names=["muscle", "other"]))


def motor_map(
    positions: ArrayLike,
    meps: Meps | ArrayLike,
    *,
    spacing: float | int = 1.0,
    least: float | int = 50.0,
    muscles: Sequence[str] | None = None,
) -> MotorMap:
    """Map the mean MEP over the sites of stimulation.

    MEPs scatter by a factor from pulse to pulse, and repeats by a millimetre or more: the map is a smooth surface (a
    Gaussian process of log(MEP + `least`), Matern 5/2, fitted to the means of MEPs) whose smoothness and noise are
    those of the largest marginal likelihood. Of MEPs without noise it passes through all of them. It is NaN outside the
    hull of the sites, and in gaps between them: triangles whose circumcircle, in which no site lies, is more than twice
    as large as usual.

    Parameters
    ----------
    positions
        (n, 2) mm in a plane. Or (n, 3) mm or coil poses (n, 4, 4), whose centres are projected along the normal of the
        plane that fits them best: x then points to the subject's right (over the left hemisphere: towards the midline)
        and y to the front, as far as the plane allows, from the mean position; coordinates must be so that x is right,
        y front, z up (RAS). A scalp is curved: far sites come closer by this, by 2 % of 30 mm on a head of 85 mm.
    meps
        `Meps`, or (n, n_muscle) uV.
    spacing
        Spacing of the map's points, mm.
    least
        Least MEP that counts, uV; less is taken for no response.
    muscles
        Names, for arrays; else which to take.

    Returns
    -------
    MotorMap
        A map for each muscle.

    Raises
    ------
    ValueError
        Sites that are fewer than three or on a line; a map of too many points (coordinates in another unit); a plane
        that faces the front; MEPs that are flagged, negative or NaN.

    Examples
    --------
    >>> import numpy as np
    >>> import jaxm2m as jm
    >>> x, y = np.meshgrid(np.arange(-20.0, 21, 10), np.arange(-20.0, 21, 10))
    >>> meps = 1000 * np.exp(-(x**2 + y**2) / 200)  # uV
    >>> motor_map = jm.muscle.motor_map(np.stack([x.ravel(), y.ravel()], 1), meps.reshape(-1, 1), muscles=("FDI",))
    >>> table = motor_map.table()  # a row for each muscle: area, volume, centre of gravity, hotspot
    >>> print(f"{table.loc['FDI', 'area']:.0f} mm^2")
    1605 mm^2
    """
    values, names = name_muscles(meps, muscles)
    spacing, least = float(_check.positive(spacing, "spacing")), float(_check.positive(least, "least"))
    sites, plane = _in_plane(positions)
    if len(sites) != len(values):
        raise ValueError(f"positions: {len(sites)} for {len(values)} stimuli in meps; pass one for each.")
    low, high = (np.asarray(f(0) / spacing) for f in (sites.min, sites.max))
    size = np.floor(high) - np.ceil(low) + 1
    if size.min() < 2 or size.prod() > _LARGEST:
        width, height = np.ptp(sites, 0)
        raise ValueError(
            f"positions: they span {width:.4g} x {height:.4g} mm, spacing is {spacing:g} mm; check that both are in "
            "mm, or take another spacing."
        )
    x, y = (spacing * np.arange(np.ceil(a), np.floor(b) + 1) for a, b in zip(low, high, strict=True))
    points = np.stack(np.meshgrid(x, y, indexing="ij"), -1)
    try:
        inside = _mark_mapped(sites, points)
    except QhullError:
        raise ValueError(
            f"positions: {len(sites)} that are on a line or too few; a map needs sites spread over an area."
        ) from None
    if not inside.any():
        raise ValueError(
            f"positions: no point of the map lies between them at a spacing of {spacing:g} mm; take a finer one."
        )
    surfaces = tuple(fit_surfaces(sites, values, least))
    maps, se = np.full((2, len(names), *inside.shape), np.nan)
    for k, surface in enumerate(surfaces):
        mean, se[k, inside] = surface.evaluate(points[inside])
        maps[k, inside] = _zero_small(mean, least)
    noise = np.array([surface.noise for surface in surfaces])
    return MotorMap(x, y, maps, se, noise, sites, values, plane, names, spacing, least, surfaces)


def _in_plane(positions: ArrayLike) -> tuple[np.ndarray, np.ndarray | None]:
    points = np.asarray(_check.finite(positions, "positions"), np.float64)
    if points.ndim == 2 and points.shape[1] == 2:
        return points, None
    towards = np.array([0.0, 0.0, 1.0])
    if points.ndim == 3 and points.shape[1:] == (4, 4):
        _check.pose(points, "positions")
        towards = -points[:, :3, 2].mean(0)  # a coil's z axis points into the head
        points = points[:, :3, 3]
    if points.ndim != 2 or points.shape[1] != 3 or len(points) < 3:
        raise ValueError(f"positions: shape {points.shape}; pass at least three as (n, 2), (n, 3) or (n, 4, 4), mm.")
    origin = points.mean(0)
    normal = np.linalg.svd(points - origin)[2][2]
    normal = normal if normal @ towards >= 0 else -normal
    front = np.array([0.0, 1.0, 0.0]) - normal[1] * normal
    if np.linalg.norm(front) < 0.2:
        raise ValueError("positions: their plane faces the front or back; pass coordinates in a plane, (n, 2).")
    front /= np.linalg.norm(front)
    plane = np.eye(4)
    plane[:3] = np.stack([np.cross(front, normal), front, normal, origin], -1)
    return (points - origin) @ plane[:3, :2], plane


def _mark_mapped(sites: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Tell which points lie between sites, and not in a gap."""
    triangles = Delaunay(sites)
    corners = sites[triangles.simplices]
    u, v = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = np.abs(u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]) / 2
    sides = [np.linalg.norm(side, axis=1) for side in (u, v, u - v)]
    radius = np.prod(sides, axis=0) / (4 * np.maximum(area, np.finfo(float).tiny))
    # usual is the median over sites of that of the largest triangle at each: between repeats there are small ones
    order = np.argsort(area, kind="stable")
    at_sites = np.full(len(sites), np.nan)
    at_sites[triangles.simplices[order].ravel()] = np.repeat(radius[order], 3)
    index = triangles.find_simplex(points)
    return (index >= 0) & (radius[index] <= _GAP * np.nanmedian(at_sites))


def _zero_small(mean: np.ndarray, least: float) -> np.ndarray:
    return np.where(mean < least, 0.0, mean)


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: {confidence:g}; it must lie between 0 and 1.")


def _area(maps: np.ndarray, spacing: float) -> np.ndarray:
    return (maps > 0).sum((1, 2)) * spacing**2


def _centre(maps: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    z = np.nan_to_num(maps)
    total = z.sum((1, 2))
    moments = np.stack([z.sum(2) @ x, z.sum(1) @ y], -1)
    return moments / np.where(total > 0, total, np.nan)[:, None]


def _overlap(maps: np.ndarray, kind: str) -> np.ndarray:
    on = (maps > 0).reshape(len(maps), -1).astype(float)
    # not by BLAS, whose threads take longer to meet than these products
    shared, area = np.einsum("ap,bp->ab", on, on), on.sum(1)
    whole = area[:, None] + area - shared if kind == "jaccard" else np.broadcast_to(area[:, None], shared.shape)
    return shared / np.where(whole > 0, whole, np.nan)


def _interval(name: str, estimate: np.ndarray, samples: np.ndarray, confidence: float) -> dict[str, np.ndarray]:
    low, high = (_quantile(samples, (1 + side * confidence) / 2) for side in (-1, 1))
    return {name: estimate, f"{name}_low": low, f"{name}_high": high}


def _quantile(samples: np.ndarray, share: float) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice")  # a muscle without a map: NaN says so
        return np.nanquantile(samples, share, axis=0)
