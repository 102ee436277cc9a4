"""Mapping sessions of known truth: MEPs have the model's distribution, sessions hold what their equations say."""

from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exact_sphere import coil_field
from scipy import stats

from jaxm2m import coil as coils
from jaxm2m import cortex, efield, head, muscle, simulate
from jaxm2m._pytree import StaticMetadata, tree
from jaxm2m.efield import FieldMap, Region

pytestmark = pytest.mark.slow

RADII = (70, 78, 80, 86, 92)
TARGET = 76 * np.array([-0.5, -0.1, 0.86]) / np.linalg.norm([-0.5, -0.1, 0.86])
THRESHOLD = 60.0


@tree
class Exact:
    """The field of magnetic dipoles in a sphere round the origin: E = r x int_0^1 t dB/dt(t r) dt."""

    points: object

    def batch_size(self):
        return 16

    def raise_for_status(self, report):
        assert np.isfinite(report).all()

    def pick(self, active):
        return Exact(self.points[active])

    def fields(self, coil, poses, didt, batch_size):
        e = jax.lax.map(lambda pose: coil_field(coil, pose, self.points, didt, n_nodes=12), poses)
        return e, jnp.zeros(len(poses))


@pytest.fixture(scope="module")
def ball(precision):
    dtype = jnp.result_type(float)
    sphere = head.sphere(RADII, 12.0)
    position = np.array([[x + s * 45, y, -6.0] for s in (-1, 1) for x, y in ((20, 0), (-20, 0), (0, 20), (0, -20))])
    moment = np.zeros((8, 3))
    moment[:, 2] = np.repeat([1.0, -1.0], 4) * 0.0125
    casing = coils.hull(position, 4.0)
    coil = coils.Coil(
        (coils.Dipoles(jnp.asarray(position, dtype), jnp.asarray(moment, dtype)),),
        casing,
        jnp.full(1, jnp.nan, dtype),
        StaticMetadata(name="eight dipoles"),
    )
    grid = efield.Grid.around(TARGET, (18, 18, 12), 4.0)
    points = jnp.asarray(grid.positions(), dtype)
    radius = np.linalg.norm(grid.positions(), axis=1)
    active = np.flatnonzero(radius < 78)
    tissue = np.where(radius[active] > 70, 1, 0)
    field_map = FieldMap(
        Exact(points[active]),
        coil,
        Region(
            jax.tree.map(jnp.asarray, sphere.scalp),
            points,
            jnp.asarray(active, jnp.int32),
            jnp.asarray(tissue, jnp.int32),
            StaticMetadata(tissues=("white", "grey", "csf", "skull", "scalp"), space="sphere"),
        ),
    )
    rate = cortex.FiringRate(cortex.threshold(THRESHOLD, "V/m"))
    session = simulate.mapping_session(field_map, key=jax.random.key(0), rate=rate, target=TARGET)
    # as many stimuli as a full session would compile anew
    few = {"key": jax.random.key(1), "rate": rate, "target": TARGET, "stimuli": 36}
    return SimpleNamespace(at=field_map, rate=rate, session=session, few=few, grey=tissue == 1, scalp=sphere.scalp)


def fields(case, session):
    # batches of the size that the session takes
    e = np.concatenate([case.at(session.poses[i : i + 16]) for i in (0, 16, 20)])
    e = np.concatenate([e[:32], e[-4:]])
    return e.astype(np.float64) * np.asarray(session.didt)[:, None, None] / 1e6


# -- MEPs --------------------------------------------------------------------------------------------------------------


@pytest.mark.float32
def test_medians_of_one_muscle():
    strength = jnp.tile(jnp.array([0.4, 1.0, 1.1, 1.2, 1.4]), (200_000, 1))
    v = np.asarray(simulate.mep(jax.random.key(0), strength), np.float64)
    assert np.isfinite(v).all()
    assert v.min() > 2
    np.testing.assert_allclose(np.median(v, 0)[1:], [50, 199, 503, 1313], rtol=0.025)
    # noise alone
    law = stats.genextreme(-0.14, 10**0.9182, 1.55)
    assert stats.kstest(v[:, 0] - 0.1, law.cdf).statistic < 0.02
    np.testing.assert_allclose(v.mean(0), simulate.expected_mep(strength[:1])[0], rtol=0.012)


@pytest.mark.float64
def test_expected_mep_is_the_integral():
    strength = np.linspace(0.3, 1.6, 27)
    z = np.linspace(-8, 8, 4001)
    density = np.exp(-0.5 * z**2) / np.exp(-0.5 * z**2).sum()
    y = np.maximum(72.55 * strength[:, None] + 4.88 * z - 46.397, 0) ** 2.669
    eta = np.exp((np.log(10) * 0.1085) ** 2 / 2)
    size = 0.1 * eta * (10 ** (4.5323 * y / (y + 10**3.64655)) * density).sum(1)
    noise = stats.genextreme(-0.14, 10**0.9182, 1.55).mean()
    np.testing.assert_allclose(simulate.expected_mep(strength), size + noise, rtol=3e-6)
    slope = jax.vmap(jax.grad(lambda s: simulate.expected_mep(s[None])[0]))(jnp.append(strength, 0.0))
    assert np.isfinite(slope).all()
    assert (np.asarray(slope) >= 0).all()


@pytest.mark.float32
def test_muscles_share_excitability():
    strength = jnp.full((100_000, 3), 1.4)
    found = {}
    for rho in (0, 0.5, 1):
        v = np.log(simulate.mep(jax.random.key(1), strength, correlation=rho))
        found[rho] = np.corrcoef(v.T)[np.triu_indices(3, 1)]
    np.testing.assert_allclose(found[0], 0, atol=0.015)
    np.testing.assert_allclose(found[0.5] / found[1], 0.5, atol=0.03)
    assert found[1].min() > 0.4
    default = np.log(simulate.mep(jax.random.key(1), strength))
    np.testing.assert_allclose(np.corrcoef(default.T)[np.triu_indices(3, 1)], found[0.5], rtol=1e-4)
    for rho in (-0.1, 1.1):
        with pytest.raises(ValueError, match=rf"^correlation: {rho}; it must lie between 0 and 1\."):
            simulate.mep(jax.random.key(1), strength, correlation=rho)
    with pytest.raises(ValueError, match=r"^strength: 1 of 2 values are NaN"):
        simulate.mep(jax.random.key(1), np.array([1.0, np.nan]))


# -- sessions ----------------------------------------------------------------------------------------------------------


@pytest.mark.float32
def test_what_a_session_holds(ball, precision, tolerance):
    s, n_own = ball.session, len(ball.grey)
    assert len(s) == 300
    assert s.meps.dtype == jnp.dtype(precision)
    assert s.muscles[:2] == ("FDI", "3DI")
    assert s.muscles[-1] == "BRD"
    for name in ("meps", "mean", "drive", "direct", "synergy"):
        assert getattr(s, name).shape == (300, 15), name
    assert (s.poses.shape, s.didt.shape, s.activations.shape) == ((300, 4, 4), (300,), (300, 9))
    assert (s.direct_weights.shape, s.synergy_weights.shape) == ((15, n_own), (9, n_own))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(replace(s, second_centres=s.direct_centres)))
    assert np.isfinite(s.second_centres).all(1).sum() == 2
    for w in (s.direct_weights, s.synergy_weights):
        np.testing.assert_allclose(np.asarray(w).sum(1), 1, rtol=tolerance(1e-5, 1e-12))
        assert (np.asarray(w)[:, ~ball.grey] == 0).all()
    # a column of S: 3 to 6 muscles, and no muscle left out
    np.testing.assert_allclose(np.asarray(s.synergies).sum(0), 1, rtol=1e-5)
    count = (np.asarray(s.synergies) > 0).sum(0)
    assert 3 <= count.min() < count.max() <= 6
    assert (np.asarray(s.synergies) > 0).any(1).all()
    assert ((np.asarray(s.thresholds) >= 0.95) & (np.asarray(s.thresholds) <= 1.08)).all()
    np.testing.assert_allclose(s.didt, 1.2 * float(s.rmt_didt), rtol=1e-5)
    for part in (s.direct, s.synergy):
        np.testing.assert_allclose(np.percentile(part, 98, axis=0), 1, rtol=1e-5)


def angles(one, other):
    """Degrees between the y axes of poses."""
    dot = (np.asarray(one, np.float64)[:, :3, 1] * np.asarray(other, np.float64)[:, :3, 1]).sum(-1)
    return np.degrees(np.arccos(np.clip(dot, -1, 1)))


def test_poses_of_a_session(ball):
    poses = np.asarray(ball.session.poses, np.float64)
    foot = poses[:, :3, 3] - 4 * -poses[:, :3, 2]
    np.testing.assert_allclose(np.linalg.norm(foot, axis=1), 92, atol=0.02)
    up = TARGET / np.linalg.norm(TARGET)
    # what is seen along the normal: the square's distances shrink on a sphere, and its middle is the target's
    np.testing.assert_allclose(foot[24] / 92, up, atol=1e-3)
    reach = 92 * np.tan(np.arccos(np.clip(foot @ up / 92, -1, 1)))
    assert np.sort(reach[:49])[-4:] == pytest.approx(35 * 2**0.5, abs=0.2)
    rest = reach[49:]
    assert np.mean(rest**2) == pytest.approx(2 * 12**2, rel=0.25)
    straight = [np.asarray(coils.place(ball.scalp, f)) for f in foot[::10]]
    turned = angles(straight, poses[::10])
    assert np.sqrt(np.mean(np.square(turned))) == pytest.approx(8, rel=0.35)
    # the same draws, scaled
    more = simulate.mapping_session(ball.at, **ball.few, turn=16)
    few = simulate.mapping_session(ball.at, **ball.few)
    none = simulate.mapping_session(ball.at, **ball.few, turn=0).poses
    np.testing.assert_allclose(angles(none, more.poses), 2 * angles(none, few.poses), rtol=1e-2, atol=0.1)
    np.testing.assert_allclose([p[:3, 2] for p in straight], poses[::10, :3, 2], atol=1e-3)


@pytest.mark.float32
def test_motor_threshold(ball, tolerance):
    """The field of the strongest twentieth of the hot spot is the threshold's."""
    middle = coils.place(ball.at.scalp, TARGET)
    own = np.asarray(ball.at.points)[np.asarray(ball.at.active)]
    grey = own[ball.grey]
    middle_point = grey[np.linalg.norm(grey - TARGET, axis=1).argmin()]
    spot = ball.at.within(middle_point, 15.0)
    e = np.asarray(ball.at(middle, didt=ball.session.rmt_didt), np.float64)
    x = np.percentile(np.linalg.norm(e[spot], axis=-1), 95)
    assert x == pytest.approx(THRESHOLD, rel=tolerance(1e-4, 1e-9))
    assert spot.sum() > 3


@pytest.mark.parametrize("truth", ["rate", "field"])
@pytest.mark.float32
def test_the_equations(ball, truth, tolerance):
    s = simulate.mapping_session(ball.at, **ball.few, truth=truth, alpha=0.3, intensity=(1.1, 1.4))
    intensity = np.asarray(s.intensity)
    assert 1.1 <= intensity.min() < 1.17
    assert 1.33 < intensity.max() <= 1.4
    np.testing.assert_allclose(s.didt, intensity * float(s.rmt_didt), rtol=1e-5)
    e = fields(ball, s)
    r = np.linalg.norm(e, axis=-1) / THRESHOLD if truth == "field" else np.asarray(ball.rate(e), np.float64)
    r = r[:, np.asarray(ball.at.active)]
    activations = r @ np.asarray(s.synergy_weights, np.float64).T
    direct, synergy = r @ np.asarray(s.direct_weights, np.float64).T, activations @ np.asarray(s.synergies).T
    bound = {"rtol": tolerance(2e-3, 1e-9), "atol": tolerance(1e-4, 1e-9)}
    np.testing.assert_allclose(s.activations, activations, **bound)
    np.testing.assert_allclose(s.direct, direct / np.percentile(direct, 98, axis=0), **bound)
    np.testing.assert_allclose(s.synergy, synergy / np.percentile(synergy, 98, axis=0), **bound)
    np.testing.assert_allclose(s.drive, 0.3 * s.synergy + 0.7 * s.direct, rtol=1e-5, atol=1e-6)
    strength = (0.75 + 0.33 * s.drive) / s.thresholds
    np.testing.assert_allclose(s.mean, simulate.expected_mep(strength), rtol=1e-3)
    # and anew from fields, one or many, with a gradient
    np.testing.assert_allclose(s.expected_meps(jnp.asarray(e)), s.mean, rtol=tolerance(5e-3, 1e-9))
    one = jnp.asarray(e[3])
    assert s.expected_meps(one).shape == (15,)
    with pytest.raises(ValueError, match=r"e: shape .* fields of the map"):
        s.expected_meps(one[:-1])
    slope = jax.grad(lambda scale: s.expected_meps(one * scale).sum())(1.0)
    assert slope > 0


@pytest.mark.float32
def test_centres_lie_from_lateral_to_medial(ball):
    s = simulate.mapping_session(ball.at, **ball.few, cortex="line")
    own = np.asarray(ball.at.points)[np.asarray(ball.at.active)]
    for centres, weights, extent, width in (
        (s.direct_centres, s.direct_weights, 10, 5),
        (s.synergy_centres, s.synergy_weights, 11, 7),
    ):
        centres, weights = np.asarray(centres, np.float64), np.asarray(weights, np.float64)
        n = len(centres)
        assert (np.abs(centres[:, 0] - TARGET[0] - np.linspace(-extent, extent, n)) < 6).all()
        assert np.abs(centres[:, 1] - TARGET[1]).max() < 10
        # each on a grey point, where its weight is largest; Gaussian away from there
        square = ((own[:, None] - centres) ** 2).sum(-1).T
        np.testing.assert_array_equal(square[:, ball.grey].min(1), 0)
        wanted = np.exp(-square / (2 * width**2)) * ball.grey
        np.testing.assert_allclose(weights, wanted / wanted.sum(1, keepdims=True), atol=1e-6)
    points = ball.at.points * jnp.array([-1.0, 1, 1])
    mirrored = replace(ball.at, region=replace(ball.at.region, points=points))
    other = simulate.mapping_session(mirrored, **{**ball.few, "target": TARGET * [-1, 1, 1]}, cortex="line")
    assert (other.direct_centres[0, 0] > other.direct_centres[-1, 0]).all()


@pytest.mark.float32
def test_keys_and_shares(ball):
    one, again = (simulate.mapping_session(ball.at, **ball.few) for _ in range(2))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)
    other = simulate.mapping_session(ball.at, **{**ball.few, "key": jax.random.key(2)})
    for name in ("poses", "meps", "synergies", "direct_centres", "thresholds"):
        assert not np.array_equal(getattr(one, name), getattr(other, name)), name
    alone, together = (simulate.mapping_session(ball.at, **ball.few, alpha=a) for a in (0, 1.0))
    np.testing.assert_array_equal(alone.drive, alone.direct)
    np.testing.assert_array_equal(together.drive, together.synergy)
    # nothing but the sum depends on the share; and the cortex not on the stimuli
    np.testing.assert_array_equal(alone.synergy, one.synergy)
    np.testing.assert_array_equal(alone.poses, together.poses)
    longer = simulate.mapping_session(ball.at, **{**ball.few, "stimuli": 300})
    for name in ("synergies", "direct_weights", "thresholds"):
        np.testing.assert_array_equal(getattr(longer, name), getattr(one, name))


@pytest.mark.float32
def test_field_truth_knows_no_curve(ball, tolerance):
    """Linear in the field: neither the curve nor the intensity changes the drive; under the rate's truth both do."""
    steep = replace(ball.rate, curve=cortex.hill(1.2, 9.0))
    bound = {"rtol": tolerance(1e-4, 1e-10), "atol": tolerance(1e-5, 1e-10)}
    for truth, same in (("field", True), ("rate", False)):
        one = simulate.mapping_session(ball.at, **ball.few, truth=truth)
        two = simulate.mapping_session(ball.at, **{**ball.few, "rate": steep}, truth=truth, intensity=2)
        assert np.allclose(one.drive, two.drive, **bound) == same
        np.testing.assert_allclose(one.rmt_didt, two.rmt_didt, rtol=1e-6)


@pytest.mark.float32
def test_units_of_the_threshold(ball, tolerance):
    centimetres = replace(ball.rate, threshold=cortex.threshold(THRESHOLD / 100, "V/cm"))
    one, two = (simulate.mapping_session(ball.at, **{**ball.few, "rate": r}) for r in (ball.rate, centimetres))
    np.testing.assert_allclose(one.rmt_didt, two.rmt_didt, rtol=1e-5)
    np.testing.assert_allclose(one.drive, two.drive, rtol=tolerance(1e-3, 1e-10), atol=1e-5)


@pytest.mark.float32
def test_the_normal_component(ball):
    """Fields in a sphere are tangential: with tangential "normals" there is a threshold, with radial ones none."""
    along = np.asarray(coils.place(ball.at.scalp, TARGET))[:3, 1]
    normals = np.tile(along, (ball.at.n_point, 1))
    found = {}
    for sign in (1, -1):
        rate = cortex.FiringRate(ball.rate.threshold, component="normal", normals=sign * normals)
        try:
            found[sign] = simulate.mapping_session(ball.at, **{**ball.few, "rate": rate})
        except ValueError as error:
            found[sign] = str(error)
    (session,) = [s for s in found.values() if not isinstance(s, str)]
    (text,) = [s for s in found.values() if isinstance(s, str)]
    assert text.startswith("rate: with the coil over the target, the field at the hot spot is 0 thresholds")
    assert float(session.rmt_didt) == pytest.approx(float(ball.session.rmt_didt), rel=0.1)


@pytest.mark.float32
def test_share_of_responses_and_ceiling(ball):
    s = ball.session
    assert 0.16 < (np.asarray(s.meps) > 50).mean() < 0.36
    y, p = np.asarray(s.meps, np.float64), np.asarray(s.mean, np.float64)
    for scaled, unit in ((False, 1.0), (True, y.max(0))):
        wanted = muscle.scores(y / unit, p / unit).pooled["nrmse"]
        assert float(s.ceiling(scaled=scaled)) == pytest.approx(wanted, rel=1e-4)
    assert 0.3 < float(s.ceiling()) < 0.8
    loud = simulate.mapping_session(ball.at, key=jax.random.key(0), rate=ball.rate, target=TARGET, gain=0.55)
    np.testing.assert_array_equal(loud.drive, s.drive)
    assert (np.asarray(loud.meps) > 50).mean() > 0.45
    assert float(loud.ceiling()) < float(s.ceiling()) - 0.1
    # the mean is the mean: averages over draws of the same strengths
    strength = (0.75 + 0.33 * s.drive[:20]) / s.thresholds
    drawn = simulate.mep(jax.random.key(3), jnp.tile(strength, (3000, 1, 1)))
    np.testing.assert_allclose(np.asarray(drawn, np.float64).mean(0), s.mean[:20], rtol=0.13)
    assert np.asarray(drawn, np.float64).mean() == pytest.approx(float(s.mean[:20].mean()), rel=0.01)


@pytest.mark.float32
def test_coils_are_lifted_where_they_touch(ball):
    s = simulate.mapping_session(ball.at, **ball.few, distance=0)
    gap = np.asarray(coils.clearance(ball.at.coil, s.poses, ball.at.scalp))
    assert gap.min() > 0
    lifted = np.linalg.norm(np.asarray(s.poses)[:, :3, 3], axis=1) - 92
    assert lifted.max() < 6
    bare = replace(ball.at, coil=replace(ball.at.coil, casing=None))
    flat = simulate.mapping_session(bare, **ball.few, distance=0)
    np.testing.assert_allclose(np.linalg.norm(np.asarray(flat.poses)[:, :3, 3], axis=1), 92, atol=0.02)
    sunk = np.asarray(coils.clearance(ball.at.coil, flat.poses, ball.at.scalp)) < 0
    assert (lifted[sunk] > 0).all()


@pytest.mark.float32
def test_one_synergy_for_other_muscles(ball):
    """More than six muscles in it, since none is left out."""
    names = ("FDI", "ADM", "APB", "FCR", "ECR", "BB", "TB")
    s = simulate.mapping_session(ball.at, **ball.few, synergies=1, muscles=names)
    assert s.muscles == names
    assert s.meps.shape == (36, 7)
    np.testing.assert_allclose(s.synergies.sum(0), 1, rtol=1e-6)
    assert (np.asarray(s.synergies) > 0).all()
    assert abs(float(s.synergy_centres[0, 0]) - TARGET[0]) < 6


@pytest.mark.float32
def test_without_target_and_grey_matter(ball):
    """The middle of the map, and all points that have a field."""
    other = StaticMetadata(tissues=("inner", "outer"), space="sphere")
    at = replace(ball.at, region=replace(ball.at.region, metadata=other))
    s = simulate.mapping_session(at, **{**ball.few, "target": None}, progress=True)
    assert (np.asarray(s.direct_weights)[:, ~ball.grey] > 0).any()
    middle = np.asarray(at.points, np.float64).mean(0)
    assert np.abs(np.asarray(s.direct_centres).mean(0) - middle).max() < 4
    e = np.asarray(at(jnp.tile(s.poses[3], (16, 1, 1)), didt=s.didt[3]))[0]
    activations = np.asarray(s.synergy_weights) @ np.asarray(ball.rate(e))[np.asarray(at.active)]
    np.testing.assert_allclose(s.activations[3], activations, rtol=2e-3)


@pytest.mark.float32
def test_refusals(ball):
    def refused(match, **changes):
        with pytest.raises(ValueError, match=match):
            simulate.mapping_session(ball.at, **{**ball.few, **changes})

    preset = cortex.preset("yarossi2019")
    refused(r'^rate: its threshold is in "V/m per A/us", which cancels', rate=preset)
    threshold = ball.rate.threshold
    refused(r'^rate: component "scalar"', rate=cortex.FiringRate(threshold, component="scalar"))
    refused(r"^rate: .*holds no normals", rate=cortex.FiringRate(threshold, component="normal"))
    refused(
        r"^normals: shape \(5, 3\) for a field of shape",
        rate=cortex.FiringRate(threshold, component="normal", normals=np.ones((5, 3))),
    )
    refused(r"^stimuli: 9; must be at least 10\.", stimuli=9)
    refused(r"^synergies: 0; must be at least 1\.", synergies=0)
    refused(r"^truth: 'rates'; choose one of 'rate', 'field'", truth="rates")
    refused(r"^alpha: 1.2; the share", alpha=1.2)
    refused(r"^gain: 0; must be above zero", gain=0)
    refused(r"^muscles: none; give one or more", muscles=())
    refused(r"^muscles: FDI, FDI; give one or more", muscles=("FDI", "FDI"))
    refused(r"^intensity: \(1.4, 1.1\); give one number, or the lowest and the highest", intensity=(1.4, 1.1))
    refused(r"^intensity: 0; must be above zero", intensity=0)
    refused(r"^target: shape \(2,\)", target=(0.0, 0.0))
    refused(r"^target: \(40.0, 0.0, 0.0\) mm lies \d+ mm from the nearest point of cortex", target=(40.0, 0, 0))
    refused(r"^handle: the zero vector", handle=(0, 0, 0))
    refused(r"^distance: -1 mm", distance=-1)
    silent = replace(ball.rate, curve=cortex.table([0.0, 50, 60], [0.0, 0, 1]))
    refused(r"^rate: 15 of 15 muscles get no drive from any stimulus; raise `intensity`", rate=silent)
