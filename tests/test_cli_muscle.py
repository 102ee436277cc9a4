"""`jaxm2m muscle`: fields and MEPs to a comparison, a model, predictions and maps, and what it says about bad input."""

from pathlib import Path

import h5py
import nibabel
import numpy as np
import pandas as pd
import pytest
from processes import slurm, start, wait
from typer.testing import CliRunner

import jaxm2m as jm
from jaxm2m import cli
from jaxm2m.cli import _muscle_input
from jaxm2m.muscle import NetworkConfig, NetworkPreset, TrainingConfig
from jaxm2m.population import _chunking, _train

pytestmark = [pytest.mark.host, pytest.mark.slow]

GRID = jm.efield.Grid.around((-40.0, -20.0, 52.0), shape=(9, 8, 8), spacing=2.0)
TINY = NetworkPreset(
    NetworkConfig(shape=(4, 4, 4), filters=(3, 2), pools=1, kernel=1, pool="mean", hidden=(8,)),
    spacing=4.0,
    autoencoder=TrainingConfig("adagrad", learning_rate=3e-2, batch_size=9, epochs=10),
    mapper=TrainingConfig("adam", learning_rate=1e-2, batch_size=9, epochs=30, patience=2),
)
MUSCLES = ("FDI", "ADM", "APB")
COUNT = 24
FLAGGED = [5, 11]


def call(*words):
    return CliRunner().invoke(cli.app, ["muscle", *map(str, words)])


def write_fields(path, e, poses, grid=GRID):
    with h5py.File(path, "w") as file:
        file.create_dataset("e", data=e.reshape(len(e), *grid.shape, 3), chunks=(1, *grid.shape, 3), compression="gzip")
        file["poses"], file["didt"], file["affine"] = poses, 1e6 + 1e4 * np.arange(len(e)), grid.affine
        file.attrs["space"] = "MNI152"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Fields of blobs that move with the coil, MEPs that follow the firing rate at three places, two of them flagged;
    and the same without these two."""
    folder = tmp_path_factory.mktemp("muscle")
    rng = np.random.default_rng(0)
    rate = jm.cortex.FiringRate(jm.cortex.threshold(60.0, "V/m"))
    xyz = GRID.positions()
    shift = rng.uniform(-6, 6, (COUNT, 3))
    size = 90 * np.exp(-((xyz[None] - (xyz.mean(0) + shift)[:, None]) ** 2).sum(-1) / 2 / 8.0**2)
    e = (size[..., None] * np.array([0.6, 0.8, 0.0])).astype(np.float32)
    places = [np.linalg.norm(xyz - (xyz.mean(0) + d), axis=1).argmin() for d in ([-5, 0, 0], [5, 0, 0], [0, 4, 0])]
    values = (20 + 1000 * np.asarray(rate(e))[:, places]) * np.exp(0.1 * rng.normal(size=(COUNT, 3)))
    poses = np.tile(np.diag([1.0, -1, -1, 1]), (COUNT, 1, 1))  # z into the head
    poses[:, :3, 3] = xyz.mean(0) + [3, 3, 0] * shift + [0, 0, 30]
    write_fields(folder / "fields.h5", e, poses)
    reasons = np.full(values.shape, "", dtype="U30")
    reasons[FLAGGED[0], 0] = "background: 31.2 uV RMS"
    table = jm.muscle.Meps(values, np.full(values.shape, np.nan), reasons, MUSCLES).table()
    table.loc[FLAGGED[1], "mep_ADM_uv"] = np.nan
    table.to_csv(folder / "meps.csv", index=False)
    kept = np.setdiff1d(np.arange(COUNT), FLAGGED)
    write_fields(folder / "kept.h5", e[kept], poses[kept])
    table.iloc[kept].to_csv(folder / "kept.csv", index=False)
    table.iloc[:-1].to_csv(folder / "short.csv", index=False)
    table.assign(mep_ADM_uv=20.0, reason_FDI="moved").to_csv(folder / "flagged.csv", index=False)
    np.save(folder / "poses.npy", poses)
    write_fields(folder / "coarse.h5", e, poses, jm.efield.Grid.around((-40.0, -20.0, 52.0), (9, 8, 8), 3.0))
    write_fields(folder / "moved.h5", e, poses, jm.efield.Grid.around((-30.0, -20.0, 52.0), (9, 8, 8), 2.0))
    with h5py.File(folder / "points.h5", "w") as file:
        file["e"], file["points"] = e, xyz
    # a mask on a finer grid, turned: the half with x < -40 mm
    mask = np.zeros((60, 50, 50), np.uint8)
    affine = np.array([[-1.0, 0, 0, -10], [0, 1, 0, -45], [0, 0, 1, 27], [0, 0, 0, 1]])
    mask[30:] = 1
    nibabel.save(nibabel.Nifti1Image(mask, affine), folder / "mask.nii.gz")
    nibabel.save(nibabel.Nifti1Image(0 * mask, affine), folder / "empty.nii.gz")
    return folder


@pytest.fixture(scope="module", autouse=True)
def quick():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(jm.muscle.PRESETS, "small", TINY)
        patch.setattr(_train, "plan_chunks", lambda *_: _chunking.Plan(4, {}, {}))
        yield


COMPARE = ("--threshold", "60 V/m", "--folds", 2, "--heads", "direct,combined", "--counts", "parameters")


@pytest.fixture(scope="module")
def compared(folder):
    one = call("compare", folder / "fields.h5", folder / "meps.csv", "--out", folder / "compared", *COMPARE)
    assert one.exit_code == 0, one.output
    return one


def test_compare_writes_all_it_tells(folder, compared):
    out = folder / "compared"
    assert {p.name for p in out.iterdir()} == {
        "run", "comparison.h5", "comparison.png", "table.csv", "differences.csv", "criteria.csv", "report.html",
    }  # fmt: skip
    assert "22 stimuli, 3 muscles, 9 x 8 x 8 points" in compared.output
    result = jm.muscle.Comparison.load(out / "comparison.h5")
    assert result.variants == tuple(f"{a}, {b}" for a in ("E-field", "firing rate") for b in ("direct", "combined"))
    table = pd.read_csv(out / "table.csv", index_col=[0, 1, 2])
    np.testing.assert_allclose(table, result.table)
    row = table.loc["firing rate, direct", "scaled", "pooled"]
    assert f"{row.nrmse:.3f} [{row.nrmse_low:.3f}, {row.nrmse_high:.3f}]" in compared.output
    criteria = pd.read_csv(out / "criteria.csv", index_col=0)
    assert tuple(criteria.index) == result.variants
    np.testing.assert_allclose(criteria, result.criteria)
    pairs = pd.read_csv(out / "differences.csv")
    assert len(pairs) == 5 * 6
    wanted = result.difference("firing rate, direct", "E-field, direct", "cosine")
    found = pairs.set_index(["score", "first", "second"]).loc["cosine", "firing rate, direct", "E-field, direct"]
    assert found.difference == pytest.approx(float(wanted.estimate))


def test_processes_that_slurm_started_compare_as_one_does(folder, compared, tmp_path):
    """With flagged stimuli, so that each process needs fields of its own to read."""
    script = Path(__file__).with_name("compare_process.py")
    words = ["compare", folder / "fields.h5", folder / "meps.csv", "--out", tmp_path / "two", *COMPARE, "--distributed"]
    codes, said = wait([start([script, *words], **slurm(number)) for number in range(2)])
    assert codes == [0, 0], said
    one = jm.muscle.Comparison.load(folder / "compared" / "comparison.h5")
    two = jm.muscle.Comparison.load(tmp_path / "two" / "comparison.h5")
    np.testing.assert_array_equal(one.fold, two.fold)
    np.testing.assert_allclose(one.predicted, two.predicted, rtol=2e-3, atol=2e-3 * np.abs(one.predicted).max())
    assert said[1].count("two variants differ") == 0  # the first one speaks
    assert not list((tmp_path / "two").glob("kept_fields*"))


def test_flagged_stimuli_are_left_out_of_fields_and_meps(folder, compared):
    assert "left out: 2 of 24 stimuli, of which MEPs are flagged (background 1, not recorded 1)" in compared.output
    # the same as without them from the start: nothing moved against the other
    one = call("compare", folder / "kept.h5", folder / "kept.csv", "--out", folder / "other", *COMPARE)
    assert one.exit_code == 0, one.output
    assert "left out" not in one.output
    first, second = (jm.muscle.Comparison.load(folder / d / "comparison.h5") for d in ("compared", "other"))
    np.testing.assert_array_equal(first.measured, second.measured)
    np.testing.assert_array_equal(first.predicted, second.predicted)


def test_the_report_says_what_was_done(folder, compared):
    text = (folder / "compared" / "report.html").read_text()
    for words in (
        "data:image/png",
        "2 further stimuli were left out (flagged MEPs: background 1, not recorded 1)",
        "of the field&#x27;s magnitude over 60 V/m",
        "Cross-validation had 2 folds",
        "The random seed was 0.",
        "4 x 4 x 4 voxels of 4 mm",
        "jaxlib",
        "Yarossi2019",
        "firing rate, direct \N{MINUS SIGN} E-field, direct",
    ):
        assert words in text, words


def test_compare_goes_on_and_refuses_another_run(folder, compared):
    words = ("compare", folder / "fields.h5", folder / "meps.csv", "--out", folder / "compared")
    before = jm.muscle.Comparison.load(folder / "compared" / "comparison.h5")
    again = call(*words, *COMPARE)
    assert again.exit_code == 0, again.output
    assert "holds a run; going on with it" in again.output
    after = jm.muscle.Comparison.load(folder / "compared" / "comparison.h5")
    np.testing.assert_array_equal(before.predicted, after.predicted)
    other = call(*words, *COMPARE, "--seed", 1)
    assert other.exit_code == 2
    assert "was begun with another" in other.output
    assert not (folder / "compared" / "kept_fields.h5").exists()


@pytest.fixture(scope="module")
def fitted(folder):
    words = ("--variant", "direct", "--threshold", "60 V/m", "--muscles", "FDI,APB", "--mask", folder / "mask.nii.gz")
    one = call("fit", folder / "fields.h5", folder / "meps.csv", "--out", folder / "fitted", *words)
    assert one.exit_code == 0, one.output
    return one


def test_fit_scores_what_it_was_trained_on_and_says_so(folder, fitted):
    out = folder / "fitted"
    assert {p.name for p in out.iterdir()} == {"run", "model", "training_scores.csv", "training.png"}
    assert "The scores are of the trials that it was trained on" in fitted.output
    assert "left out: 1 of 24" in fitted.output  # ADM's does not count
    model = jm.muscle.load(out / "model")
    assert (model.muscles, model.variant) == (("FDI", "APB"), "direct")
    inside = (GRID.positions()[:, 0] < -39.5).reshape(GRID.shape)
    np.testing.assert_array_equal(np.asarray(model.mask) > 0, inside)
    table = pd.read_csv(out / "training_scores.csv", index_col=0)
    assert (table.index.name, list(table.index)) == ("training trials", ["FDI", "APB", "all"])
    with h5py.File(folder / "fields.h5") as file:
        e = file["e"][()]
    meps = jm.muscle.Meps.load(folder / "meps.csv").pick(muscles=("FDI", "APB"))
    found = np.asarray(model(e))[meps.kept]
    own = jm.muscle.scores(meps.pick(meps.kept), found).muscles
    np.testing.assert_allclose(table.loc[["FDI", "APB"]], own, rtol=1e-4)


def test_a_model_is_not_written_over(folder, fitted):
    again = call("fit", folder / "fields.h5", folder / "meps.csv", "--out", folder / "fitted")
    assert again.exit_code == 2
    assert "exists; choose another folder" in again.output


def test_predict_gives_a_table_of_meps(folder, fitted):
    one = call("predict", folder / "fitted" / "model", folder / "fields.h5", "--out", folder / "p.csv")
    assert one.exit_code == 0, one.output
    found = jm.muscle.Meps.load(folder / "p.csv")
    with h5py.File(folder / "fields.h5") as file:
        wanted = jm.muscle.load(folder / "fitted" / "model")(file["e"][()])
    assert found.muscles == ("FDI", "APB")
    assert found.kept.all()
    np.testing.assert_allclose(found.amplitude, wanted, rtol=1e-4)


def test_thresholds_of_the_dose_take_the_didt_of_each_kept_stimulus(folder):
    def given(fields, threshold):
        return _muscle_input.load_training_data(fields, folder / "meps.csv", None, threshold, "small", None, None, 0)

    found = given(folder / "fields.h5", "0.8  V/m per A/us")
    assert found.rate.threshold.unit == "V/m per A/us"
    np.testing.assert_array_equal(found.options["didt"], 1e6 + 1e4 * np.setdiff1d(np.arange(COUNT), FLAGGED))
    assert given(folder / "fields.h5", "0.6 V/cm").options["didt"] is None
    with h5py.File(folder / "fields.h5") as one, h5py.File(folder / "two.h5", "w") as two:
        for name in ("e", "affine", "poses"):
            two[name] = one[name][()]
        two["didt"] = np.full((COUNT, 2), 1e6)
    assert given(folder / "two.h5", "60 V/m").options["didt"] is None
    with pytest.raises(ValueError, match="one dI/dt a stimulus"):
        given(folder / "two.h5", "0.8 V/m per A/us")


def test_map_over_scalp_and_brain(folder):
    words = ("--out", folder / "map", "--fields", folder / "fields.h5", "--regression", "--shuffles", 2)
    one = call("map", folder / "meps.csv", *words)
    assert one.exit_code == 0, one.output
    out = folder / "map"
    assert {p.name for p in out.iterdir()} == {
        "map.csv", "overlap.csv", "map.png", "map.nii.gz", "regression.csv", "regression_r2.nii.gz",
    }  # fmt: skip
    table = pd.read_csv(out / "map.csv", index_col="muscle")
    # FDI answers to the coil where x is low, ADM where it is high
    assert table.centre_r["FDI"] < table.centre_r["APB"] < table.centre_r["ADM"]
    assert nibabel.load(out / "regression_r2.nii.gz").shape == (*GRID.shape, 3)
    regression = pd.read_csv(out / "regression.csv", index_col="muscle")
    assert regression.r2.min() > 0.7
    assert (regression.p <= 1).all()
    bare = call("map", folder / "meps.csv", "--out", folder / "bare", "--poses", folder / "poses.npy")
    assert bare.exit_code == 0, bare.output
    pd.testing.assert_frame_equal(pd.read_csv(folder / "bare" / "map.csv", index_col="muscle"), table)
    sites = np.load(folder / "poses.npy")[:, :3, 3]
    pd.DataFrame(sites, columns=["x", "y", "z"]).to_csv(folder / "sites.csv", index=False)
    three = call("map", folder / "meps.csv", "--out", folder / "three", "--poses", folder / "sites.csv")
    assert three.exit_code == 0, three.output
    pd.testing.assert_frame_equal(pd.read_csv(folder / "three" / "map.csv", index_col="muscle"), table)


OUT = ("--out", "x")
RATE = ("--threshold", "60 V/m")


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (("compare", "none.h5", "meps.csv", *OUT, *RATE), "none.h5 does not exist"),
        (("compare", "points.h5", "meps.csv", *OUT, *RATE), "holds no fields on a grid"),
        (("compare", "fields.h5", "short.csv", *OUT, *RATE), "has 23 stimuli, fields.h5 24"),
        (("compare", "fields.h5", "flagged.csv", *OUT, *RATE), "in each of the 24 stimuli"),
        (("compare", "fields.h5", "flagged.csv", *OUT, *RATE, "--muscles", "ADM"), "ADM never varies"),
        (("compare", "fields.h5", "meps.csv", *OUT), "--threshold: none, and --inputs has rate"),
        (("compare", "fields.h5", "meps.csv", *OUT, *RATE, "--inputs", "field"), "not used without the input rate"),
        (("compare", "fields.h5", "meps.csv", *OUT, *RATE, "--inputs", "rate,current"), "--inputs: 'current'"),
        (("compare", "fields.h5", "meps.csv", *OUT, *RATE, "--heads", "both"), "--heads: 'both'"),
        (("compare", "fields.h5", "meps.csv", *OUT, *RATE, "--heads", "direct,direct"), "give different names"),
        (("compare", "fields.h5", "meps.csv", *OUT, *RATE, "--preset", "large"), "--preset: 'large'"),
        (("compare", "fields.h5", "meps.csv", *OUT, *RATE, "--preset", "paper"), "blocks of 1 mm"),
        (("compare", "coarse.h5", "meps.csv", *OUT, *RATE), "3 mm apart"),
        (("compare", "fields.h5", "meps.csv", *OUT, *RATE, "--folds", "12"), "folds: 12 of 22 stimuli"),
        (("compare", "fields.h5", "meps.csv", *OUT, *RATE, "--rank", "4"), "--rank: 4 for 3 muscles"),
        (("compare", "fields.h5", "meps.csv", *OUT, *RATE, "--seed", "-1"), "--seed: -1"),
        (("compare", "fields.h5", "meps.csv", *OUT, *RATE, "--muscles", "FDI,BRD"), "no BRD"),
        (("compare", "fields.h5", "meps.csv", *OUT, *RATE, "--mask", "empty.nii.gz"), "no voxel above 0.5"),
        (("compare", "fields.h5", "meps.csv", "--out", "meps.csv", *RATE), "is a file; name a folder"),
        (("fit", "fields.h5", "meps.csv", *OUT, "--threshold", "60"), "number above zero and its unit"),
        (("fit", "fields.h5", "meps.csv", *OUT, "--threshold", "60 mV"), "--threshold: 'mV'; choose one of"),
        (("fit", "fields.h5", "meps.csv", *OUT, "--variant", "both"), "--variant: 'both'"),
        (("predict", "none", "fields.h5", "--out", "p.csv"), "does not exist"),
        (("predict", "none", "fields.h5", "--out", "p.h5"), "does not end in .csv"),
        (("predict", "fitted/model", "moved.h5", "--out", "p2.csv"), "on another grid than the model"),
        (("map", "meps.csv", *OUT), "--fields: give the fields, or --poses"),
        (("map", "meps.csv", *OUT, "--poses", "poses.npy", "--regression"), "it needs the fields"),
        (("map", "meps.csv", *OUT, "--poses", "poses.npy", "--shuffles", "3"), "only used with --regression"),
        (("map", "short.csv", *OUT, "--poses", "poses.npy"), "has 23 stimuli, poses.npy 24"),
    ],
)
def test_bad_input_is_one_line(folder, fitted, monkeypatch, words, match):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(_train, "_Training", None)  # nothing is trained before it is refused
    one = call(*words)
    assert one.exit_code == 2, one.output
    assert match in one.output.replace("\n", " ")
    assert "Traceback" not in one.output
    assert not (folder / "x" / "kept_fields.h5").exists()


def test_a_stop_says_how_to_go_on(folder, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(jm.muscle, "compare", stopped)
    one = call("compare", folder / "fields.h5", folder / "meps.csv", "--out", folder / "stopped", *COMPARE)
    assert one.exit_code == 130
    assert "the same command goes on" in one.output
    assert not (folder / "stopped" / "kept_fields.h5").exists()


@pytest.mark.parametrize("command", ["compare", "fit", "predict", "map"])
def test_help_names_units_and_files(command):
    one = call(command, "--help")
    assert one.exit_code == 0
    assert "--out" in one.output


def test_units_of_thresholds_are_those_of_the_firing_rate():
    for unit in _muscle_input.UNITS.split(", "):
        assert jm.cortex.threshold(1.0, unit).unit == unit
