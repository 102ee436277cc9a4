"""What `jaxm2m muscle compare` leaves: tables, the figure and a report."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxm2m.cli._muscle_input import format_shape

if TYPE_CHECKING:
    import pandas as pd

    from jaxm2m.cli._muscle_input import TrainingData
    from jaxm2m.muscle import Comparison, NetworkPreset

_PATHWAYS = {
    "direct": "direct: a weight from each feature to each muscle",
    "synergy": "synergy: features lead to activations of muscle synergies (non-negative matrix factorisation of MEPs)",
    "combined": "combined: the sum of both, trained jointly",
    "two-stage": "two-stage: a direct part trained on what a synergy network, then held, left",
}
_SOURCES = {
    "sources": "sources: of each muscle, a non-negative smooth density over grey matter and a recruitment curve",
    "synergy-sources": "synergy-sources: the same of each muscle synergy, whose activations lead to the muscles as the "
    "synergies do",
}


def summarise(table: "pd.DataFrame") -> "pd.DataFrame":
    """Pooled scores of scaled MEPs with their intervals, in words: "0.651 [0.602, 0.701]"."""
    import pandas as pd

    pooled = table.xs(("scaled", "pooled"), level=("unit", "kind"))
    return pd.DataFrame(
        {
            score: [
                f"{row[score]:.3f} [{row[f'{score}_low']:.3f}, {row[f'{score}_high']:.3f}]"
                for _, row in pooled.iterrows()
            ]
            for score in ("cosine", "s1", "nrmse")
        },
        index=pooled.index,
    )


def write_comparison(out: Path, result: "Comparison", data: "TrainingData", seed: int) -> None:
    """All results; the report last, so that it stands for a whole set."""
    import pandas as pd

    import jaxm2m as jm
    from jaxm2m import files
    from jaxm2m.cli import _report

    result.save(out / "comparison.h5")
    with files.atomic(out / "table.csv") as temporary:
        result.table.to_csv(temporary)
    pairs = pd.concat({metric: result.differences(metric) for metric in jm.muscle.METRICS}, names=["score"]).droplevel(
        1
    )
    with files.atomic(out / "differences.csv") as temporary:
        pairs.to_csv(temporary)
    criteria: dict[str, list[str]] = {}
    if len(result.criteria):
        with files.atomic(out / "criteria.csv") as temporary:
            result.criteria.to_csv(temporary)
        criteria = {
            "Criteria": [
                _report.format_table(result.criteria),
                _report.format_paragraph(
                    "Of one more fit of each variant to all trials. The criteria take MEPs of one trial for "
                    "independent; with raw parameters of networks, their number alone decides."
                ),
            ]
        }
    with files.atomic(out / "comparison.png") as temporary:
        jm.plot.comparison(result).savefig(temporary, format="png")
    settings = _list_settings(result, data, seed)
    packages = _report.find_versions("jaxm2m", "jax", "jaxlib", "flax", "optax", "numpy", "scipy", "scikit-learn")
    nrmse = result.differences()
    nrmse.index = pd.Index(nrmse["first"] + " \N{MINUS SIGN} " + nrmse["second"], name="NRMSE")
    pooled = result.table.xs(("scaled", "pooled"), level=("unit", "kind"))
    _report.write(
        out / "report.html",
        "From the field to the muscles",
        f"jaxm2m {jm.__version__}, {len(result.variants)} variants by cross-validation in {len(result.largest)} folds, "
        f"{len(result.fold)} stimuli, {len(result.muscles)} muscles.",
        {
            "Predictions": [
                _report.embed_picture(
                    out / "comparison.png",
                    "Measured MEPs, predictions of the same stimuli by models that never saw them, and scores of the "
                    "scaled MEPs: means over folds with jackknife 90 % intervals.",
                )
            ],
            "Scores": [
                _report.format_table(pooled[["cosine", "s1", "s2", "s3", "nrmse"]]),
                _report.format_paragraph(
                    "All trials and muscles of a fold together, means over folds, MEPs scaled by the largest in "
                    "training. s1 = <m, p> / <m, m>, s2 = <m, p> / <p, p>, s3 = |p| / |m| of measured m and predicted "
                    "p; the best possible prediction has s2 = 1 and s1 = 1 - NRMSE^2."
                ),
            ],
            "Differences": [
                _report.format_table(nrmse[["difference", "low", "high"]]),
                _report.format_paragraph(
                    "Jackknife 90 % intervals over the same folds. One that holds zero tells no winner."
                ),
            ]
            if len(nrmse)
            else [_report.format_paragraph("One variant alone.")],
            **criteria,
            "Methods": [_report.format_paragraph(_describe_methods(result, data, seed))],
            "Settings": [_report.format_table(settings)],
            "Versions": [_report.format_table(packages)],
            "References": [_report.format_references("jaxm2m", "jax", "yarossi2019", "efron1993")],
        },
    )


def _list_settings(result: "Comparison", data: "TrainingData", seed: int) -> dict[str, str]:
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jaxm2m import files

    step = float(np.linalg.norm(data.source.grid.affine[:3, 0]))
    return {
        "fields": data.source.path.name,
        "grid": f"{format_shape(data.source.grid.shape)} points of {step:g} mm, {data.source.space}",
        "stimuli": f"{len(data.rows)} of {data.source.count}",
        "muscles": ", ".join(data.meps.muscles),
        "MEPs (sha256)": files.fingerprint(data.meps.amplitude),
        "variants": "; ".join(result.variants),
        "preset": data.preset or "none",
        "folds": str(len(result.largest)),
        "synergies of the folds": ", ".join(map(str, result.ranks)),
        "firing rate": "none" if data.rate is None else _describe_rate(data.rate.settings),
        "mask": "none" if data.mask is None else f"{int(data.mask.sum())} points",
        "seed": str(seed),
        "precision": str(jnp.result_type(float)),
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
    }


def _describe_methods(result: "Comparison", data: "TrainingData", seed: int) -> str:
    from jaxm2m.muscle import PRESETS

    left_out = data.source.count - len(data.rows)
    ranks = sorted(set(result.ranks.tolist()))
    kinds, heads = (dict.fromkeys(variant.rpartition(", ")[i] for variant in result.variants) for i in (0, 2))
    networks = [] if data.preset is None else _describe_networks(PRESETS[data.preset], kinds, heads)
    parts = [
        f"MEPs of {len(result.muscles)} muscles to {len(result.fold)} stimuli were predicted from the electric field "
        "in the brain.",
        f"{left_out} further stimuli were left out (flagged MEPs: {data.why})." if left_out else "",
        *networks[:1],
        ""
        if data.rate is None
        else f"The firing rate followed an illustrative {_describe_rate(data.rate.settings)}, which is "
        "not fitted to data.",
        "" if data.mask is None else f"Only {int(data.mask.sum())} points of a mask counted.",
        *networks[1:],
        _describe_sources(heads),
        f"Cross-validation had {len(result.largest)} folds; "
        + (
            "the range of the fields, the scaling of the MEPs, the synergies, the autoencoder, the mapper and the time "
            "to stop were fitted in each fold to its training trials alone, a tenth of which stopped the training."
            if networks
            else "the scaling of the MEPs and all else were fitted in each fold to its training trials alone."
        ),
        ""
        if ranks == [0]
        else f"Folds had {' or '.join(map(str, ranks))} synergies, "
        + ("as given." if data.rank else "the fewest with a VAF of 0.90 in the training trials."),
        "Scores are means over folds with leave-one-fold-out jackknife 90 % intervals (estimate \N{PLUS-MINUS SIGN} "
        "1.645 standard errors); variants are compared by paired differences over folds. Folds share training data, so "
        f"that intervals are somewhat too narrow. The random seed was {seed}.",
    ]
    return " ".join(part for part in parts if part)


def _describe_networks(preset: "NetworkPreset", kinds: Iterable[str], heads: Iterable[str]) -> list[str]:
    """What networks saw, and what they were."""
    config = preset.config
    code = format_shape(tuple(n >> config.pools for n in config.shape))
    blocks = f" of {preset.spacing:g} mm" if preset.spacing else ""
    saw = {
        "E-field": "the field's magnitude",
        "firing rate": "firing rates, which were computed at the grid's points and then averaged",
    }
    mapper = f"convolutions of {', '.join(map(str, config.convolutions))} filters, " if config.convolutions else ""
    return [
        f"Networks saw {format_shape(config.shape)} voxels{blocks} of {', or of '.join(saw[kind] for kind in kinds)}.",
        f"A convolutional autoencoder (filters {', '.join(map(str, config.filters))}) was trained to reduce them to a "
        f"code of {code} voxels with {config.filters[-1]} channel(s) ({_describe_training(preset.autoencoder)}); a "
        f"mapper with {mapper}dense layers of {', '.join(map(str, config.hidden))} units and a sigmoid led from the "
        f"code to MEPs scaled to [0, 1] ({_describe_training(preset.mapper)}, {preset.mapper.criterion}), "
        + ("the encoder being trained on with it" if preset.tuned else "the encoder being held")
        + ".",
        f"Heads were {'; '.join(_PATHWAYS[head] for head in heads if head in _PATHWAYS)}.",
    ]


def _describe_sources(heads: Iterable[str]) -> str:
    texts = [_SOURCES[head] for head in heads if head in _SOURCES]
    if not texts:
        return ""
    return (
        f"Variants without networks were {'; '.join(texts)}; they were fitted to all training trials of a fold, and "
        "the mean of their posterior was scored."
    )


def _describe_training(recipe: Any) -> str:
    return (
        f"{recipe.optimizer}, learning rate {recipe.learning_rate:g}, batches of {recipe.batch_size}, at most "
        f"{recipe.epochs} epochs"
    )


def _describe_rate(settings: Mapping[str, Any]) -> str:
    numbers = ", ".join(f"{name} {value:g}" for name, value in settings["numbers"].items())
    return (
        f"{settings['curve']} ({numbers}) of the field's {settings['component']} over {settings['threshold']:g} "
        f"{settings['unit']}"
    )
