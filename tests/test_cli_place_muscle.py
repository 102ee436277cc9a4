"""`jaxm2m place --muscle`: the pose and the files that the calls in Python give, and what it says about bad input."""

import json
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from small_head import save_labels, shells
from test_cli_place import coarse, few, place
from typer.testing import CliRunner

import jaxm2m as jm
from jaxm2m import cli
from jaxm2m.cli import _place_muscle
from jaxm2m.efield import _basis_sources
from jaxm2m.muscle import NetworkConfig
from jaxm2m.muscle.networks._inputs import Reduction
from jaxm2m.muscle.networks._training import MuscleMapper
from jaxm2m.muscle.sources._activity import Activity
from jaxm2m.muscle.sources._recruitment_curve import RecruitmentCurve

pytestmark = pytest.mark.host

GRID = jm.efield.Grid.around((0.0, 0.0, 23.0), (6, 6, 4), 4.0)
MUSCLES = ("FDI", "ADM", "APB")
COMMON = {
    "marker.nii.gz", "placement.json", "pose.txt", "search.png", "table.csv", "targets_brainsight.txt",
    "targets_localite.xml",
}  # fmt: skip
ADDED = {"fields.h5", "muscles.csv", "muscles.png", "report.html"}


@pytest.fixture(scope="module", autouse=True)
def small_coils():
    with pytest.MonkeyPatch.context() as patch:
        names = {**vars(jm.coil), "tabulate": coarse}
        names |= {name: few(names[name]) for name in ("figure8", "circular")}
        patch.setattr(_basis_sources, "coils", SimpleNamespace(**names))
        patch.setattr(jm.coil, "figure8", few(jm.coil.figure8))
        yield


def untrained(unit="V/m", threshold=20.0, grid=GRID):
    """A model with weights as they are drawn: what the command does with one does not depend on its training."""
    config = NetworkConfig(shape=grid.shape, filters=(3, 2), pools=1, kernel=1, pool="mean", hidden=(8,))
    mapper = MuscleMapper(config, len(MUSCLES), 2)
    params = mapper.init(jax.random.key(0))
    params["fixed"]["largest"] = jnp.array([900.0, 700.0, 400.0])
    params = jax.tree.map(lambda a: a[None], params)
    rate = jm.cortex.FiringRate(jm.cortex.threshold(threshold, unit))
    reduce = Reduction(tuple(grid.shape), tuple(grid.shape), 1)
    strongest = jnp.array([0.5, 0.5, 0.5])
    affine = jnp.asarray(grid.affine, float)
    return jm.muscle.Model(params, strongest, rate, None, affine, reduce, mapper, "direct", MUSCLES, 1)


def made_sources(grid=GRID):
    """Draws of sources as they come: what the command does with them does not depend on a fit."""
    rng = np.random.default_rng(0)
    dtype = jnp.result_type(float)
    points = grid.positions()
    kernel = np.exp(-((points[None] - points[::9, None]) ** 2).sum(-1) / 2 / 5.0**2)
    weights = rng.dirichlet(np.full(len(kernel), 0.3), (6, len(MUSCLES)))
    numbers = (0.3, 1.6, 2.7, 4.5, 1.0, 0.15, 0.11)
    curves = RecruitmentCurve(*(jnp.full((6, len(MUSCLES)), number, dtype) for number in numbers))
    activity = Activity(jnp.arange(len(points)), None, None, jnp.asarray(60.0, dtype), len(points))
    return jm.muscle.Sources(
        jnp.asarray(weights, dtype), curves, jnp.asarray(kernel / kernel.sum(1, keepdims=True), dtype),
        jnp.asarray(points, dtype), activity, jnp.array([900.0, 700.0, 400.0]), jnp.array([0.5, 0.5, 0.5]),
        jnp.stack([jnp.zeros((6, 3), dtype), jnp.ones((6, 3), dtype)]), jnp.full((4, 3), 0.5),
        jnp.asarray(grid.affine, dtype), tuple(grid.shape), MUSCLES, jm.muscle.DensityPrior(), (),
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place-muscle")
    save_labels(folder / "head.nii.gz", shells())
    (folder / "fit").mkdir()
    untrained().save(folder / "fit" / "model")
    untrained("V/m per A/us", 15.0).save(folder / "relative")
    (folder / "sources").mkdir()
    made_sources().save(folder / "sources" / "model.h5")
    (folder / "both").mkdir()
    untrained().save(folder / "both" / "model")
    made_sources().save(folder / "both" / "model.h5")
    return folder


def read(path):
    return json.loads((path / "placement.json").read_text())


@pytest.mark.slow
def test_it_is_what_the_calls_give(folder, tmp_path):
    out = tmp_path / "out"
    options = {"starts": 2, "evaluations": 3, "didt": "2e6", "seed": 1, "search_radius": 10}
    muscles = {"muscle": "FDI", "avoid_muscle": ["ADM", "APB"], "model": folder / "fit", "weight": 0.8, "least": 0.5}
    done = place(folder, out=out, target="0,0,23", **muscles, **options)
    assert done.exit_code == 0, done.output
    assert {p.name for p in out.iterdir()} == COMMON | ADDED

    head = jm.head.load(folder / "head.nii.gz", 4.0)
    coil = jm.coil.figure8()
    sim = jm.efield.Simulator(head)
    field = sim.bind(coil, GRID)
    model = jm.muscle.load(folder / "fit" / "model")
    objective = jm.muscle.activate(model, "FDI", ("ADM", "APB"), weight=0.8, least=0.5)
    best = jm.placement.optimize(
        field, objective, coil=coil, scalp=head.scalp, target=(0, 0, 23), n_starts=2, key=jax.random.key(1),
        radius=10.0, didt=2e6, evaluations=3,
    )  # fmt: skip
    said = read(out)
    assert said["value"] == pytest.approx(best.value, abs=1e-6)
    np.testing.assert_allclose([c["pose"] for c in said["ranked"]], [c.pose for c in best.ranked], atol=1e-5)
    np.testing.assert_allclose(np.loadtxt(out / "pose.txt"), best.pose, atol=1e-5)
    poses, _ = jm.session.load_poses(out / "targets_brainsight.txt")
    np.testing.assert_allclose(poses, [c.pose for c in best.ranked], atol=1e-4)

    meps = np.asarray(model(field(best.pose, didt=2e6)))
    np.testing.assert_allclose([said["predicted_uv"][name] for name in MUSCLES], meps, rtol=1e-5)
    np.testing.assert_allclose([said["predicted_uv_full_solve"][name] for name in MUSCLES], meps, rtol=1e-3)
    table = pd.read_csv(out / "muscles.csv")
    assert list(table.columns) == ["value", *(f"mep_{name}_uv" for name in MUSCLES)]
    assert len(table) == len(said["ranked"])
    np.testing.assert_allclose(table.iloc[0, 1:], meps, rtol=1e-5)
    # the field is on the model's grid: `muscle predict` takes it
    again = CliRunner().invoke(
        cli.app, ["muscle", "predict", *map(str, (folder / "fit/model", out / "fields.h5", "--out", out / "again.csv"))]
    )
    assert again.exit_code == 0, again.output
    np.testing.assert_allclose(pd.read_csv(out / "again.csv").iloc[0], meps, rtol=1e-3)

    settings = said["settings"]
    assert (said["unit"], settings["objective"]) == ("1", "share of FDI in FDI and ADM and APB")
    assert (settings["muscle"], settings["avoid_muscle"]) == (["FDI"], ["ADM", "APB"])
    assert (settings["weight"], settings["least"], settings["didt_a_per_s"]) == (0.8, 0.5, 2e6)
    assert settings["model"] == "model"
    assert len(settings["sha256"]["model"]) == 64
    assert settings["target_radius_mm"] is None
    assert f"share of FDI in FDI and ADM and APB: {best.value:.4g}" in done.output
    assert "predicted at the best pose: FDI " in done.output
    with Image.open(out / "muscles.png") as image:
        assert min(image.size) > 400
    text = (out / "report.html").read_text()
    assert "A coil for FDI that spares ADM and APB" in text
    assert text.count("data:image/png") == 2

    # what belongs to muscles goes when the same folder gets a placement of another kind
    other = place(folder, out=out, target="0,0,23", starts=1, evaluations=1)
    assert other.exit_code == 0, other.output
    assert {p.name for p in out.iterdir()} == COMMON | {"again.csv"}


@pytest.mark.slow
def test_a_basis_of_the_grid_and_a_threshold_of_the_field_per_didt(folder, tmp_path):
    """Over the middle of the grid, where no target is given; the dI/dt goes to the rate as well."""
    head = jm.head.load(folder / "head.nii.gz", 4.0)
    sim = jm.efield.Simulator(head)
    basis = jm.efield.Basis.build(sim, GRID, tmp_path / "basis.h5", modes=100, rank=80)
    out = tmp_path / "out"
    options = {"starts": 2, "evaluations": 4, "search_radius": 8, "distance": 6, "didt": "3e6"}
    done = place(
        folder, out=out, target=None, basis=tmp_path / "basis.h5", muscle="ADM", model=folder / "relative", **options
    )
    assert done.exit_code == 0, done.output
    said = read(out)
    assert said["settings"]["objective"] == "ADM over its largest"
    np.testing.assert_allclose(said["settings"]["target_mm"], [0, 0, 23], atol=1e-5)
    model = jm.muscle.load(folder / "relative")
    coil = jm.coil.figure8()
    best = jm.placement.optimize(
        basis.bind(coil), jm.muscle.activate(model, "ADM", didt=3e6), coil=coil, scalp=head.scalp, target=(0, 0, 23),
        n_starts=2, key=jax.random.key(0), radius=8.0, distance=6.0, didt=3e6, evaluations=4,
        check=sim.bind(coil, GRID),
    )  # fmt: skip
    assert said["value"] == pytest.approx(best.value, abs=1e-6)
    assert said["checked"] == pytest.approx(best.checked, abs=1e-6)
    meps = np.asarray(model(basis.bind(coil)(best.pose, didt=3e6), didt=3e6))
    np.testing.assert_allclose(list(said["predicted_uv"].values()), meps, rtol=1e-5)


def test_the_folder_of_sources_and_its_risk_make_the_objective_of_the_calls(folder):
    """The fast twin of the next: what the search raises, on a cheap field."""
    aim = _place_muscle.load_aim(
        folder / "sources", ["FDI"], ["ADM"], weight=0.8, least=0.5, risk=0.2, didt=1e6
    )  # fmt: skip
    sources = jm.muscle.Sources.load(folder / "sources" / "model.h5")
    expected = jm.muscle.activate(sources, "FDI", "ADM", weight=0.8, least=0.5, risk=0.2)
    mean = jm.muscle.activate(sources, "FDI", "ADM", weight=0.8, least=0.5)
    e = jnp.asarray(np.random.default_rng(1).normal(size=(144, 3)) * 60)
    assert float(aim.objective(e)) == pytest.approx(float(expected(e)), abs=1e-6)
    assert abs(float(expected(e)) - float(mean(e))) > 1e-3
    assert aim.path.name == "model.h5"
    assert (aim.settings["risk"], aim.grid.shape) == (0.2, GRID.shape)
    assert "0.2 quantile" in aim.text


@pytest.mark.slow
def test_sources_lead_to_the_pose_of_the_calls(folder, tmp_path):
    out = tmp_path / "out"
    options = {"starts": 2, "evaluations": 3, "didt": "2e6", "seed": 1, "search_radius": 10, "risk": 0.2}
    muscles = {"muscle": "FDI", "avoid_muscle": "ADM", "model": folder / "sources"}
    done = place(folder, out=out, target="0,0,23", **muscles, **options)
    assert done.exit_code == 0, done.output
    assert {p.name for p in out.iterdir()} == COMMON | ADDED
    head = jm.head.load(folder / "head.nii.gz", 4.0)
    coil = jm.coil.figure8()
    field = jm.efield.Simulator(head).bind(coil, GRID)
    sources = jm.muscle.load(folder / "sources" / "model.h5")
    search = partial(
        jm.placement.optimize, field, coil=coil, scalp=head.scalp, target=(0, 0, 23), n_starts=2,
        key=jax.random.key(1), radius=10.0, didt=2e6, evaluations=3,
    )  # fmt: skip
    strongest = search(jm.muscle.activate(sources, "FDI", risk=0.2)).pose
    reference = field(strongest, didt=2e6)
    best = search(jm.muscle.activate(sources, "FDI", "ADM", risk=0.2, reference=reference))
    said = read(out)
    assert said["value"] == pytest.approx(best.value, abs=1e-6)
    np.testing.assert_allclose([c["pose"] for c in said["ranked"]], [c.pose for c in best.ranked], atol=1e-5)
    meps = np.asarray(sources(field(best.pose, didt=2e6)))
    np.testing.assert_allclose([said["predicted_uv"][name] for name in MUSCLES], meps, rtol=1e-4)
    assert (said["settings"]["risk"], said["settings"]["model"]) == (0.2, "model.h5")
    np.testing.assert_allclose(said["settings"]["reference_pose"], strongest, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"direction": "1,0,0"}, "--direction: of the field at a target, and --muscle asks for muscles"),
        ({"radius_target": 4}, "--radius-target: of the field at a target, and --muscle asks for muscles"),
        ({"muscle": []}, "--avoid-muscle: not used without --muscle"),
        ({"muscle": [], "avoid_muscle": []}, "--model: not used without --muscle"),
        ({"muscle": [], "avoid_muscle": [], "model": [], "least": 0.5}, "--least: not used without --muscle"),
        ({"muscle": [], "avoid_muscle": [], "model": [], "target": None}, "--target: missing; give X,Y,Z"),
        ({"model": []}, "--model: missing; give what `jaxm2m muscle fit` wrote"),
        ({"didt": []}, "--didt: missing; MEPs depend on it"),
        ({"model": "absent"}, "--model: absent does not exist"),
        ({"model": "{}"}, "--model: "),
        ({"model": "{}/both"}, "both holds model and model.h5"),
        ({"risk": 1.5}, "--risk: 1.5"),
        ({"muscle": [], "avoid_muscle": [], "model": [], "risk": 0.1}, "--risk: not used without --muscle"),
        ({"muscle": "FDJ"}, "--muscle: 'FDJ'; choose one of 'FDI', 'ADM', 'APB'"),
        ({"avoid_muscle": "BRD"}, "--avoid-muscle: 'BRD'"),
        ({"avoid_muscle": "FDI"}, "--avoid-muscle: FDI should answer too"),
        ({"least": 1.5}, "--least: 1.5"),
        ({"weight": -1}, "--weight: -1"),
        ({"basis": "{}/other.h5"}, "--roi=0,0,23 --shape 6,6,4 --step 4`, or leave it out"),
        ({"target": "30,0,10"}, "--target: (30, 0, 10) mm lies outside the model's grid"),
    ],
)
def test_bad_input_is_one_line_before_any_work(folder, tmp_path, monkeypatch, options, words):
    monkeypatch.delenv("JAXM2M_TRACEBACK", raising=False)
    monkeypatch.setattr(jm.efield, "Simulator", lambda *_, **__: pytest.fail("the operator was built"))
    roi = jm.efield.Grid.around((0.0, 0.0, 23.0), (5, 6, 4), 4.0)
    monkeypatch.setattr(jm.efield, "Basis", SimpleNamespace(load=lambda path: SimpleNamespace(roi=roi)))
    (folder / "other.h5").write_text("a basis")
    options = {k: v.format(folder) if isinstance(v, str) else v for k, v in options.items()}
    usual = {"muscle": "FDI", "avoid_muscle": "ADM", "model": folder / "fit/model", "didt": "1e6", "target": "0,0,23"}
    done = place(folder, **{"out": tmp_path / "out", **usual, **options})
    assert done.exit_code == 2, done.output
    stages = ("the head", "head: ", "coil: ", "warning: ")
    lines = [line for line in done.output.splitlines() if not line.lower().startswith(stages)]
    assert len(lines) == 1
    assert lines[0].startswith("jaxm2m place: ")
    assert words in lines[0]
    assert not (tmp_path / "out" / "placement.json").exists()
