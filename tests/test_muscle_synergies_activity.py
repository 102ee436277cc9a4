"""Synergies of activity over time: names, cycles, ranks by blocks, clusters, the figure and the command."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import jaxm2m as jm
from jaxm2m import cli, muscle

pytestmark = pytest.mark.host

NAMES = ("TA", "SOL", "GM", "RF", "BF", "VL")
VECTORS = np.array([[4, 3, 1, 0, 0, 0], [0, 0, 2, 3, 0, 1], [1, 0, 0, 0, 3, 2.0]])


def make_trials(seed=0, lengths=(150, 200, 180, 220)):
    """Three synergies whose bursts come one after the other in each trial."""
    rng = np.random.default_rng(seed)
    trials = []
    for n in lengths:
        share = np.linspace(0, 1, n)[:, None]
        active = np.exp(-(((share - [0.2, 0.5, 0.8]) / 0.1) ** 2)) * rng.uniform(0.7, 1.3, 3)
        trials.append(np.maximum(active @ VECTORS + 0.02 * rng.random((n, 6)), 1e-3))
    return trials


@pytest.fixture(scope="module")
def emg():
    recording = jm.session.load_emg(make_trials(), 100.0, channels=NAMES, unit="uV")
    return jm.emg.preprocess(recording, rectified=True, to=100.0, screen=None, clip=None)


def test_rectified_is_taken_with_its_names(emg):
    fit = muscle.synergies(emg, 3, n_starts=3)
    assert fit.muscles == NAMES
    assert fit.vaf > 0.98
    joined = np.concatenate(emg.by_trial())
    np.testing.assert_allclose(fit.activations(emg), fit.activations(joined))
    bare = muscle.synergies(joined, 3, n_starts=3)
    np.testing.assert_allclose(bare.vectors, fit.vectors)
    trials = emg.trials
    activation = jm.emg.Activation(emg.samples, emg.samples, emg.samples, emg.sfreq, emg.channels, trials)
    np.testing.assert_allclose(muscle.synergies(activation, 3, n_starts=3).vectors, fit.vectors)
    turned = jm.emg.Activation(emg.samples, emg.samples, emg.samples, emg.sfreq, emg.channels[::-1], trials)
    with pytest.raises(ValueError, match="same order"):
        fit.activations(turned)


def test_cycles_have_equal_length_and_their_ends(emg):
    cycles = muscle.normalise_cycles(emg, 51)
    assert cycles.samples.shape == (4, 51, 6)
    assert list(cycles.duration) == [150, 200, 180, 220]
    for cycle, trial in zip(cycles.samples, emg.by_trial(), strict=True):
        np.testing.assert_allclose(cycle[[0, -1]], trial[[0, -1]])
    bursts = cycles.mean().argmax(0)[[0, 3, 4]] / 50
    np.testing.assert_allclose(bursts, [0.2, 0.5, 0.8], atol=0.03)
    assert muscle.synergies(cycles, 3, n_starts=2).muscles == NAMES
    assert muscle.bi_cross_validation(cycles).rank == 3
    with pytest.raises(ValueError, match="n_points: 1"):
        muscle.normalise_cycles(emg, 1)


def test_envelopes_below_zero_are_told_one_way_out():
    x = np.concatenate(make_trials()) - 0.002
    with pytest.raises(ValueError, match=r"% of the values are negative, down to -0\.00.*np\.maximum\(x, 0\)"):
        muscle.synergies(x, 3)


def test_blocks_that_cannot_be(emg):
    with pytest.raises(ValueError, match="blocks: 1 of 750 samples"):
        muscle.bi_cross_validation(emg, blocks=1)


def count(draws, smooth, blocks):
    sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
    try:
        from synergies import count_synergies
    finally:
        sys.path.pop(0)
    return count_synergies(draws, smooth, blocks)


@pytest.mark.slow
def test_slow_noise_is_no_synergy():
    by_blocks, singly = count(8, 40.0, 8), count(8, 40.0, None)
    assert (by_blocks == 5).sum() >= 7
    assert (singly > 5).sum() >= 5
    assert (count(4, 0.0, None) == 5).all()


def test_clusters_over_subjects():
    fits = [muscle.synergies(np.concatenate(make_trials(seed)), 3, n_starts=2) for seed in range(4)]
    clusters = muscle.cluster_synergies(fits)
    assert clusters.centres.shape == (6, 3)
    assert clusters.silhouette > 0.9
    assert list(clusters.table()["subjects"]) == [4, 4, 4]
    np.testing.assert_allclose(clusters.centres.sum(0), 1)
    for k in range(3):
        members = clusters.cluster == k
        assert len(set(clusters.subject[members])) == members.sum() == 4
    matching = muscle.match_synergies(clusters.centres, (VECTORS / VECTORS.sum(1, keepdims=True)).T, shuffles=20)
    assert (matching.cosine > 0.97).all()
    assert muscle.cluster_synergies(fits, 2).centres.shape == (6, 2)
    with pytest.raises(ValueError, match="n_clusters: 12 of 12"):
        muscle.cluster_synergies(fits, 12)
    with pytest.raises(ValueError, match="subjects: 1;"):
        muscle.cluster_synergies(fits[:1])


def test_figure_has_weights_and_time_courses(emg):
    cycles = muscle.normalise_cycles(emg)
    fit = muscle.synergies(cycles, 3, n_starts=2)
    axes = jm.plot.synergies(fit, cycles, title="Walking").axes
    assert len(axes) == 6
    for k in range(3):
        np.testing.assert_allclose([bar.get_height() for bar in axes[2 * k].patches], fit.vectors[:, k])
        active = np.stack([fit.activations(cycle)[:, k] for cycle in cycles.by_trial()])
        np.testing.assert_allclose(axes[2 * k + 1].lines[-1].get_ydata(), active.mean(0))
        assert len(axes[2 * k + 1].lines) == 5
    assert len(jm.plot.synergies(fit).axes) == 3


def test_command(emg, tmp_path):
    emg.save(tmp_path / "emg.h5")

    def call(*words):
        return CliRunner().invoke(cli.app, ["emg", "synergies", *map(str, words)])

    one = call(tmp_path / "emg.h5", "--out", tmp_path / "out")
    assert one.exit_code == 0, one.output
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "weights.csv", "activations.csv", "ranks.csv", "synergies.png",
    }  # fmt: skip
    weights = pd.read_csv(tmp_path / "out" / "weights.csv", index_col="muscle")
    assert tuple(weights.index) == NAMES
    assert list(weights) == ["S1", "S2", "S3"]
    active = pd.read_csv(tmp_path / "out" / "activations.csv")
    assert len(active) == 4 * 101
    two = call(tmp_path / "emg.h5", "--out", tmp_path / "two", "--rank", 2, "--points", 0)
    assert two.exit_code == 0, two.output
    assert len(pd.read_csv(tmp_path / "two" / "activations.csv")) == 750
    for words, problem in (
        ((tmp_path / "emg.h5", "--out", "x", "--rank", 7), "--rank: 7 for 6 muscles"),
        ((tmp_path / "none.h5", "--out", "x"), "does not exist"),
        ((tmp_path / "emg.h5", "--out", "x", "--points", 1), "--points: 1"),
    ):
        bad = call(*words)
        assert bad.exit_code == 2, bad.output
        assert problem in bad.output.replace("\n", " ")
