"""The sequential autoencoder against numbers of a public implementation, and its parts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from jaxm2m import emg
from jaxm2m.emg import _augment, _model, _observation, _priors

SIZES = emg.Sizes(
    channels=4,
    generator=9,
    controller=7,
    ci_encoder=6,
    ic_encoder=8,
    initial=3,
    inputs=2,
    factors=5,
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
    inputs = _model.encoded(params, SIZES, jnp.asarray(reference["raw"]))
    np.testing.assert_allclose(inputs, reference["enc"], atol=1e-14)
    code = _model.encode(params, SIZES, inputs)
    out = _model.decode(params, SIZES, code, keep=("controller", "generator"))
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
    nll = SIZES.observation.nll(found["output_params"], jnp.asarray(reference["raw"]))
    np.testing.assert_allclose(nll, reference["nll"], atol=1e-8, rtol=1e-8)


@pytest.mark.float64
def test_loss_terms_and_gradients_of_the_public_implementation(reference):
    params = jax.tree.map(jnp.asarray, converted(part(reference, "param/")))
    data = jnp.asarray(reference["raw"])
    fresh = ((reference["co_sample"] - reference["out/co_means"]) / reference["out/co_stds"]).swapaxes(0, 1)

    def loss(params):
        inputs = _model.encoded(params, SIZES, data)
        terms = _model.loss_terms(params, SIZES, inputs, data, fresh=jnp.asarray(fresh))
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
