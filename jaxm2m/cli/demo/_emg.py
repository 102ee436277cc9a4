"""The demo's EMG of known truth, and the activation that a population-trained autoencoder infers from it."""

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxm2m.cli.demo import _settings as about
from jaxm2m.cli.demo._results import InferredEmg, SimulatedEmg

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

    from jaxm2m.cli.demo._stages import Stages


def record_emg(out: Path, size: about.Size, stages: "Stages") -> SimulatedEmg:
    """A recording; writes recording.h5, joints.csv and emg.h5."""
    import jax
    import numpy as np
    import pandas as pd

    import jaxm2m as jm

    with stages("EMG") as said:
        made = jm.simulate.gait_emg(
            jax.random.key(about.SEED),
            trials=size.trials,
            duration=size.seconds,
            stance=about.STANCE,
            swing=about.SWING,
        )
        sfreq = float(made.sfreq)
        recording = jm.session.load_emg(
            np.asarray(made.emg), sfreq, channels=made.channels, axes="trial sample channel"
        )
        recording.save(out / "recording.h5")
        emg = jm.emg.preprocess(recording, rectified=True)
        kept = ~emg.flagged
        emg = emg.pick(kept)
        emg.save(out / "emg.h5")
        joints = made.pick("hip acceleration", "knee acceleration", "ankle acceleration")[kept]
        table = pd.DataFrame(np.asarray(joints).reshape(-1, 3), columns=["hip", "knee", "ankle"])
        with jm.files.atomic(out / "joints.csv") as temporary:
            table.to_csv(temporary, index=False)
        scale = np.asarray(emg.preprocessing["normalise"]["scale"])
        truth = (np.asarray(made.mean, float) / scale)[kept].reshape(-1, len(scale))
        said.append(
            f"a rat's hindlimb that walks: {len(emg.trials)} trials of {size.seconds:g} s, {len(emg.channels)} "
            "muscles; a population learns it beside what follows"
        )
    return SimulatedEmg(emg, truth)


def train(out: Path, size: about.Size) -> None:
    """The population, from emg.h5 into run/, or its rest."""
    import jax

    import jaxm2m as jm

    emg = jm.emg.Rectified.load(out / "emg.h5")
    jm.emg.fit(
        emg,
        key=jax.random.key(about.SEED),
        preset="small",
        population=size.members,
        batch_size=len(jm.emg.chop(emg, 0.2, 0.05, margin=6)),  # all: an epoch is a step
        schedule=jm.population.PBT(epochs=size.steps, generations=size.generations, patience=size.generations),
        directory=out / "run",
        progress=False,
    )


@contextmanager
def train_beside(out: Path, size: about.Size) -> "Iterator[Callable[[], None]]":
    """`train` in a process of its own, since compiling, most of the demo's work, keeps little more than a core busy.

    Yields what waits for its end. The process ends with the one that began it, whatever ends that.
    """
    words = [sys.executable, "-m", "jaxm2m.cli.demo._emg", str(out), json.dumps(asdict(size))]
    with tempfile.TemporaryFile() as said:
        # it reads until this side of the pipe is closed
        child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=said, stderr=said, start_new_session=True)

        def wait() -> None:
            if child.wait():
                said.seek(0)
                last = said.read().decode(errors="replace").strip().splitlines()[-1:]
                raise RuntimeError(f"{out / 'run'}: the training ended with {child.returncode}: {''.join(last)}")

        try:
            yield wait
        finally:
            child.kill()
            child.communicate()


def infer_activation(
    out: Path, size: about.Size, stages: "Stages", recording: SimulatedEmg, wait: "Callable[[], None]"
) -> InferredEmg:
    """Activation of the recording; writes run/, activation.h5 and activation.csv."""
    import jax
    import numpy as np
    import pandas as pd

    import jaxm2m as jm

    emg, truth = recording.rectified, recording.truth
    with stages("PBT") as said:
        wait()
        fit = jm.emg.load(out / "run")
        said.append(f"{fit.run}")
    with stages("activation") as said:
        inferred = fit.activation(emg, key=jax.random.key(about.SEED), samples=size.samples)
        inferred.save(out / "activation.h5")
        rows = {"model": compute_r2(inferred.samples, truth)}
        low = {c: [np.asarray(jm.emg.lowpass(x, emg.sfreq, c)) for x in emg.by_trial()] for c in jm.emg.CUTOFFS}
        rows |= {f"low-pass {c:g} Hz": compute_r2(np.concatenate(x), truth) for c, x in low.items()}
        rows["recording"] = compute_r2(np.concatenate(emg.by_trial()), truth)
        summary = pd.DataFrame(
            {"mean R2": [x.mean() for x in rows.values()], "lowest R2": [x.min() for x in rows.values()]},
            index=pd.Index(rows, name="method"),
        )
        every = pd.DataFrame(rows, index=pd.Index(emg.channels, name="R2"))
        with jm.files.atomic(out / "activation.csv") as temporary:
            every.to_csv(temporary)
        cutoff = max(low, key=lambda c: rows[f"low-pass {c:g} Hz"].mean())
        said.append(
            f"R2 with the true mean {summary.loc['model', 'mean R2']:.3f}; best low-pass filter ({cutoff:g} Hz) "
            f"{summary.loc[f'low-pass {cutoff:g} Hz', 'mean R2']:.3f}"
        )
    return InferredEmg(emg, truth, fit, inferred, summary, low[cutoff], cutoff)


def compute_r2(inferred: Any, truth: Any) -> "np.ndarray":
    """Of each channel, (n_sample, n_channel) each."""
    return 1 - ((truth - inferred) ** 2).sum(0) / ((truth - truth.mean(0)) ** 2).sum(0)


def prepare_figures(emg: InferredEmg) -> "dict[str, Callable[[], Figure]]":
    """Name -> what draws it."""
    import jaxm2m as jm

    filters = {f"low-pass {emg.cutoff:g} Hz": emg.filtered}
    ends = [0, *(len(x) for x in emg.filtered)]
    truth = [emg.truth[sum(ends[: i + 1]) : sum(ends[: i + 2])] for i in range(len(emg.filtered))]
    return {
        "activation.png": lambda: jm.plot.activation(emg.inferred, emg.rectified, truth=truth, filters=filters),
        "lineage.png": lambda: jm.plot.lineage(emg.fit.run, label="validation bound"),
    }


def _exit_with_parent() -> None:
    os.read(0, 1)  # nothing is ever written: it returns at the end of whoever began this process
    os._exit(1)


if __name__ == "__main__":
    from jaxm2m.cli import _arguments

    threading.Thread(target=_exit_with_parent, daemon=True).start()
    _arguments.use_all_cores()
    train(Path(sys.argv[1]), about.Size(**json.loads(sys.argv[2])))
