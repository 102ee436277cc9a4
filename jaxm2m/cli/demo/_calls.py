"""The commands and the calls behind each part of the demo's report, to be run in its folder."""

from dataclasses import dataclass

from jaxm2m.cli.demo import _settings as about

_TARGET = ", ".join(f"{x:g}" for x in about.TARGET)
_HANDLE = ", ".join(f"{x:g}" for x in about.HANDLE)
_ROI = "--roi=" + ",".join(f"{x:g}" for x in about.TARGET)
_SHAPE = ",".join(map(str, about.SHAPE))


@dataclass(frozen=True)
class Calls:
    """How a part of the report is made.

    Attributes
    ----------
    files
        What it is made from.
    commands
        A command line each; the same runs on files of one's own.
    python
        The calls, which go on from those of the parts before.
    """

    files: tuple[str, ...]
    commands: tuple[str, ...]
    python: str


def describe_calls(size: about.Size, didt: float) -> dict[str, Calls]:
    """Return the calls of each part; `didt` (A/s) is the session's."""
    conducts = f"--head atlas --spacing {size.spacing:g}"
    grid = f"{_ROI} --shape {_SHAPE} --step {about.STEP:g}"
    rank = min(80, size.modes)
    value, _, unit = about.THRESHOLD.partition(" ")
    threshold = f'--threshold "{about.THRESHOLD}"'
    key = f"jax.random.key({about.SEED})"
    small, networks = ("", "") if size.preset else (about.NETWORKS, "preset=preset, ")
    return {
        "head": Calls(
            (),
            (),
            f"""from functools import partial

import jax
import numpy as np
import jaxm2m as jm

target = np.array([{_TARGET}])
head = jm.head.atlas(spacing={size.spacing:g})
coil = jm.coil.figure8()
hot_spot = jm.coil.place(head.scalp, target, handle=({_HANDLE}), distance={about.DISTANCE:g})
jm.plot.pose(head, coil, hot_spot, target=target).savefig("pose.png")""",
        ),
        "field": Calls(
            ("hot_spot.txt",),
            (f"jaxm2m efield {conducts} --coil figure8 --poses hot_spot.txt {_ROI} --out field.h5 --nifti",),
            f"""sim = jm.efield.Simulator(head)
field = sim(coil, hot_spot, didt={about.DIDT:g})
field.summary(target, {about.RADIUS:g}).to_csv("summary.csv")
jm.plot.slices(field, target).savefig("slices.png")
jm.plot.cortex(field, target=target).savefig("cortex.png")""",
        ),
        "basis": Calls(
            (),
            (f"jaxm2m basis build {conducts} {grid} --modes {size.modes} --rank {rank} --out basis.h5",),
            f"""grid = jm.efield.Grid.around(target, shape={about.SHAPE}, spacing={about.STEP:g})
basis = jm.efield.Basis.build(sim, grid, "basis.h5", modes={size.modes}, rank={rank})
table = jm.coil.tabulate(coil)
at_grid = basis.bind(table, limit={size.limit:g})""",
        ),
        "session": Calls(
            ("poses.json", "meps.csv"),
            (
                f"jaxm2m efield {conducts} --coil figure8 --poses poses.json --didt {didt!r} {grid} --out fields.h5",
                "jaxm2m muscle map meps.csv --poses poses.json --out map",
            ),
            f"""poses, _ = jm.session.load_poses("poses.json")
meps = jm.muscle.Meps.load("meps.csv")
didt = {didt!r}  # A/s
jm.efield.compute_fields(sim, table, poses, "fields.h5", roi=grid, didt=didt)
jm.plot.motor_map(jm.muscle.motor_map(poses, meps)).savefig("maps.png")""",
        ),
        "rates": Calls(
            (),
            (),
            f"""rate = jm.cortex.FiringRate(jm.cortex.threshold({float(value):g}, "{unit}"))
rates = rate(at_grid(hot_spot, didt=didt))  # of each point of the grid""",
        ),
        "synergies": Calls(
            ("meps.csv",),
            (),
            """shares = meps.amplitude / meps.amplitude.max(0)
curve = jm.muscle.vaf_curve(shares)  # bi_cross_validation counts them better where there is little noise
synergies = jm.muscle.synergies(shares, curve.rank(0.9))""",
        ),
        "compare": Calls(
            ("fields.h5", "meps.csv"),
            (
                f"jaxm2m muscle compare fields.h5 meps.csv {threshold} --folds {size.folds} --seed {about.SEED} "
                f"--out {'compare' if size.preset else 'my-compare'}",
            ),
            f"""{small}options = jm.muscle.TrainingOptions(directory="compare/run")
result = jm.muscle.compare(
    "fields.h5", meps, grid=grid, rate=rate, {networks}n_folds={size.folds}, key={key}, options=options
)
print(result.table, result.differences())
jm.plot.comparison(result).savefig("comparison.png")""",
        ),
        "sources": Calls(
            ("fields.h5", "meps.csv"),
            (
                f"jaxm2m muscle fit fields.h5 meps.csv --variant sources {threshold} --seed {about.SEED} --out my-fit",
                "jaxm2m muscle predict fit/model.h5 fields.h5 --out predicted.csv",
            ),
            f"""sources = jm.muscle.fit_sources("fields.h5", meps, grid=grid, rate=rate, grey=at_grid, key={key})
print(sources.hotspots(), sources.table(), sources.check())
jm.plot.sources(sources, ("{about.MUSCLE}", "{about.SPARED}")).savefig("sources.png")
sources(at_grid(hot_spot, didt=didt))  # uV of each muscle""",
        ),
        "place": Calls(
            ("fit/model.h5", "starts.json", "basis.h5"),
            (),
            f"""sources = jm.muscle.load("fit/model.h5")
starts, _ = jm.session.load_poses("starts.json")
search = partial(
    jm.placement.optimize,
    at_grid,
    coil=table,
    scalp=head.scalp,
    initial_poses=starts,
    distance={about.DISTANCE:g},
    didt=didt,
    evaluations={size.evaluations},
)
strongest = search(jm.muscle.activate(sources, muscle="{about.MUSCLE}")).pose
reference = at_grid(strongest, didt=didt)  # `least` is a share of what {about.MUSCLE} answers there
placement = search(
    jm.muscle.activate(sources, muscle="{about.MUSCLE}", avoid=("{about.SPARED}",), reference=reference)
)
placement.export("target_brainsight.txt", format="brainsight", name="{about.MUSCLE}")
jm.plot.search(placement, head, target, coil=coil).savefig("search.png")
e = at_grid(placement.pose, didt=didt)
sources(e), sources.interval(e)  # uV of each muscle""",
        ),
        "emg": Calls(
            ("recording.h5", "joints.csv"),
            (
                "jaxm2m emg preprocess recording.h5 --rectified --out emg.h5",
                f"jaxm2m emg fit emg.h5 --preset small --population {size.members} --seed {about.SEED} --out run",
                f"jaxm2m emg activation emg.h5 --run run --samples {size.samples} --seed {about.SEED} "
                "--out activation.h5",
                "jaxm2m emg compare emg.h5 --targets joints.csv --run run",
            ),
            f"""emg = jm.emg.preprocess(jm.session.load_emg("recording.h5"), rectified=True)
emg = emg.pick(~emg.flagged)
fit = jm.emg.load("run")  # or, to its end: jm.emg.fit(emg, key={key}, preset="small", population={size.members})
inferred = fit.activation(emg, key={key}, samples={size.samples})
jm.plot.activation(inferred, emg).savefig("activation.png")
jm.plot.lineage(fit.run).savefig("lineage.png")""",
        ),
    }
