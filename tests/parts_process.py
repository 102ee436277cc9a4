"""A process that computes its share of a run in parts: what tests of several processes start.

python parts_process.py CASE FOLDER PROCESS PROCESSES PORT
"""

import sys
from pathlib import Path

import jax
import numpy as np

import jaxm2m as jm
from jaxm2m.files import _resumable


def squares(folder, number, fail=False):
    """Store the squares of 0 to 6, two a part; the folder of each process may be its own."""
    settings = {"numbers": jm.files.make_setting("seven")}
    path = folder / "squares.h5"
    with jm.files.open_parts(path, settings, count=7, size=2, unit="squares", content="squares") as run:
        if run.finished:
            return
        share = run.share()
        print("share", *share, flush=True)
        for i in share:
            if fail and number == 1:
                raise ValueError("no square of this one")
            with run.store(i) as part:
                part["square"] = np.arange(7)[run.items(i)] ** 2
        if run.wait():
            with run.finish() as file:
                file["square"] = np.concatenate([run.open(i)["square"][()] for i in run.indices])


def fails(folder, number):
    squares(folder, number, fail=True)


def apart(folder, number):
    _resumable._LONGEST_DELAY = 0.5
    folder = folder / str(number)
    folder.mkdir()
    squares(folder, number)


def fields(folder, number):
    """Five poses over a ball, and a basis of it."""
    ball = jm.head.sphere(spacing=12.0)
    coil = jm.coil.figure8(sides=8, layers=1, turns=1)
    targets = np.array([[x, -20.0, 52] for x in (-50.0, -45, -40, -35, -30)])
    poses = np.stack([jm.coil.place(ball.scalp, target, (-1, -1, 0), 8.0) for target in targets])
    grid, sim = jm.efield.Grid.around(targets[2], (5, 5, 5), 4.0), jm.efield.Simulator(ball)
    jm.efield.compute_fields(sim, coil, poses, folder / "fields.h5", roi=grid)
    jm.efield.Basis.build(sim, grid, folder / "basis.h5", modes=11, rank=8)


if __name__ == "__main__":
    case, folder, number, count, port = sys.argv[1:]
    if int(count) > 1:
        jax.distributed.initialize(f"localhost:{port}", int(count), int(number), heartbeat_timeout_seconds=10)
    {f.__name__: f for f in (squares, fails, apart, fields)}[case](Path(folder), int(number))
