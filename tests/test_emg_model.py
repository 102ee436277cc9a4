"""The sequential autoencoder against numbers of a public implementation, and its parts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from jaxm2m import emg
from jaxm2m.emg.lfads import _augment, _model, _observation, _priors

CONFIG = emg.LFADSConfig(
    channels=4,
    generator=9,
    controller=7,
    ci_encoder=6,
    ic_encoder=8,
    ic_dim=3,
    co_dim=2,
    fac_dim=5,
    observation=emg.Gamma(floor=1e-12),
    clip=0.6,
)


def converted(named):
    """Parameters by the names of the public implementation, whose kernels are (n_out, n_in), as ours."""

    def recurrent(prefix):
        return {
            "input": named[f"{prefix}.weight_ih"].T,
            "recurrent": named[f"{prefix}.weight_hh"].T,
            "bias": named[f"{prefix}.bias_ih"],
        }

    def affine(prefix):
        return {"kernel": named[f"{prefix}.weight"].T, "bias": named[f"{prefix}.bias"]}

    def encoder(name):
        return {
            "forward": recurrent(f"encoder.{name}.fwd_gru.cell"),
            "backward": recurrent(f"encoder.{name}.bwd_gru.cell"),
            "start": named[f"encoder.{name}_h0"][:, 0],
        }

    cell = "decoder.rnn.cell"
    return {
        "offset": np.zeros(4),
        "ic_encoder": encoder("ic_enc"),
        "ci_encoder": encoder("ci_enc"),
        "ic": affine("encoder.ic_linear"),
        "start": affine("decoder.ic_to_g0"),
        "controller": recurrent(f"{cell}.con_cell"),
        "controller_start": named["decoder.con_h0"][0],
        "inputs": affine(f"{cell}.co_linear"),
        "generator": recurrent(f"{cell}.gen_cell"),
        "factors": named[f"{cell}.fac_linear.weight"].T,
        "readout": affine("readout.0"),
        "ic_prior": {"mean": named["ic_prior.mean"]},
        "inputs_prior": {"log_tau": named["co_prior.logtaus"], "log_variance": named["co_prior.lognvars"]},
    }


@pytest.fixture
def reference(data):
    with np.load(data("emg/lfads_v110_reference.npz")) as file:
        return dict(file)


def part(reference, prefix):
    return {name.removeprefix(prefix): value for name, value in reference.items() if name.startswith(prefix)}


@pytest.mark.float64
def test_outputs_of_the_public_implementation(reference):
    params = jax.tree.map(jnp.asarray, converted(part(reference, "param/")))
    inputs = _model.prepare_inputs(params, CONFIG, jnp.asarray(reference["raw"]))
    np.testing.assert_allclose(inputs, reference["enc"], atol=1e-14)
    code = _model.encode(params, CONFIG, inputs)
    out = _model.decode(params, CONFIG, code, keep=("controller", "generator"))
    found = {
        "output_params": out["raw"].swapaxes(0, 1),
        "factors": out["factors"].swapaxes(0, 1),
        "ic_mean": code["mean"],
        "ic_std": jnp.sqrt(code["variance"]),
        "co_means": out["mean"].swapaxes(0, 1),
        "co_stds": jnp.exp(0.5 * out["log_variance"]).swapaxes(0, 1),
        "gen_states": out["generator"].swapaxes(0, 1),
        "gen_init": out["start"],
        "gen_inputs": out["mean"].swapaxes(0, 1),
        "con_states": out["controller"].swapaxes(0, 1),
    }
    wanted = part(reference, "out/")
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, atol=1e-8, rtol=1e-8, err_msg=name)
    assert np.abs(wanted["gen_states"]).max() == 0.6  # the bound of the states is at work
    nll = CONFIG.observation.nll(found["output_params"], jnp.asarray(reference["raw"]))
    np.testing.assert_allclose(nll, reference["nll"], atol=1e-8, rtol=1e-8)


@pytest.mark.float64
def test_loss_terms_and_gradients_of_the_public_implementation(reference):
    params = jax.tree.map(jnp.asarray, converted(part(reference, "param/")))
    data = jnp.asarray(reference["raw"])
    fresh = ((reference["co_sample"] - reference["out/co_means"]) / reference["out/co_stds"]).swapaxes(0, 1)

    def loss(params):
        inputs = _model.prepare_inputs(params, CONFIG, data)
        terms = _model.loss_terms(params, CONFIG, inputs, data, posterior_noise=jnp.asarray(fresh))
        terms["l2"] = _model.penalty(params, {"ci_encoder": 0.3, "generator": 0.7, "controller": 0.2})
        return sum(terms.values()), terms

    (value, terms), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    wanted = {
        "nll": reference["nll"].mean(),
        "kl_ic": reference["kl_ic"],
        "kl_co": reference["co_kl"],
        "l2": reference["l2"],
    }
    assert terms.keys() == wanted.keys()
    for name, number in wanted.items():
        np.testing.assert_allclose(terms[name], number, rtol=1e-8, err_msg=name)
    np.testing.assert_allclose(value, reference["loss"], rtol=1e-8)
    expected = jax.tree.leaves_with_path(converted(part(reference, "grad/")))
    for (path, number), found in zip(expected, jax.tree.leaves(gradient), strict=True):
        np.testing.assert_allclose(found, number, atol=1e-8, rtol=1e-8, err_msg=jax.tree_util.keystr(path))


SMALL = emg.LFADSConfig(
    channels=2, generator=5, controller=4, ci_encoder=3, ic_encoder=6, ic_dim=2, co_dim=2, fac_dim=3
)


def small(config=SMALL, batch=4, time=7):
    params = _model.init(jax.random.key(3), config)
    data = jax.random.gamma(jax.random.key(4), 1.0, (batch, time, config.channels))
    return params, data, _model.prepare_inputs(params, config, data)


@pytest.mark.slow
@pytest.mark.float64
def test_decoding_with_noise_and_dropout_is_the_equations(tolerance):
    params, _, inputs = small()
    rate = 0.3
    noise = _model.draw_noise(jax.random.key(5), SMALL, 4, 7)
    masks = _model.draw_masks(jax.random.key(6), SMALL, 4, 7)
    code = _model.encode(params, SMALL, inputs, masks, rate)
    found = _model.decode(params, SMALL, code, noise, masks, rate)

    def drop(values, mask):
        return np.where(np.asarray(mask) / 65536 >= rate, values / (1 - rate), 0)

    def affine(name, x):
        return x @ params[name]["kernel"] + params[name]["bias"]

    def cell(name, h, x):
        w, u, b = (np.asarray(params[name][k]) for k in ("input", "recurrent", "bias"))
        n = h.shape[1]
        z, r = np.split(scipy.special.expit(x @ w[:, : 2 * n] + h @ u[:, : 2 * n] + b[: 2 * n]), 2, 1)
        return z * h + (1 - z) * np.tanh(x @ w[:, 2 * n :] + (r * h) @ u[:, 2 * n :] + b[2 * n :])

    matrix = np.asarray(params["factors"]) / np.linalg.norm(params["factors"], axis=0)
    g = affine("start", np.asarray(code["mean"]) + np.sqrt(code["variance"]) * noise["initial"])
    np.testing.assert_allclose(found["start"], g, atol=tolerance(1e-5, 1e-12))
    f = drop(np.asarray(g), masks["start"].T) @ matrix
    c = np.zeros((4, 4)) + np.asarray(params["controller_start"])
    for t in range(7):
        seen = np.concatenate([code["ci_forward"][t].T, code["ci_backward"][t].T, f], 1)
        c = cell("controller", c, drop(seen, masks["controller"][t].T))
        mean, log_variance = np.split(np.asarray(affine("inputs", c)), 2, 1)
        g = cell("generator", np.asarray(g), mean + np.exp(log_variance / 2) * noise["inputs"][t])
        f = drop(g, masks["generator"][t].T) @ matrix
        np.testing.assert_allclose(found["mean"][t], mean, atol=tolerance(1e-5, 1e-12))
        np.testing.assert_allclose(found["factors"][t], f, atol=tolerance(1e-5, 1e-12))
    raw = np.asarray(affine("readout", f))
    np.testing.assert_allclose(found["raw"][-1, :, :, 0], raw[:, :2], atol=tolerance(1e-5, 1e-12))


@pytest.mark.float32
@pytest.mark.slow
def test_the_controller_sees_no_bin_that_it_explains():
    params, _, inputs = small()
    code = _model.encode(params, SMALL, inputs)
    other = _model.encode(params, SMALL, inputs.at[:, 3].add(1.0))
    changed = [[bool((code[k][t] != other[k][t]).any()) for t in range(7)] for k in ("ci_forward", "ci_backward")]
    assert changed == [[t > 3 for t in range(7)], [t < 3 for t in range(7)]]
    assert not code["ci_forward"][0].any()
    assert not code["ci_backward"][-1].any()


@pytest.mark.float32
def test_rows_of_the_factors_have_unit_norm(tolerance):
    params, _, inputs = small()
    code = _model.encode(params, SMALL, inputs)
    scaled = params | {"factors": params["factors"] * jnp.array([2.0, 0.1, 30.0])}
    found = _model.decode(scaled, SMALL, code)["factors"]
    np.testing.assert_allclose(found, _model.decode(params, SMALL, code)["factors"], atol=tolerance(1e-5, 1e-13))


@pytest.mark.float32
@pytest.mark.parametrize("observation", [emg.Gamma(), emg.Gaussian(), emg.Poisson()])
@pytest.mark.slow
def test_extreme_data_give_finite_losses_and_gradients(observation):
    config = emg.LFADSConfig(channels=2, generator=5, controller=4, ci_encoder=3, ic_encoder=6, observation=observation)
    params, data, _ = small(config)
    data = data.at[0].set(0.0).at[1, 3].set(1e4)

    @jax.jit
    @jax.value_and_grad
    def loss(params):
        terms = _model.loss_terms(params, config, _model.prepare_inputs(params, config, data), data)
        return 1e4 * (terms["nll"] + terms["kl_ic"] + terms["kl_co"])

    value, gradient = loss(params)
    assert np.isfinite(value)
    assert all(np.isfinite(a).all() for a in jax.tree.leaves(gradient))
    norm = jnp.sqrt(sum((a**2).sum() for a in jax.tree.leaves(gradient)))
    assert np.isfinite(norm)  # what the optimiser divides by
    # far off as well, where a step at a high rate may lead
    far, _ = loss(params | {"readout": jax.tree.map(lambda a: 1e3 * a, params["readout"])})
    assert np.isfinite(far)


def test_stirling_is_the_logarithm_of_gamma(tolerance):
    a = np.geomspace(1e-6, 1e6, 4001)
    a = np.concatenate([a, [8.0, np.nextafter(8, 0)]]).astype(jnp.result_type(float))
    found, slope = jax.vmap(jax.value_and_grad(lambda a: _observation.stirling(a, jnp.log(a))))(jnp.asarray(a))
    exact = a.astype(np.float64)
    wanted = exact * np.log(exact) - exact - scipy.special.gammaln(exact)
    np.testing.assert_allclose(
        found[exact < 1e3], wanted[exact < 1e3], rtol=tolerance(2e-6, 1e-11), atol=tolerance(6e-6, 1e-11)
    )
    # for large a the textbook's form cancels, in SciPy as well
    asymptotic = 0.5 * np.log(exact / (2 * np.pi)) - 1 / (12 * exact)
    np.testing.assert_allclose(found[exact > 1e3], asymptotic[exact > 1e3], rtol=tolerance(1e-6, 1e-10))
    derivative = np.log(exact) - scipy.special.digamma(exact)
    np.testing.assert_allclose(slope, derivative, rtol=tolerance(2e-4, 1e-9), atol=tolerance(2e-6, 1e-10))


def test_likelihoods_are_those_of_scipy(tolerance):
    raw = jax.random.normal(jax.random.key(0), (50, 2))
    y = jax.random.gamma(jax.random.key(1), 1.0, (50,))
    count = jnp.round(3 * y)
    a, b = np.exp(np.asarray(raw, np.float64)).T
    gamma, gaussian, poisson = emg.Gamma(), emg.Gaussian(), emg.Poisson()
    close = {"rtol": tolerance(2e-5, 1e-12), "atol": tolerance(2e-5, 1e-12)}
    at = np.maximum(np.asarray(y, np.float64), gamma.floor)
    np.testing.assert_allclose(gamma.nll(raw, y), -scipy.stats.gamma.logpdf(at, a, scale=1 / b), **close)
    np.testing.assert_allclose(gamma.mean(raw), a / b, **close)
    normal = scipy.stats.norm(np.asarray(raw[:, 0], np.float64), np.sqrt(b))
    np.testing.assert_allclose(gaussian.nll(raw, y), -normal.logpdf(np.asarray(y, np.float64)), **close)
    np.testing.assert_allclose(poisson.nll(raw[:, :1], count), -scipy.stats.poisson.logpmf(count, a), **close)
    np.testing.assert_allclose(poisson.mean(raw[:, :1]), a, **close)
    assert np.isfinite(gamma.nll(raw, jnp.zeros(50))).all()


def test_the_input_prior_is_an_autoregressive_gaussian(tolerance):
    u = jax.random.normal(jax.random.key(0), (6, 3, 2))
    tau, variance = np.array([10.0, 0.7]), np.array([0.1, 2.0])
    found = _priors.autoregressive_log(u, jnp.log(tau), jnp.log(variance))
    wanted = np.zeros(3)
    for d in range(2):
        alpha = np.exp(-1 / tau[d])
        apart = np.abs(np.subtract.outer(np.arange(6), np.arange(6)))
        covariance = variance[d] / (1 - alpha**2) * alpha**apart
        wanted += scipy.stats.multivariate_normal(np.zeros(6), covariance).logpdf(np.asarray(u[:, :, d]).T)
    np.testing.assert_allclose(found, wanted, rtol=tolerance(1e-4, 1e-10))


def test_the_divergence_of_the_initial_condition(tolerance):
    mean, variance, prior_mean = np.array([[0.3]]), np.array([[0.02]]), np.array([-0.1])
    x = np.linspace(-1, 1.5, 200001)
    q = scipy.stats.norm(mean[0, 0], variance[0, 0] ** 0.5)
    p = scipy.stats.norm(prior_mean[0], 0.1**0.5)
    wanted = np.trapezoid(q.pdf(x) * (q.logpdf(x) - p.logpdf(x)), x)
    found = _priors.gaussian_kl(*map(jnp.asarray, (mean, variance, prior_mean)), 0.1)
    np.testing.assert_allclose(found, [wanted], rtol=tolerance(1e-5, 1e-8))


@pytest.mark.float32
def test_masks_keep_the_share_that_they_should():
    bits = _augment.draw_mask_bits(jax.random.key(0), (1000, 1001))
    for rate in (0.0, 0.01, 0.5, 0.99):
        share = float(_augment.keep_mask(bits, jnp.asarray(rate)).mean())
        assert abs(share - (1 - rate)) < 5 * np.sqrt(rate * (1 - rate) / bits.size) + 1e-5
    values = jnp.ones((1000, 1001))
    assert abs(float(_augment.drop_out(values, bits, jnp.asarray(0.4)).mean()) - 1) < 5e-3
    keys = jax.random.split(jax.random.key(1), 3)
    several = jax.vmap(lambda key: _augment.draw_mask_bits(key, (5, 7)))(keys)
    np.testing.assert_array_equal(several[1], _augment.draw_mask_bits(keys[1], (5, 7)))
    assert len(np.unique(several)) > 95
    # neighbours in memory, halves of one word, do not go together
    signs = np.where(np.asarray(bits).ravel() < 32768, 1.0, -1.0)
    assert all(abs((signs[lag:] * signs[:-lag]).mean()) < 5e-3 for lag in (1, 2, 1001))


@pytest.mark.float32
def test_channels_are_shifted_within_their_margins():
    time = jnp.broadcast_to(jnp.arange(32.0)[:, None], (500, 32, 3))
    moved = _augment.shift_windows(jax.random.key(0), time, 6, 3.0)
    assert moved.shape == (500, 20, 3)
    shift = np.asarray(moved - jnp.arange(6.0, 26.0)[:, None])
    assert (shift == shift[:, :1]).all()
    shift = shift[:, 0]
    assert set(np.unique(shift)) == set(range(-6, 7))
    expected = scipy.stats.truncnorm(-2, 2).std() * 3
    assert abs(shift.std() - expected) < 0.2
    assert abs(np.corrcoef(shift.T)[0, 1]) < 0.1
    np.testing.assert_array_equal(_augment.shift_windows(jax.random.key(0), time, 0, 3.0), time)
    np.testing.assert_array_equal(_augment.crop_margins(time, 6), time[:, 6:26])


@pytest.mark.slow
@pytest.mark.float32
def test_posterior_is_the_mean_over_samples(tolerance):
    params, data, inputs = small()
    key = jax.random.key(7)
    found = emg.posterior(params, SMALL, data, key, samples=130)  # two parts, the second not full
    code = _model.encode(params, SMALL, inputs)

    @jax.jit
    @jax.vmap
    def sampled(i):
        return _model.decode(params, SMALL, code, _model.draw_noise(jax.random.fold_in(key, i), SMALL, 4, 7))

    every = sampled(jnp.arange(130))
    close = {"atol": tolerance(1e-5, 1e-12), "rtol": tolerance(1e-5, 1e-12)}
    rates = SMALL.observation.mean(every["raw"]).mean(0)
    np.testing.assert_allclose(found.rates, rates.swapaxes(0, 1), **close)
    for name, entry in {"factors": "factors", "inputs": "mean"}.items():
        np.testing.assert_allclose(getattr(found, name), every[entry].mean(0).swapaxes(0, 1), **close)
    np.testing.assert_allclose(found.start, every["start"].mean(0), **close)

    means = emg.posterior_means(params, SMALL, data)
    out = _model.decode(params, SMALL, code)
    np.testing.assert_allclose(means.rates, SMALL.observation.mean(out["raw"]).swapaxes(0, 1), **close)
    np.testing.assert_allclose(means.start, out["start"], **close)
    with pytest.raises(ValueError, match="samples: 0; must be at least 1"):
        emg.posterior(params, SMALL, data, key, samples=0)


def test_penalty_counts_kernels_with_a_scale(tolerance):
    params, _, _ = small()
    a, b = (np.asarray(params[k]["recurrent"], np.float64) for k in ("generator", "controller"))
    both = (0.5 * 0.3 * (a**2).sum() + 0.5 * 0.1 * (b**2).sum()) / (a.size + b.size)
    np.testing.assert_allclose(_model.penalty(params, {"generator": 0.3, "controller": 0.1}), both, rtol=1e-6)
    one = 0.5 * 0.3 * (a**2).sum() / a.size
    np.testing.assert_allclose(_model.penalty(params, {"generator": 0.3, "controller": 0.0}), one, rtol=1e-6)


def test_sizes_name_what_is_wrong():
    with pytest.raises(ValueError, match="fac_dim: 0; must be at least 1"):
        emg.LFADSConfig(channels=3, fac_dim=0)
    with pytest.raises(ValueError, match="clip: 0; must be above zero"):
        emg.LFADSConfig(channels=3, clip=0.0)
