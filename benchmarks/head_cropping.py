"""What cropping a head round a target does to the field there: `head.load(..., crop=(target, radius))`.

    python benchmarks/head_cropping.py [--labels FILE.nii.gz] [--target -40,-20,52] [--spacing 2] [--out result.json]

The faces of the cut insulate: current that would flow on is turned back. For each radius the field in grey and white
matter of a 40 mm cube round the target is compared with that of the whole head, a 70 mm figure-8 coil 4 mm over it.
Without `--labels`, the atlas.
"""

import argparse
import json
import os
import platform
import time
from pathlib import Path

import jax
import numpy as np

import jaxm2m as jm


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--target", default="-40,-20,52", help="mm")
    parser.add_argument("--spacing", type=float, default=2.0, help="mm")
    parser.add_argument("--radii", default="30,40,50,60,80,100", help="mm")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    target = tuple(float(x) for x in options.target.split(","))

    def load(crop=None):
        if options.labels is None:
            return jm.head.atlas(options.spacing, crop=crop)
        return jm.head.load(options.labels, options.spacing, crop=crop)

    coil = jm.coil.figure8()
    whole = load()
    pose = jm.coil.place(whole.scalp, target=target, handle=(-1, -1, 0), distance=4.0)
    roi = jm.efield.Grid.around(target, shape=(40, 40, 40), spacing=1.0)

    def field(head):
        start = time.perf_counter()
        e = np.asarray(jm.efield.Simulator(head).bind(coil, roi)(pose, didt=1e6), np.float64)
        return e, time.perf_counter() - start

    reference, seconds = field(whole)
    rows = [{"radius_mm": None, "voxels": int(np.prod(whole.shape)), "seconds_with_compilation": seconds}]
    centre_distance = np.linalg.norm(np.asarray(roi.positions()) - target, axis=1)
    filled = (reference != 0).any(1)
    core = filled & (centre_distance < 10)
    peak = np.percentile(np.linalg.norm(reference[filled], axis=1), 99.9)
    for radius in (float(r) for r in options.radii.split(",")):
        head = load((target, radius))
        e, seconds = field(head)
        error = np.linalg.norm(e - reference, axis=1)
        both = np.linalg.norm(e[filled], axis=1)
        rows.append(
            {
                "radius_mm": radius,
                "voxels": int(np.prod(head.shape)),
                "relative_l2_40mm_cube": float(np.sqrt((error[filled] ** 2).sum() / (reference[filled] ** 2).sum())),
                "relative_l2_within_10mm": float(np.sqrt((error[core] ** 2).sum() / (reference[core] ** 2).sum())),
                "p999_change": float(np.percentile(both, 99.9) / peak - 1),
                "seconds_with_compilation": seconds,
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    device = jax.devices()[0]
    result = {
        "benchmark": "head_cropping",
        "head": options.labels.name if options.labels else "atlas",
        "spacing_mm": options.spacing,
        "target_mm": target,
        "hardware": {"device": device.device_kind, "platform": device.platform, "cores": os.cpu_count()},
        "versions": {"jax": jax.__version__, "numpy": np.__version__, "python": platform.python_version()},
        "dtype": str(reference.dtype if jax.config.jax_enable_x64 else np.dtype(np.float32)),
        "rows": rows,
    }
    text = json.dumps(result, indent=1)
    if options.out:
        options.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
