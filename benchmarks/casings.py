"""The casing of a coil whose file has none: how near to the exact one, what a search loses by it, what it costs.

Cases (`--cases`, all by default):

- distance: a double cone, a bent figure-8 and a flat one made from their windings, against the exact surface 4 mm
  off the conductors.
- search: `placement.optimize` with the double cone over a sphere by its default casing, against the exact one (points
  on its tubes); whether the exact one stays outside at the pose found.
- speed: loading and tabulating a `.tcd` of 20,000 segments with two stages of deformation, the first calls of a
  process.

Prediction: vertices lie on the surface, so what is left is what triangles cut off between them, 0.2 mm; as E falls by
4 % a millimetre, the search loses 1 %. 3.5e9 pairs of segments and nodes take 2 s from afar and 2 s from near.
"""

import argparse
import base64
import json
import tempfile
import time
import zlib
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import record
from bent_coils import COILS, exact_distance, surface_points
from exact_sphere import coil_field

import jaxm2m as jm

RADIUS, DEPTH = 92.0, 24.0  # mm: of the scalp, and of the target under it


def make_coil(name: str) -> jm.coil.Coil:
    """A coil as loading makes it: from windings, without a casing in its file."""
    pieces = COILS[name]
    vectors = pieces[:, 1] - pieces[:, 0]
    element = {
        "stimulator": 0,
        "type": 2,
        "points": (pieces[:, 0] + vectors / 2).tolist(),
        "values": vectors.tolist(),
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "coil.tcd"
        path.write_text(json.dumps({"coilElementList": [element], "stimulatorList": [{"maxdIdt": 1e8}]}))
        return jm.coil.load(path)


def distance() -> dict:
    """Signed distance of the default casing from the exact surface, mm, positive outside."""
    result = {}
    for name, pieces in COILS.items():
        casing = make_coil(name).casing
        points, normal = surface_points(casing)
        away = exact_distance(pieces, points)
        facing = normal[:, 2] > 0.5
        result[name] = {
            "facing the head, least and largest": [float(away[facing].min()), float(away[facing].max())],
            "anywhere, least and largest": [float(away.min()), float(away.max())],
            "vertices": len(casing.vertices),
        }
    return result


def search() -> dict:
    """The double cone over a sphere."""
    coil = make_coil("double cone")
    pieces = COILS["double cone"]
    scalp = jm.head.sphere(spacing=4.0).scalp
    axis = np.array([0.3, -0.5, 0.8]) / np.linalg.norm([0.3, -0.5, 0.8])
    direction = np.cross(axis, [0.2, 0.9, 0.1])
    direction /= np.linalg.norm(direction)
    target = (RADIUS - DEPTH) * axis

    def field(pose, *, didt):
        return coil_field(coil, pose, jnp.asarray(target[None], jnp.float32), didt)

    def optimize(casing):
        return jm.placement.optimize(
            field,
            jm.placement.along(direction),
            coil=replace(coil, casing=casing),
            scalp=scalp,
            target=target,
            n_starts=8,
            key=jax.random.key(0),
            distance=0.0,
            radius=20.0,
        )

    usual, best = optimize(coil.casing), optimize(exact_casing(pieces))
    share = np.linspace(0, 1, 13)[:, None, None]
    dense = (pieces[None, :, 0] + share * (pieces[:, 1] - pieces[:, 0])).reshape(-1, 3)
    pose = np.asarray(usual.pose, float)
    heights = np.linalg.norm(dense @ pose[:3, :3].T + pose[:3, 3], axis=1) - RADIUS - 4.0
    hull = optimize(jm.coil.hull(dense[::7], 4.0))
    return {
        "value over that with the exact casing": float(usual.value / best.value),
        "distance of the exact casing from the scalp at that pose, mm": float(heights.min()),
        "E in the target, V/m at 1 A/us: default, exact, convex hull": [float(x.value) for x in (usual, best, hull)],
    }


def exact_casing(pieces: np.ndarray) -> jm.coil.Casing:
    """Points on the tubes round the conductors that no other tube covers, 1 mm apart; triangles are of no interest."""
    start, vector = pieces[:, 0], pieces[:, 1] - pieces[:, 0]
    along = vector / np.linalg.norm(vector, axis=1, keepdims=True)
    side = np.cross(along, np.eye(3)[np.abs(along).argmin(axis=1)])
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    angle = np.linspace(0, 2 * np.pi, 25)[:-1, None, None]
    ring = 4.0 * (np.cos(angle) * side + np.sin(angle) * np.cross(along, side))
    points = np.concatenate([(start + t * vector + ring).reshape(-1, 3) for t in (0.25, 0.75)])
    points = points[exact_distance(pieces, points) > -0.02]
    return jm.coil.Casing(jnp.asarray(points, jnp.float32), jnp.asarray([[0, 1, 2]], jnp.int32))


def speed() -> dict:
    """A flexible coil of 10 spirals in two layers, on two hinges, all of it drawn back."""
    elements = []
    for part in range(10):
        radius = np.linspace(15, 40, 1051) if part % 2 else np.linspace(40, 15, 1051)
        for layer in (-6.0, -10.0):
            phi = np.linspace(0, 10 * np.pi, len(radius))
            centre = (part % 5 - 2) * 60.0, (part // 5 - 0.5) * 90.0
            path = np.column_stack(
                [centre[0] + radius * np.cos(phi), centre[1] + radius * np.sin(phi), 0 * phi + layer]
            )
            pieces = np.diff(path, axis=0)
            elements.append(
                {
                    "stimulator": 0,
                    "type": 2,
                    "points": pack(path[:-1] + pieces / 2),
                    "values": pack(pieces),
                    "deformations": [0 if centre[0] > 0 else 1, 2],
                }
            )
    hinge = {"type": "rot2p", "point1": [0, 0, 0], "point2": [0, 1, 0]}
    content = {
        "name": "flexible",
        "coilElementList": elements,
        "stimulatorList": [{"maxdIdt": 1e8}],
        "deformList": [{**hinge, "deformRange": 0}, {**hinge, "deformRange": 1}, {"type": "z", "deformRange": 2}],
        "deformRangeList": [{"initial": x} for x in (12.0, -12.0, -1.0)],
    }
    jax.devices()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "flexible.tcd"
        path.write_text(json.dumps(content))
        start = time.perf_counter()
        coil = jm.coil.load(path)
        loaded = time.perf_counter()
        table = jax.block_until_ready(jm.coil.tabulate(coil))
        done = time.perf_counter()
    exact_a, table_a = (np.asarray(jm.coil.vector_potential(c, np.eye(4), POINTS)) for c in (coil, table))
    return {
        "segments": sum(element.size for element in coil.elements),
        "loading, s": loaded - start,
        "tabulating, s": done - loaded,
        "largest error of A 10 to 60 mm below, of its largest": float(
            np.abs(table_a - exact_a).max() / np.abs(exact_a).max()
        ),
        "vertices of the casing": len(coil.casing.vertices),
    }


POINTS = np.stack(np.meshgrid(np.arange(-60, 61, 20.0), np.arange(-60, 61, 20.0), [40.0, 60, 80]), -1).reshape(-1, 3)


def pack(values: np.ndarray) -> str:
    """As `.tcd` files hold arrays."""
    return base64.b64encode(zlib.compress(np.asarray(values, "<f8").tobytes())).decode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default="speed,distance,search")
    chosen = parser.parse_args().cases.split(",")
    # the first calls of a process come first
    for name, case in (("speed", speed), ("distance", distance), ("search", search)):
        if name in chosen:
            record.write("casings", name, case())


if __name__ == "__main__":
    main()
