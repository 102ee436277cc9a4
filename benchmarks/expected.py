"""Numbers to expect: depths, fields, what a millimetre and ten degrees cost, iterations and seconds.

Heads: the sphere of `head.sphere`, the standard head, Colin27 (`--labels`); voxels of 2 mm. Coils: the computed
figure-8, flat, bent by 12 and by 30 degrees a wing. Over the left hand knob, (-40, -20, 52) mm in MNI space (in the
sphere the top of its grey matter), the handle back and to the left; fields in V/m at 1 A/us.

Prediction: 28 mm under the scalp a figure-8 coil drives 1 V/m at 4 mm; E falls by 4 % a millimetre and by 1.5 % for ten
degrees from its best direction.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import record
from bent_coils import COILS, build

import jaxm2m as jm

KNOB = np.array([-40.0, -20.0, 52.0])
GAPS = (1.0, 4.0, 8.0)  # mm between casing and scalp


def make_coils() -> dict[str, jm.coil.Coil]:
    """Coils by name; those from windings with the casing that loading gives them."""
    flat = jm.coil.figure8()
    coils = {"figure-8": flat}
    for name in ("bent figure-8", "double cone"):
        casing = jm.coil.offset_surface(COILS[name].reshape(-1, 3))
        coils[name] = replace(flat, elements=(build(COILS[name]),), casing=casing)
    return coils


def place(coil: jm.coil.Coil, scalp, target: np.ndarray, gap: float, turn: float = 0.0) -> np.ndarray:
    """Tangentially over the target, the casing `gap` mm off the scalp where it is nearest."""
    pose = jm.coil.place(scalp, target, handle=(-1.0, -1.0, 0.0), distance=40.0)
    pose = jm.coil.move(pose, np.array([0, 0, 0, 0, 0, np.radians(turn)]))
    for _ in range(6):
        pose = jm.coil.move(pose, np.array([0, 0, float(jm.coil.clearance(coil, pose, scalp)) - gap, 0, 0, 0]))
    return pose


def measure(head, target: np.ndarray) -> dict:
    """One head: all of the table."""
    labels, affine = np.asarray(head.labels), np.asarray(head.labels_affine, float)
    grey = np.argwhere(labels == head.tissues.index("grey") + 1) @ affine[:3, :3].T + affine[:3, 3]
    away = np.linalg.norm(grey - target, axis=1)
    centre, near = grey[away.argmin()], grey[away < 40]
    points = jm.efield.Points(np.concatenate([centre[None], near[:: max(1, len(near) // 4000)]]))
    start = time.perf_counter()
    sim = jm.efield.Simulator(head)
    built = time.perf_counter() - start
    rows = {}
    seconds = []
    for name, coil in make_coils().items():
        field = sim.bind(coil, points)

        def compute(gap, turn=0.0, coil=coil, field=field):
            pose = place(coil, head.scalp, centre, gap, turn)
            start = time.perf_counter()
            e = np.linalg.norm(np.asarray(field(pose, didt=1e6)), axis=-1)
            seconds.append(time.perf_counter() - start)
            return float(e[0]), float(np.percentile(e[1:], 99.9))

        values = {gap: compute(gap) for gap in GAPS}
        rows[name] = {f"E in the target, {gap:g} mm": value[0] for gap, value in values.items()}
        rows[name] |= {f"99.9th percentile of E within 40 mm, {gap:g} mm": v[1] for gap, v in values.items()}
        rows[name]["a millimetre more, %"] = 100 * (compute(5.0)[0] / values[4.0][0] - 1)
        rows[name]["ten degrees more, %"] = 100 * (compute(4.0, 10.0)[0] / values[4.0][0] - 1)
    depth = np.linalg.norm(np.asarray(head.scalp.nearest(centre), float) - centre)
    return {
        "depth of the target under the scalp, mm": float(depth),
        "building the operator, s": built,
        "a solve, median, s": float(np.median(seconds)),
        **rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, default=record.DATA / "heads/colin27_labels_1mm.nii.gz")
    parser.add_argument("--spacing", type=float, default=2.0, help="mm")
    parser.add_argument("--cases", default="sphere,standard head,Colin27")
    arguments = parser.parse_args()
    heads = {
        "sphere": lambda: (jm.head.sphere(spacing=arguments.spacing), np.array([0.0, 0.0, 76.0])),
        "standard head": lambda: (jm.head.atlas(arguments.spacing), KNOB),
        "Colin27": lambda: (jm.head.load(arguments.labels, arguments.spacing), KNOB),
    }
    for name in arguments.cases.split(","):
        record.write("expected", name, measure(*heads[name]()))


if __name__ == "__main__":
    main()
