"""The demo's mapping session of known truth, networks that learn it, its sources, and the coil that they place."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxm2m.cli import _muscle_input
from jaxm2m.cli.demo import _settings as about
from jaxm2m.cli.demo._results import CoilSearch, Fields, Networks, Session

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from jaxm2m.cli.demo._stages import Stages
    from jaxm2m.muscle import Sources


def generate_session(out: Path, size: about.Size, stages: "Stages", fields: Fields) -> Session:
    """Stimuli, MEPs and fields; writes poses.json, meps.csv and fields.h5."""
    import jax
    import numpy as np

    import jaxm2m as jm

    value, _, unit = about.THRESHOLD.partition(" ")
    rate = jm.cortex.FiringRate(jm.cortex.threshold(float(value), unit))
    with stages("session") as said:
        truth = jm.simulate.mapping_session(
            fields.at_grid,
            key=jax.random.key(about.SEED),
            rate=rate,
            target=about.TARGET,
            handle=about.HANDLE,
            stimuli=size.stimuli,
            alpha=about.ALPHA,
            distance=about.DISTANCE,
            gain=about.GAIN,
        )
        didt = float(truth.didt[0])
        amplitude = np.asarray(truth.meps, np.float64)
        blank = np.full(amplitude.shape, np.nan)
        meps = jm.muscle.Meps(amplitude, blank, np.full(amplitude.shape, ""), truth.muscles)
        meps.save(out / "meps.csv")
        jm.session.save_targets(out / "poses.json", np.asarray(truth.poses, np.float64), space=fields.head.space)
        said.append(
            f"{size.stimuli} stimuli at 1.2 motor thresholds ({didt / 1e6:.1f} A/\N{MICRO SIGN}s), "
            f"{len(truth.muscles)} muscles, {(amplitude > 50).mean():.0%} of the MEPs above 50 \N{MICRO SIGN}V; "
            f"no prediction can have an NRMSE below {float(truth.ceiling()):.2f}"
        )
    with stages("fields") as said:
        # as a command reads them, so that the command knows the file as its own
        poses, _ = jm.session.load_poses(out / "poses.json")
        jm.efield.compute_fields(fields.sim, fields.table, poses, out / "fields.h5", roi=fields.grid, didt=didt)
        data = _muscle_input.load_training_data(
            out / "fields.h5", out / "meps.csv", None, about.THRESHOLD, "small", None, None, about.SEED
        )
        said.append(
            f"full solves of {len(poses)} poses on {_muscle_input.format_shape(fields.grid.shape)} points: fields.h5"
        )
    with stages("synergies") as said:
        key = jax.random.key(about.SEED)
        shares = data.meps.amplitude / data.meps.amplitude.max(0)
        curve = jm.muscle.vaf_curve(shares, key=key)
        synergies = jm.muscle.synergies(shares, curve.rank(0.9), key=key)
        said.append(f"{synergies.vectors.shape[1]} describe the MEPs with a VAF of {synergies.vaf:.2f}")
    return Session(truth, rate, didt, data, curve, synergies)


def train_networks(out: Path, size: about.Size, stages: "Stages", session: Session) -> Networks:
    """The variants of networks, cross-validated; writes compare/."""
    import jax
    import numpy as np

    import jaxm2m as jm

    data = session.data
    # one member at a time, which is best on CPUs: to measure it would take longer than the training
    training: dict[str, Any] = {"key": jax.random.key(about.SEED), "preset": size.networks}
    options = {name: value for name, value in data.options.items() if name != "preset"}
    with stages("compare") as said:
        (out / "compare").mkdir(exist_ok=True)
        result = jm.muscle.compare(
            data.source.path,
            data.meps,
            n_folds=size.folds,
            options=data.training_options(directory=out / "compare/run", chunk_size=1),
            **options,
            **training,
        )
        result.save(out / "compare/comparison.h5")
        with jm.files.atomic(out / "compare/table.csv") as temporary:
            result.table.to_csv(temporary)
        nrmse = result.table.xs(("scaled", "pooled"), level=("unit", "kind"))["nrmse"]
        best = str(nrmse.idxmin())
        scaled, _ = result.values()
        mean = np.asarray(session.truth.mean, float) / result.largest[result.fold]
        ceiling = float(np.sqrt(((scaled - mean) ** 2).mean() / (scaled**2).mean()))
        said.append(f"best: {best}, NRMSE {nrmse[best]:.3f} in {size.folds} folds (ceiling {ceiling:.3f})")
    return Networks(result, ceiling, best)


def fit_sources(out: Path, stages: "Stages", fields: Fields, session: Session) -> "Sources":
    """Where muscles are driven from, and their curves, by all stimuli; writes fit/model.h5 and hotspots.csv."""
    import jax
    import numpy as np

    import jaxm2m as jm

    data, place = session.data, out / "fit/model.h5"
    with stages("sources") as said:
        if place.exists():
            sources = jm.muscle.Sources.load(place)
        else:
            place.parent.mkdir(exist_ok=True)
            sources = jm.muscle.fit_sources(
                data.source.path,
                data.meps,
                grid=fields.grid,
                rate=data.rate,
                didt=data.didt,
                grey=fields.at_grid,
                key=jax.random.key(about.SEED),
            )
            sources.save(place)
        table = compare_hot_spots(sources, session)
        with jm.files.atomic(out / "hotspots.csv") as temporary:
            table.to_csv(temporary)
        away = table["from the truth (mm)"].to_numpy(float)
        said.append(
            f"hot spots {np.nanmedian(away):.1f} mm from the truth (median), "
            f"{int((away <= table['radius 90 % (mm)'].to_numpy(float)).sum())} of {len(table)} within the radius that "
            "holds 90 % of their posterior: fit/model.h5"
        )
    return sources


def compare_hot_spots(sources: "Sources", session: Session) -> "pd.DataFrame":
    """A row a muscle: its hot spot, mm, its radii, and how far it is from the true one, or the nearer of two."""
    import numpy as np

    spots, true = sources.hotspots(), session.truth.hotspots()
    columns = {"x": "x (mm)", "y": "y (mm)", "z": "z (mm)"}
    columns |= {f"radius_{share}": f"radius {share} % (mm)" for share in (50, 90)}
    table = spots[list(columns)].rename(columns=columns)
    table["from the truth (mm)"] = [
        np.linalg.norm(
            places[["x", "y", "z"]].to_numpy(float) - spots.loc[name, ["x", "y", "z"]].to_numpy(float), axis=1
        ).min()
        for name, places in true.groupby("muscle", sort=False)
    ]
    return table


def place_coil(
    out: Path, size: about.Size, stages: "Stages", fields: Fields, session: Session, sources: "Sources"
) -> CoilSearch:
    """The coil, by gradient through basis, rates and sources; writes starts.json, target*.txt and placement.csv."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import pandas as pd

    import jaxm2m as jm

    muscles = session.truth.muscles
    wanted, spared = muscles.index(about.MUSCLE), muscles.index(about.SPARED)
    with stages("place") as said:
        poses = np.asarray(session.truth.poses, np.float64)
        # where the session came nearest to it
        shares = session.data.meps.amplitude / session.data.meps.amplitude.max(0)
        order = np.argsort(-(shares[:, wanted] - shares[:, spared]), kind="stable")
        jm.session.save_targets(
            out / "starts.json",
            np.concatenate([fields.hot_spot[None], poses[order[: size.starts - 1]]]),
            space=fields.head.space,
        )
        starts, _ = jm.session.load_poses(out / "starts.json")
        search = partial(
            jm.placement.optimize,
            fields.at_grid,
            coil=fields.table,
            scalp=fields.head.scalp,
            initial_poses=starts,
            distance=about.DISTANCE,
            didt=session.didt,
            evaluations=size.evaluations,
        )
        # what the muscle can answer: a session of one orientation may have reached half of it
        strongest = search(jm.muscle.activate(sources, muscle=about.MUSCLE)).pose
        reference = fields.at_grid(jnp.asarray(strongest), didt=session.didt)
        objective = jm.muscle.activate(sources, muscle=about.MUSCLE, avoid=(about.SPARED,), reference=reference)
        placement = search(objective)
        placement.export(out / "target_brainsight.txt", format="brainsight", name=about.MUSCLE)
        placement.export(out / "target.txt", format="txt")
        chosen = {"hot spot": fields.hot_spot, "best stimulus": poses[order[0]], "found": placement.pose}
        e = fields.at_grid(jnp.asarray(np.stack(list(chosen.values()))), didt=session.didt)
        predicted = np.asarray(sources(e), float)
        low, high = np.asarray(sources.interval(e), float)
        true = np.asarray(session.truth.expected_meps(e), float)
        largest = np.asarray(sources.largest, float)
        columns: dict[str, Any] = {"objective": np.asarray(jax.vmap(objective)(e), float)}
        for name, values in (("predicted", predicted), ("true", true)):
            share = values / largest
            columns[f"share, {name}"] = share[:, wanted] / (share[:, wanted] + share[:, spared])
            for k in (wanted, spared):
                columns[f"{muscles[k]}, {name} (\N{MICRO SIGN}V)"] = values[:, k]
        table = pd.DataFrame(columns, index=pd.Index(list(chosen), name="pose"))
        with jm.files.atomic(out / "placement.csv") as temporary:
            table.to_csv(temporary)
        moved, turned = jm.placement.pose_difference(fields.hot_spot, placement.pose)
        field = fields.sim(fields.coil, placement.pose, didt=about.DIDT)
        said.append(
            f"{about.MUSCLE} and not {about.SPARED}: {moved:.1f} mm and {turned:.0f} degrees from the hot spot, its "
            f"true share of both {table.loc['hot spot', 'share, true']:.3f} -> {table.loc['found', 'share, true']:.3f} "
            f"(predicted {table.loc['found', 'share, predicted']:.3f})"
        )
    return CoilSearch(placement, chosen, predicted, np.stack([low, high]), true, table, field, moved, turned)


def prepare_figures(
    fields: Fields, session: Session, networks: Networks, sources: "Sources", place: CoilSearch
) -> "dict[str, Callable[[], Figure]]":
    """Name -> what draws it."""
    import numpy as np

    import jaxm2m as jm
    from jaxm2m.cli.demo import _figures

    meps = session.data.meps
    muscles = session.truth.muscles
    # both cortices in the same colours
    limit = max(
        float(np.percentile(np.asarray(f.magnitude)[np.asarray(f.tissue) == fields.head.tissues.index("grey")], 99.9))
        for f in (fields.field, place.field)
    )
    view = -fields.hot_spot[:3, 2]
    with jm.files.open_hdf5(session.data.source.path) as file:
        drive = np.asarray(sources.drive(file["e"][()]))
    return {
        "maps.png": lambda: jm.plot.motor_map(jm.muscle.motor_map(np.asarray(session.truth.poses), meps)),
        "rates.png": lambda: _figures.draw_rates(fields, session),
        "search.png": lambda: jm.plot.search(
            place.placement, fields.head, about.TARGET, coil=fields.coil,
            label=f"{about.MUSCLE} of {about.MUSCLE} + {about.SPARED} (a share)",
        ),
        "pose_found.png": lambda: jm.plot.pose(fields.head, fields.coil, place.placement.pose, target=about.TARGET),
        "cortex.png": lambda: jm.plot.cortex(fields.field, target=about.TARGET, limit=limit, view=view),
        "cortex_found.png": lambda: jm.plot.cortex(place.field, target=about.TARGET, limit=limit, view=view),
        "muscles.png": lambda: _figures.draw_muscles(place, muscles),
        "synergies.png": lambda: _figures.draw_synergies(session),
        "comparison.png": lambda: jm.plot.comparison(networks.comparison),
        "sources.png": lambda: jm.plot.sources(sources, (about.MUSCLE, about.SPARED)),
        "recruitment.png": lambda: jm.plot.source_recruitment(sources, drive=drive, meps=meps),
    }  # fmt: skip
