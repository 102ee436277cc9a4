"""Seconds of `placement.target(head, "C3")` where labels are fine: Colin27's, divided to 0.5 mm, voxels of 2 mm.

    python benchmarks/targets.py [--labels FILE.nii.gz]

Prediction: the grey matter within 25 mm of the electrode is a million voxels, which NumPy lists in 20 ms; the first
call imports mne and compiles the way to the scalp.
"""

import argparse
import time
from pathlib import Path

import nibabel
import numpy as np
import record

import jaxm2m as jm


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, default=record.DATA / "heads/colin27_labels_1mm.nii.gz")
    arguments = parser.parse_args()
    image = nibabel.load(arguments.labels)
    labels = np.asarray(image.dataobj).astype(np.uint8)
    fine = labels.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    affine = image.affine @ np.diag([0.5, 0.5, 0.5, 1])
    affine[:3, 3] = image.affine[:3, 3] - image.affine[:3, :3] @ np.full(3, 0.25)
    head = jm.head.from_labels(fine, affine, spacing=2.0, space="MNI152")
    coarse = jm.head.from_labels(labels, image.affine, spacing=2.0, space="MNI152")
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        point = jm.placement.target(head, "C3")
        seconds.append(time.perf_counter() - start)
    row = {"first call, s": seconds[0], "second call, s": seconds[1], "voxels": int(fine.size)}
    row["distance from the target on the coarse labels, mm"] = float(
        np.linalg.norm(point - jm.placement.target(coarse, "C3"))
    )
    record.write("targets", "C3 on 0.5 mm labels", row)


if __name__ == "__main__":
    main()
