"""Sources on the command line: fit, predict and map write what the calls in Python give, and refuse what has no use."""

import json

import h5py
import jax
import nibabel
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import jaxm2m as jm
from jaxm2m import cli

pytestmark = pytest.mark.host

GRID = jm.efield.Grid.around((-40.0, -20.0, 52.0), shape=(9, 8, 8), spacing=2.5)
MUSCLES = ("FDI", "ADM")
COUNT = 40
RATE = ("--threshold", "60 V/m")
FIELD = ("--inputs", "field")


def call(*words):
    return CliRunner().invoke(cli.app, ["muscle", *map(str, words)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Blobs that move with the coil; two muscles by the firing rate at two places; one MEP flagged, one empty."""
    folder = tmp_path_factory.mktemp("sources")
    rng = np.random.default_rng(0)
    xyz = GRID.positions()
    shift = rng.uniform(-9, 9, (COUNT, 3))
    size = 110 * np.exp(-((xyz[None] - (xyz.mean(0) + shift)[:, None]) ** 2).sum(-1) / 2 / 9.0**2)
    e = (size[..., None] * np.array([0.6, 0.8, 0.0])).astype(np.float32)
    rate = np.asarray(jm.cortex.FiringRate(jm.cortex.threshold(60.0, "V/m"))(e))
    places = [np.linalg.norm(xyz - (xyz.mean(0) + d), axis=1).argmin() for d in ([-6, 0, 0], [6, 0, 0])]
    values = 10 ** (1.2 + 2 * rate[:, places]) * np.exp(0.1 * rng.normal(size=(COUNT, 2)))
    poses = np.tile(np.diag([1.0, -1, -1, 1]), (COUNT, 1, 1))
    poses[:, :3, 3] = xyz.mean(0) + [3, 3, 0] * shift + [0, 0, 30]
    table = pd.DataFrame(values, columns=[f"mep_{name}_uv" for name in MUSCLES])
    table.loc[3, "mep_FDI_uv"] = np.nan
    table["reason_ADM"] = ""
    table.loc[5, "reason_ADM"] = "background: 31.2 uV RMS"
    table.to_csv(folder / "meps.csv", index=False)
    tissue = np.ones(len(xyz), np.int8)
    tissue[xyz[:, 2] < 48] = 0
    for name in ("fields.h5", "old.h5"):
        with h5py.File(folder / name, "w") as file:
            file["e"] = e.reshape(COUNT, *GRID.shape, 3)
            file["poses"], file["didt"], file["affine"] = poses, np.full(COUNT, 1e6), GRID.affine
            file.attrs["space"] = "MNI152"
            if name == "fields.h5":
                file["tissue"], file.attrs["tissues"] = tissue.reshape(GRID.shape), json.dumps(["white", "grey"])
    upper = (xyz[:, 2] >= 48).astype(np.uint8).reshape(GRID.shape)
    nibabel.save(nibabel.Nifti1Image(upper, GRID.affine), folder / "mask.nii.gz")
    return folder


@pytest.fixture(scope="module")
def expected(folder):
    """The same by the calls."""
    return jm.muscle.fit_sources(
        folder / "fields.h5",
        jm.muscle.Meps.load(folder / "meps.csv"),
        grid=GRID,
        rate=jm.cortex.FiringRate(jm.cortex.threshold(60.0, "V/m")),
        key=jax.random.key(2),
    )


@pytest.fixture(scope="module")
def fitted(folder):
    done = call("fit", folder / "fields.h5", folder / "meps.csv", "--variant", "sources", *RATE, "--seed", 2,
                "--out", folder / "fit")  # fmt: skip
    assert done.exit_code == 0, done.output
    return done


@pytest.mark.slow
def test_fit_writes_what_the_calls_give(folder, fitted, expected):
    out = folder / "fit"
    assert {p.name for p in out.iterdir()} == {
        "model.h5", "hotspots.csv", "curves.csv", "checks.csv", "training_scores.csv", "training.png",
    }  # fmt: skip
    assert "warning" not in fitted.output
    assert "2 of 80 MEPs are flagged and count for nothing" in fitted.output
    sources = jm.muscle.load(out / "model.h5")
    np.testing.assert_allclose(sources.weights, expected.weights, rtol=1e-5)
    # the file of the fields knows which of its points are grey matter
    assert np.asarray(sources.points)[:, 2].min() >= 48
    hotspots = pd.read_csv(out / "hotspots.csv", index_col="muscle", keep_default_na=False)
    np.testing.assert_allclose(hotspots[["x", "y", "z"]].astype(float), expected.hotspots()[["x", "y", "z"]], rtol=1e-5)
    assert hotspots.x.astype(float)["FDI"] < hotspots.x.astype(float)["ADM"]
    curves = pd.read_csv(out / "curves.csv", index_col="muscle")
    np.testing.assert_allclose(curves.threshold, expected.table().threshold, rtol=1e-5)
    checks = pd.read_csv(out / "checks.csv", index_col="muscle")
    assert (list(checks.index), list(checks.columns)) == ([*MUSCLES, "all"], ["spread", "curve", "pattern"])
    np.testing.assert_allclose(checks, expected.check())
    # scores of the MEPs that may be used, all stimuli
    meps = jm.muscle.Meps.load(folder / "meps.csv")
    with h5py.File(folder / "fields.h5") as file:
        predicted = np.asarray(expected(file["e"][()]))
    scores = pd.read_csv(out / "training_scores.csv", index_col=0)
    for k, name in enumerate(MUSCLES):
        rows = meps.reasons[:, k] == ""
        alone = jm.muscle.scores(meps.amplitude[rows, k : k + 1], predicted[rows, k : k + 1]).muscles
        np.testing.assert_allclose(scores.loc[name], alone.iloc[0], rtol=1e-3)


@pytest.mark.slow
def test_predict_takes_sources_and_refuses_another_grid(folder, fitted, expected):
    for model in ("fit", "fit/model.h5"):
        done = call("predict", folder / model, folder / "fields.h5", "--out", folder / "p.csv")
        assert done.exit_code == 0, done.output
    with h5py.File(folder / "fields.h5") as file:
        e = file["e"][()]
    predicted = jm.muscle.Meps.load(folder / "p.csv")
    assert predicted.muscles == MUSCLES
    np.testing.assert_allclose(predicted.amplitude, expected(e), rtol=1e-4)
    with h5py.File(folder / "fields.h5") as one, h5py.File(folder / "moved.h5", "w") as two:
        for name in ("e", "poses", "didt"):
            two[name] = one[name][()]
        two["affine"] = jm.efield.Grid.around((-30.0, -20.0, 52.0), (9, 8, 8), 2.5).affine
    done = call("predict", folder / "fit", folder / "moved.h5", "--out", folder / "p2.csv")
    assert (done.exit_code, "on another grid than the model" in done.output) == (2, True)


@pytest.mark.slow
def test_map_writes_densities_beside_the_map(folder, expected):
    out = folder / "map"
    done = call("map", folder / "meps.csv", "--fields", folder / "fields.h5", "--sources", *RATE, "--seed", 2,
                "--out", out)  # fmt: skip
    assert done.exit_code == 0, done.output
    assert {"map.csv", "map.png", "sources.nii.gz", "hotspots.csv"} <= {p.name for p in out.iterdir()}
    volumes = nibabel.load(out / "sources.nii.gz")
    assert volumes.shape == (*GRID.shape, 2)
    np.testing.assert_allclose(volumes.get_fdata().sum((0, 1, 2)) * 2.5**3, 1, rtol=1e-4)
    expected.maps(folder / "expected.nii.gz")
    np.testing.assert_allclose(volumes.get_fdata(), nibabel.load(folder / "expected.nii.gz").get_fdata(), atol=1e-7)


def test_the_mask_is_grey_matter_and_its_lack_is_told_once(folder, monkeypatch):
    """Files of older versions do not know their tissues."""
    seen = []

    def record(*args, grey, **others):
        seen.append(grey)
        raise ValueError("stop: enough.")

    monkeypatch.setattr(jm.muscle, "fit_sources", record)
    words = ("fit", folder / "old.h5", folder / "meps.csv", "--variant", "sources", "--out", folder / "x")
    done = call(*words)
    assert done.output.count("does not say which points are grey matter") == 1
    assert "--mask" in done.output
    done = call(*words, "--mask", folder / "mask.nii.gz")
    assert "grey matter" not in done.output
    assert seen[0] is None
    np.testing.assert_array_equal(seen[1].reshape(-1), GRID.positions()[:, 2] >= 48)


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (("fit", "fields.h5", "meps.csv", "--variant", "sources", "--rank", "2"), "--rank: of networks"),
        (("fit", "fields.h5", "meps.csv", "--variant", "sources", "--preset", "small"), "--preset: of networks"),
        (("fit", "fields.h5", "meps.csv", "--variant", "sources", "--seed", "-1"), "--seed: -1"),
        (("fit", "fields.h5", "meps.csv", "--variant", "source"), "--variant: 'source'"),
        (("compare", "fields.h5", "meps.csv", *FIELD, "--heads", "source"), "--heads: 'source'"),
        (("compare", "fields.h5", "meps.csv", *FIELD, "--heads", "sources", "--rank", "1"), "--rank: of synergies"),
        (("compare", "fields.h5", "meps.csv", *FIELD, "--heads", "sources", "--preset", "small"), "--preset: of netw"),
        (("compare", "fields.h5", "meps.csv", *FIELD, "--heads", "sources", "--counts", "above"), "--counts: of netw"),
        (("map", "meps.csv", "--poses", "poses.npy", "--sources"), "--sources: they need the fields"),
        (("map", "meps.csv", "--fields", "fields.h5", *RATE), "--threshold: only used with --sources"),
        (("map", "meps.csv", "--fields", "fields.h5", "--mask", "mask.nii.gz"), "--mask: only used with --sources"),
    ],
)
def test_bad_input_is_one_line(folder, monkeypatch, words, match):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(jm.muscle, "fit_sources", None)
    done = call(*words, "--out", "bad")
    assert done.exit_code == 2, done.output
    assert match in done.output.replace("\n", " ")
    assert "Traceback" not in done.output


@pytest.mark.slow
def test_compare_gives_what_the_call_gives(folder):
    """Flagged stimuli are left out of the fields, and the copy without them still knows grey matter."""
    words = ("--heads", "sources", "--inputs", "rate", "--folds", "2", "--seed", "3", *RATE)
    done = call("compare", folder / "fields.h5", folder / "meps.csv", *words, "--out", folder / "two")
    assert done.exit_code == 0, done.output
    assert "warning" not in done.output
    result = jm.muscle.Comparison.load(folder / "two" / "comparison.h5")
    meps = jm.muscle.Meps.load(folder / "meps.csv")
    with h5py.File(folder / "fields.h5") as file:
        e, tissue = file["e"][()], file["tissue"][()]
    expected = jm.muscle.compare(
        e[meps.kept], meps.pick(meps.kept), grid=GRID, n_folds=2, pathways=("sources",), inputs=("rate",),
        rate=jm.cortex.FiringRate(jm.cortex.threshold(60.0, "V/m")), grey=tissue == 1, key=jax.random.key(3),
    )  # fmt: skip
    assert result.variants == ("firing rate, sources",)
    np.testing.assert_allclose(result.predicted, expected.predicted, rtol=1e-4)


def test_compare_takes_sources_alone(folder, monkeypatch):
    """No preset is needed; the report tells what they are, and the lack of grey matter is told once."""
    seen = {}

    def record(path, meps, **others):
        seen.update(others, path=path)
        rng = np.random.default_rng(0)
        n, m = meps.amplitude.shape
        names = ("E-field, sources", "E-field, synergy-sources")
        table = pd.DataFrame({"variant": names, "fold": 0, "held-out score": np.nan})
        return jm.muscle.Comparison(
            names, meps.muscles, meps.amplitude, rng.uniform(size=(2, n, m)), np.full((3, m), 900.0),
            np.arange(n) % 3, np.full(3, 2), table,
        )  # fmt: skip

    monkeypatch.setattr(jm.muscle, "compare", record)
    words = ("--inputs", "field", "--heads", "sources,synergy-sources", "--rank", "2", "--folds", "3")
    done = call("compare", folder / "fields.h5", folder / "meps.csv", *words, "--out", folder / "compared")
    assert done.exit_code == 0, done.output
    assert "6 fits of sources" in done.output
    assert "autoencoder" not in done.output
    assert "warning" not in done.output
    assert ("preset" in seen, seen["pathways"]) == (False, ("sources", "synergy-sources"))
    text = (folder / "compared" / "report.html").read_text()
    assert "a non-negative smooth density over grey matter and a recruitment curve" in text
    assert "autoencoder" not in text
    done = call("compare", folder / "old.h5", folder / "meps.csv", *words, "--out", folder / "compared2")
    assert done.output.count("does not say which points are grey matter") == 1


@pytest.mark.slow
def test_a_model_is_not_written_over(folder, fitted):
    done = call("fit", folder / "fields.h5", folder / "meps.csv", "--variant", "sources", "--out", folder / "fit")
    assert (done.exit_code, "model.h5 exists; choose another folder" in done.output) == (2, True)


def test_fields_of_another_grid_are_refused(folder):
    other = jm.efield.Grid.around((-30.0, -20.0, 52.0), GRID.shape, 2.5)
    meps = jm.muscle.Meps.load(folder / "meps.csv")
    with pytest.raises(ValueError, match=r"grid: .*of other points"):
        jm.muscle.fit_sources(folder / "fields.h5", meps, grid=other, key=jax.random.key(0))
    with h5py.File(folder / "fields.h5") as one, h5py.File(folder / "bad.h5", "w") as two:
        for name in ("e", "poses", "didt", "affine"):
            two[name] = one[name][()]
        two["tissue"], two.attrs["tissues"] = np.full(GRID.shape, 7, np.int8), '["white", "grey"]'
    with pytest.raises(ValueError, match="its tissues are not those that it names"):
        jm.muscle.fit_sources(folder / "bad.h5", meps, grid=GRID, key=jax.random.key(0))
