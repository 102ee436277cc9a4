"""Figures of a population, from a made history whose lineage is known."""

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from jaxm2m import plot
from jaxm2m.population import Run
from jaxm2m.population._members import Best, Members

pytestmark = pytest.mark.host

# member 1 goes on from 0 after the first generation, 2 from 1 after the second; the best score is the last of 2
PARENTS = [[0, 0, 2], [0, 1, 1], [0, 1, 2]]
SCORES = [[0.5, 0.9, np.nan], [0.45, 0.4, 0.8], [0.44, 0.41, 0.2]]


def made(rates=((1e-4, 1e-3, 1e-1), (1e-4, 3e-4, 1e-1), (1e-4, 3e-4, 2e-4)), dropout=0.1):
    rows = [
        {
            "generation": g,
            "step": 10 * (g + 1),
            "member": m,
            "active": True,
            "score": SCORES[g][m],
            "parent": PARENTS[g][m],
        }
        | {"rate": rates[g][m], "dropout": dropout}
        for g in range(3)
        for m in range(3)
    ]
    hyper = {"rate": np.array(rates[-1]), "dropout": np.full(3, dropout)}
    best = Best(np.array([0.44, 0.4, 0.2]), np.array([30, 20, 30]), hyper, jnp.zeros((3, 2)))
    zero = np.zeros(3, int)
    members = Members(zero, zero, zero == 0, zero - 1, np.array(SCORES[-1]), hyper, jnp.zeros((3, 2)), (), best)
    return Run(members, pd.DataFrame(rows), "all 3 generations done", {})


def thickest(ax):
    return max(ax.lines, key=lambda line: line.get_linewidth())


def test_ancestors_follow_the_parents():
    run = made()
    assert run.best == 2
    assert run.ancestors().tolist() == [0, 1, 2]
    assert run.scores().shape == (3, 3)


def test_lineage_shows_every_descent_and_the_best_line():
    figure = plot.lineage(made(), label="error, mm")
    top, bottom = figure.axes[:2]
    lines = {tuple(map(tuple, part)) for part in top.collections[0].get_segments()}
    assert lines == {((g, PARENTS[g][m]), (g + 1, m)) for g in range(2) for m in range(3)}
    assert thickest(top).get_ydata().tolist() == [0, 1, 2]
    assert bottom.get_ylabel() == "error, mm"
    best = next(line for line in bottom.lines if line.get_linewidth() == 1.8)
    assert best.get_ydata().tolist() == [0.5, 0.4, 0.2]


def test_hyperparameters_shows_those_that_differ():
    figure = plot.hyperparameters(made())
    shown = [ax for ax in figure.axes if ax.axison]
    assert [ax.get_title(loc="left") for ax in shown] == ["rate"]
    assert shown[0].get_yscale() == "log"
    assert thickest(shown[0]).get_ydata().tolist() == [1e-4, 3e-4, 2e-4]


def test_hyperparameters_has_nothing_to_draw():
    with pytest.raises(ValueError, match="run: all members have the same hyperparameters"):
        plot.hyperparameters(made(rates=((1e-3,) * 3,) * 3))


def test_members_that_were_lost_are_marked():
    figure = plot.lineage(made())
    marks = figure.axes[0].collections[-1].get_offsets()
    assert np.asarray(marks).tolist() == [[0, 2]]
