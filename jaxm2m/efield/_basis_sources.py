"""The sources whose fields are solved for, and those that are kept to judge them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxm2m import coil as coils
from jaxm2m._pytree import StaticMetadata
from jaxm2m.coil import Coil, Dipoles
from jaxm2m.head import Surface

CAP = 75.0  # mm: the sources' places on the scalp, round the point nearest to the region's centre
COVER = 60.0  # mm: the same for the poses that judge
COIL_SHARE = 0.6  # of the sources; the others are single dipoles, for coils of any other shape
TILT, TEST_TILT = 20.0, 15.0  # degrees
OFF, TEST_OFF, DIPOLES_OFF = (1.0, 35.0), (2.0, 30.0), (12.0, 35.0)  # mm between scalp and coil frame


_move = jax.jit(coils.move)


class Source(NamedTuple):
    """A coil in a pose; all coils of `draw_sources` are of one structure, so that they share a program."""

    coil: Coil
    pose: np.ndarray


def scalp_centre(scalp: Surface, points: np.ndarray, dtype: Any) -> np.ndarray:
    """The scalp point nearest to the centre of a region's points, mm."""
    return np.asarray(scalp.nearest(jnp.asarray(points.mean(0), dtype)), np.float64)


def draw_sources(scalp: Surface, around: np.ndarray, count: int, dtype: Any) -> list[Source]:
    """Random placements of four computed coils, and random dipoles, over a cap of the scalp; always the same."""
    random = np.random.default_rng(1)
    made = [
        coils.figure8(inner_diameter=26.0, outer_diameter=50.0, wing_distance=54.0),
        coils.circular(inner_diameter=30.0, outer_diameter=70.0),
        coils.figure8(inner_diameter=70.0, outer_diameter=105.0, wing_distance=110.0),
        coils.circular(inner_diameter=70.0, outer_diameter=125.0),
    ]
    tables = [t for c in made for t in coils.tabulate(c).elements if isinstance(t, coils.PotentialGrid)]
    n_coil = round(COIL_SHARE * count)
    result = []
    for i in range(count):
        if i < n_coil:
            pose = draw_pose(random, scalp, around, CAP, OFF, TILT)
            coil = _combine(tables[i % len(tables)], np.zeros(3), dtype)
        else:
            pose = draw_pose(random, scalp, around, CAP, DIPOLES_OFF, 0.0)
            quiet = coils.PotentialGrid(0 * tables[0].coefficients, tables[0].affine)
            # as strong as a coil: 0.1 A m^2 a kA; its size cancels in the fit
            coil = _combine(quiet, 0.01 * np.eye(3)[i % 3], dtype)
        result.append(Source(coil, pose))
    # in another order, so that a part of a build that is broken off holds all kinds
    return [result[i] for i in random.permutation(count)]


def draw_test_cases(scalp: Surface, around: np.ndarray, count: int) -> dict[str, tuple[Coil, np.ndarray]]:
    """Coils that are not among the sources, tabulated, with `count` random poses (count, 4, 4) each."""
    random = np.random.default_rng(2)
    result = {}
    for coil in (coils.figure8(), coils.circular()):
        poses = [draw_pose(random, scalp, around, COVER, TEST_OFF, TEST_TILT, coil) for _ in range(count)]
        (table,) = coils.tabulate(coil).elements
        assert isinstance(table, coils.PotentialGrid)
        result[str(coil.metadata["name"])] = _combine(table, np.zeros(3), table.coefficients.dtype), np.stack(poses)
    return result


def _combine(table: coils.PotentialGrid, moment: np.ndarray, dtype: Any) -> Coil:
    """A table and a dipole, one of the two without current: of one structure, whichever it is."""
    dipole = Dipoles(jnp.zeros((1, 3), dtype), jnp.asarray(moment[None], dtype))
    return Coil((table, dipole), None, jnp.asarray([jnp.nan], dtype), StaticMetadata())


def draw_pose(
    random: np.random.Generator,
    scalp: Surface,
    around: np.ndarray,
    cap: float,
    off: tuple[float, float],
    tilt: float,
    coil: Coil | None = None,
) -> np.ndarray:
    """A pose anywhere on a cap, turned at will, the casing of `coil` outside the head."""
    vertices = scalp.vertices
    near = vertices[np.linalg.norm(vertices - around, axis=1) < cap]
    while True:
        point, handle = near[random.integers(len(near))], random.normal(size=3)
        distance, angle, direction = random.uniform(*off), random.uniform(0, tilt), random.uniform(0, 2 * np.pi)
        try:
            placed = coils.place(scalp, point, handle, distance)
        except ValueError:  # a handle along the normal
            continue
        axis = np.radians(angle) * np.array([np.cos(direction), np.sin(direction)])
        pose = np.asarray(_move(placed, jnp.asarray([0, 0, 0, *axis, 0], placed.dtype)))
        if coil is None or float(coils.clearance(coil, jnp.asarray(pose), scalp)) > 0:
            return pose
