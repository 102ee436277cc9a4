"""Many poses in one command, killed and run again.

    python benchmarks/many_poses.py [--labels FILE.nii.gz] [--poses 300] [--spacing 2] [--quick]

Runs `jaxm2m efield` for poses round the left hand knob to the 80 x 80 x 80 grid of 1 mm: once without interruption
(wall time, processor time, largest resident memory), once killed (SIGKILL) when a third and when two thirds of the
poses are stored and run again to its end. All data of both files are compared to the bit. Then one pose is taken apart.
`--quick`: 12 poses, 4 mm. Exit status 1 if numbers differ.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import jax
import numpy as np
import record

import jaxm2m as jm
from jaxm2m import fem, files

TARGET = (-40.0, -20.0, 52.0)


def random_poses(head, coil, count):
    """Within 15 mm of the hand knob, any handle from lateral to posterior, 5 to 8 mm off the scalp."""
    rng = np.random.default_rng(0)
    poses = []
    while len(poses) < count:
        target = np.add(TARGET, (*rng.uniform(-15, 15, 2), 0))
        handle = (-1, rng.uniform(-1, 1), 0)
        pose = np.asarray(jm.coil.place(head.scalp, target=target, handle=handle, distance=rng.uniform(5, 8)), float)
        if float(jm.coil.clearance(coil, pose, head.scalp)) > 0.1:
            poses.append(pose)
    return np.stack(poses)


def measured(words, stop=None):
    """Run a command to its end, or until `stop()` is true; wall and processor seconds, GB, whether it ended itself."""
    start = time.perf_counter()
    process = subprocess.Popen(words)
    while True:
        pid, status, usage = os.wait4(process.pid, 0 if stop is None else os.WNOHANG)
        if pid:
            break
        if stop():
            process.send_signal(signal.SIGKILL)
            stop = None
        else:
            time.sleep(0.01)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, -signal.SIGKILL):
        sys.exit(f"{' '.join(words)}: exit status {process.returncode}")
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "wall_s": round(time.perf_counter() - start, 2),
        "processor_s": round(usage.ru_utime + usage.ru_stime, 2),
        "largest_resident_gb": round(usage.ru_maxrss * unit / 1e9, 3),
        "killed": process.returncode != 0,
    }


def equal(first, second):
    with h5py.File(first) as a, h5py.File(second) as b:
        if set(a) != set(b):
            return False
        for name in a:
            if a[name].shape != b[name].shape or a[name].dtype != b[name].dtype:
                return False
            rows = range(len(a[name])) if name == "e" else [()]
            if not all(a[name][i].tobytes() == b[name][i].tobytes() for i in rows):
                return False
    return True


def seconds(function, *arguments, repeats=5):
    """Median wall and processor seconds of a call whose program is compiled."""
    jax.block_until_ready(function(*arguments))
    wall, processor = [], []
    for _ in range(repeats):
        start = time.perf_counter(), time.process_time()
        jax.block_until_ready(function(*arguments))
        wall.append(time.perf_counter() - start[0])
        processor.append(time.process_time() - start[1])
    return {"wall_s": round(float(np.median(wall)), 4), "processor_s": round(float(np.median(processor)), 4)}


def one_pose(head, coil, pose, folder):
    """Where the time of a pose goes."""
    sim = jm.efield.Simulator(head)
    grid = jm.efield.Grid.around(TARGET)
    at_roi = sim.bind(coil, grid)
    parts, mixture = sim.parts, sim.parts.stiffness.mixture
    pose = jax.numpy.asarray(pose, parts.affine.dtype)
    source = jax.jit(lambda lattice, *pose: lattice.edge_averages(*pose))
    solve = jax.jit(lambda s, b, t: fem.solve(s, b, t, poison=True))
    recovered = jax.jit(lambda f, e: f.solver.recovery(e, mixture.across, mixture.normal, parts.conductivity))
    dadt = source(parts.lattice, coil, pose, 1e6)
    load = -parts.stiffness.load_vector(dadt)
    field = fem.at_centres(dadt)
    e, stats = jm.efield.evaluate(at_roi, pose[None], 1e6, batch_size=1)
    table = {
        "source": seconds(source, parts.lattice, coil, pose, 1e6),
        "solve": seconds(solve, parts.stiffness, load, parts.tolerance),
        "recovery at the grid's points": seconds(recovered, at_roi, field),
        "all of it in one program": seconds(lambda: jm.efield.evaluate(at_roi, pose, 1e6, batch_size=1)),
    }
    volume = np.asarray(e, np.float32).reshape(*grid.shape, 3)
    table["compression (another thread)"] = seconds(lambda: files.compress_chunk(volume) and None)
    run = files.Parts(folder / "one.h5", {}, 1, 1, 1, "poses")
    run.folder.mkdir()

    def store():
        with run.store(0) as file:
            data = files.create_chunked(file, "e", (1, *grid.shape, 3), unit="V/m")
            files.write_chunks(data, [files.compress_chunk(np.asarray(e, np.float32).reshape(volume.shape))])
            file["iterations"], file["residual"] = np.asarray(stats.iterations), np.asarray(stats.residual)

    table["compression and writing (another thread)"] = seconds(store)
    table["bytes stored"] = run.file(0).stat().st_size
    table["bytes of numbers"] = volume.nbytes
    table["iterations"] = int(stats.iterations[0])
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, default=record.DATA / "heads/colin27_labels_1mm.nii.gz")
    parser.add_argument("--coil", default=str(record.DATA / "coils/Magstim_70mm_Fig8.ccd"), help="a file, or 'figure8'")
    parser.add_argument("--poses", type=int)
    parser.add_argument("--spacing", type=float)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    count = options.poses or (12 if options.quick else 300)
    spacing = options.spacing or (4.0 if options.quick else 2.0)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None

    head = jm.head.load(options.labels, spacing)
    coil = jm.coil.figure8() if options.coil == "figure8" else jm.coil.load(options.coil)
    poses = random_poses(head, coil, count)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "poses.npy", poses)

        def command(out):
            words = [sys.executable, "-m", "jaxm2m.cli", "efield", "--head", str(options.labels)]
            words += ["--coil", options.coil, "--poses", str(folder / "poses.npy"), "--spacing", str(spacing)]
            return [*words, "--roi", ",".join(map(str, TARGET)), "--out", str(out)]

        whole = measured(command(folder / "whole.h5"))
        print("uninterrupted", whole, flush=True)
        runs = []
        for share in (1 / 3, 2 / 3, None):
            parts = folder / "killed.h5.parts"
            stop = None if share is None else lambda s=share, p=parts: len(list(p.glob("[0-9]*.h5"))) >= s * count
            runs.append(measured(command(folder / "killed.h5"), stop))
            print("killed" if runs[-1]["killed"] else "ended", runs[-1], flush=True)
        same = equal(folder / "whole.h5", folder / "killed.h5")
        size = (folder / "whole.h5").stat().st_size
        with h5py.File(folder / "whole.h5") as file:
            iterations, residual = file["iterations"][()], file["residual"][()]
            nonzero = float((file["e"][0] != 0).any(-1).mean())
        parts = one_pose(head, jm.coil.tabulate(coil) if count >= 7 else coil, poses[0], folder)

    row = {
        "head": options.labels.name,
        "spacing_mm": spacing,
        "voxels": head.shape,
        "coil": coil.metadata["name"],
        "poses": count,
        "grid": "80 x 80 x 80, 1 mm",
        # above 0.5 when the run began, something else was running and wall times are upper bounds
        "load_average_at_start": load,
        "uninterrupted": whole,
        "wall_s_a_pose_all_included": round(whole["wall_s"] / count, 3),
        "bar": {"wall_s": 300, "largest_resident_gb": 4},
        "killed_and_run_again": runs,
        "equal_to_the_bit": same,
        "file_bytes": size,
        "points_with_field": round(nonzero, 3),
        "iterations": [int(iterations.min()), int(iterations.max())],
        "largest_residual": float(residual.max()),
        "one_pose": parts,
    }
    record.write("many_poses", f"{row['head']}, {spacing:g} mm, {count} poses", row)
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
