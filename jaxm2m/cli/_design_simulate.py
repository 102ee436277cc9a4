"""`jaxm2m design simulate`: a session on a generated subject, and how far it is from the truth."""

import time
from typing import TYPE_CHECKING, Any

from jaxm2m.cli import _arguments, _design_report

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from jaxm2m.cli._design_desk import Desk
    from jaxm2m.cli._design_input import Goal, Setup
    from jaxm2m.cortex import FiringRate
    from jaxm2m.design import Loop
    from jaxm2m.simulate import SimulatedSession

SOURCE = "The subject was generated (`simulate.mapping_session`); poses are those that were proposed."
_STIMULI, _INTENSITY = 150, 1.2  # of the session that the subject's drive is scaled by
_STARTS, _EVALUATIONS = 8, 40  # of the search that knows the truth
_RANGE = 0.2, 4.0  # in resting motor thresholds, in which the truth's is sought
_LEAST, _FINE = 0.5, 10.0  # share of its largest that a muscle must keep, and what is paid below it


def generate_subject(setup: "Setup", rate: "FiringRate", seed: int) -> "SimulatedSession":
    """Draw a subject: cortex, synergies, thresholds; none of its session's MEPs is used."""
    import jax

    import jaxm2m as jm

    return jm.simulate.mapping_session(
        setup.at_roi, key=jax.random.fold_in(jax.random.key(seed), 1), rate=rate, target=setup.target,
        handle=setup.patch.handle, stimuli=_STIMULI, intensity=_INTENSITY, distance=setup.patch.distance,
        progress=False,
    )  # fmt: skip


def run(loop: "Loop", subject: "SimulatedSession", desk: "Desk", asked: "Goal", *, missed: float, seed: int) -> None:
    """Give stimuli until the loop is done, a line each with the clock; noise follows from the seed and the number."""
    import jax
    import numpy as np

    key = jax.random.fold_in(jax.random.key(seed), 2)
    if len(loop):
        _arguments.say(f"{len(loop)} stimuli are there from before.")
    clocks: list[tuple[float, float]] = []
    desk.write_progress(loop)
    while len(loop) < asked.n_stimulus and not loop.done:
        start = time.perf_counter()
        pose, didt = loop.next()
        between = time.perf_counter()
        noise, flags = jax.random.split(jax.random.fold_in(key, len(loop)))
        meps = np.array(subject.draw_meps(noise, desk.setup.at_roi(pose, didt=didt)), np.float64)
        meps[np.asarray(jax.random.uniform(flags, meps.shape)) < missed] = np.nan
        again = time.perf_counter()
        loop.record(pose, didt, meps)
        end = time.perf_counter()
        clocks.append((between - start, end - again))
        _arguments.say(
            f"stimulus {len(loop):3d}: next {clocks[-1][0]:5.2f} s, record {clocks[-1][1]:5.2f} s; "
            f"{didt / float(subject.rmt_didt):.2f} RMT, {int((meps > 50).sum()):2d} of {len(meps)} MEPs over "
            f"50 \N{MICRO SIGN}V; {desk.write_progress(loop)}"
        )
    if clocks:
        seconds = np.array(clocks[3:] or clocks).sum(1)
        _arguments.say(
            f"next and record: {np.median(seconds):.2f} s in the median, {seconds.max():.2f} s at most"
            f"{' (after the third)' if len(clocks) > 3 else ''}."
        )
    desk.finish(loop, loop.reason or f"all {asked.n_stimulus} stimuli were given")


def compare(loop: "Loop", subject: "SimulatedSession", setup: "Setup", asked: "Goal") -> "pd.DataFrame":
    """Compare hot spots with the truth, mm; or the mean MEPs at the best pose, uV; or a motor threshold, A/s."""
    import numpy as np
    import pandas as pd

    if asked.goal == "threshold":
        table = _design_report.tabulate_threshold(loop, None)
        table["true_a_per_s"] = _find_threshold(loop, subject, setup)
        return table
    if asked.goal != "map":
        return _compare_poses(loop, subject, setup, asked, loop.didt)
    table = loop.posterior.hotspots()[["x", "y", "z", "radius_50", "radius_90"]].copy()
    densities, points = (np.asarray(a, np.float64) for a in (subject.densities(), subject.points))
    true = densities @ points / densities.sum(1, keepdims=True)
    table["true_x"], table["true_y"], table["true_z"] = true.T
    table["error"] = np.linalg.norm(table[["x", "y", "z"]].to_numpy(float) - true, axis=1)
    names = list(asked.muscle or subject.muscles)
    return pd.DataFrame(table.loc[names])


def summarise(table: "pd.DataFrame", asked: "Goal") -> str:
    """Tell the error in a line."""
    if asked.goal == "map":
        inside = (table["error"] <= table["radius_90"]).mean()
        return (
            f"hot spots: {table['error'].median():.1f} mm off the truth (median of {len(table)} muscles); "
            f"{inside:.0%} lie in their 90 % radius."
        )
    if asked.goal == "threshold":
        mean, low, high, true = table.iloc[0].to_numpy(float)
        return (
            f"threshold: {mean / 1e6:.3g} A/\N{MICRO SIGN}s, {mean / true - 1:+.1%} off the truth, which lies "
            f"{'inside' if low <= true <= high else 'outside'} its 90 % interval."
        )
    reached, best = (_value(table[column].to_numpy(float), len(asked.muscle)) for column in ("mep_uv", "best_uv"))
    what = "mean MEP" if asked.goal == "hotspot" else "share of the target's MEP"
    return f"{what} at the pose: {reached:.3g}, {reached / best:.0%} of {best:.3g} at the best pose there is."


def _find_threshold(loop: "Loop", subject: "SimulatedSession", setup: "Setup") -> float:
    """dI/dt at which the muscle is stimulated as strongly as at its motor threshold, A/s; NaN where it is nowhere."""
    import numpy as np

    import jaxm2m as jm

    muscle = subject.muscles.index(loop.muscles[loop.wanted[0]])
    levels = np.geomspace(*_RANGE, 200) * float(subject.rmt_didt)
    unit = np.asarray(setup.at_roi(loop.next()[0], didt=1e6))
    mean = np.asarray(subject.expected_meps(unit * (levels / 1e6)[:, None, None]), np.float64)[:, muscle]
    at = float(jm.simulate.expected_mep(np.ones((1, 1), unit.dtype), curve=subject.curve)[0, 0])
    return float(np.interp(at, mean, levels, left=np.nan, right=np.nan))


def _compare_poses(
    loop: "Loop", subject: "SimulatedSession", setup: "Setup", asked: "Goal", didt: float
) -> "pd.DataFrame":
    import jax
    import jax.numpy as jnp
    import numpy as np
    import pandas as pd

    import jaxm2m as jm

    which = np.array([subject.muscles.index(name) for name in (*asked.muscle, *asked.avoid_muscle)])
    count = len(asked.muscle)

    def search(objective: Any) -> "np.ndarray":
        return jm.placement.optimize(
            setup.at_roi, objective, coil=setup.coil, scalp=setup.head.scalp, target=setup.target, n_starts=_STARTS,
            key=jax.random.key(0), radius=setup.patch.radius, distance=setup.patch.distance, didt=didt,
            avoid=setup.patch.avoid, evaluations=_EVALUATIONS, progress=False,
        ).pose  # fmt: skip

    def answer(e: Any) -> Any:
        return subject.expected_meps(e)[which[:count]].mean()

    def read(pose: "np.ndarray") -> "np.ndarray":
        return np.asarray(subject.expected_meps(setup.at_roi(pose, didt=didt)), np.float64)[which]

    _arguments.say("the best pose by the truth ...")
    best = search(answer)
    if asked.goal == "select":
        largest = float(read(best)[:count].mean())

        def share(e: Any) -> Any:
            meps = subject.expected_meps(e)[which]
            wanted, spared = meps[:count].mean(), meps[count:].mean()
            return wanted / (wanted + spared) - _FINE * jnp.maximum(_LEAST - wanted / largest, 0.0)

        best = search(share)
    columns = {"mep_uv": read(loop.best().pose), "best_uv": read(best)}
    return pd.DataFrame(columns, index=pd.Index([subject.muscles[k] for k in which], name="muscle"))


def _value(meps: "np.ndarray", count: int) -> float:
    """The mean MEP of the first muscles, or their share where others are to be spared."""
    wanted = float(meps[:count].mean())
    return wanted if count == len(meps) else wanted / (wanted + float(meps[count:].mean()))
