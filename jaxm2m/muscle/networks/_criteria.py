r"""AIC and BIC of models of MEPs, and four ways to count their parameters.

With n = trials x muscles, and RSS the residual sum of squares over all of them,

    AIC = n ln(RSS / n) + 2 k ,    BIC = n ln(RSS / n) + k ln n .

This takes residuals for independent and Gaussian, of one variance in all muscles, up to a constant that models of the
same data share. MEPs of one trial are not independent: n is too large, and differences too sure. k is

- the number of parameters: for a network (10^5) against n (10^4), the penalty decides alone, whatever the fit;
- the number with |w| > tau: depends on the scale of the weights, so that it compares only like with like;
- generalised degrees of freedom (Ye 1998): how far predictions follow their own data, of any procedure that is
  repeatable, training and early stopping included;
- the effective number of a network linearised where it ended, tr K (K + lambda I)^-1 with K = J J': a ridge regression
  on the gradients, at a minimum of its loss.

For linear regression all but the second are the number of independent columns.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key, PyTree
from scipy.linalg import eigvalsh

from jaxm2m import _check
from jaxm2m._types import ArrayLike
from jaxm2m.muscle._random import numpy_generator

_MEMORY = 1 << 30  # bytes for two blocks of the Jacobian


def information_criteria(measured: ArrayLike, predicted: ArrayLike, counts: Mapping[str, float | int]) -> pd.DataFrame:
    """Compute AIC and BIC for several counts of the same model's parameters.

    Parameters
    ----------
    measured, predicted
        (n_trial, n_muscle), in the same unit, of the data that the model was fitted to.
    counts
        Number of parameters k by name.

    Returns
    -------
    pandas.DataFrame
        A row for each count: k, aic, bic, and penalty_share, 2 k / (2 k + |n ln(RSS / n)|). Near 1, AIC reflects k and
        nothing else.

    Raises
    ------
    ValueError
        Shapes that differ, a perfect fit (its logarithm does not exist), a count below zero.

    Examples
    --------
    >>> import numpy as np
    >>> import jaxm2m as jm
    >>> meps = np.array([[9.0, 1.0, 0.0], [8.0, 2.0, 1.0], [0.0, 4.0, 8.0], [1.0, 5.0, 9.0], [5.0, 3.0, 4.0]])
    >>> table = jm.muscle.information_criteria(meps, 0.9 * meps, {"parameters": 4})
    >>> print(f"{table.loc['parameters', 'aic']:.2f}")
    -12.28
    """
    y = np.asarray(_check.finite(measured, "measured"), np.float64)
    p = np.asarray(_check.finite(predicted, "predicted"), np.float64)
    if y.shape != p.shape or y.ndim != 2 or not y.size:
        raise ValueError(f"predicted: shape {p.shape}, but measured has {y.shape}; pass (n_trial, n_muscle) for both.")
    n, rss = y.size, ((y - p) ** 2).sum()
    if rss == 0:
        raise ValueError("predicted: equals measured; criteria do not exist for a perfect fit.")
    k = np.array([float(_check.positive(v, f"counts[{name!r}]", zero=True)) for name, v in counts.items()])
    fit = n * np.log(rss / n)
    share = 2 * k / np.maximum(2 * k + abs(fit), np.finfo(float).tiny)
    table = {"k": k, "aic": fit + 2 * k, "bic": fit + k * np.log(n), "penalty_share": share}
    return pd.DataFrame(table, index=list(counts))


def count_parameters(params: PyTree, threshold: float | int | None = None) -> int:
    """Count the parameters, or those with |w| > threshold.

    Parameters
    ----------
    params
        Weights, a tree of arrays.
    threshold
        Only weights with a larger absolute value are counted; None: all.

    Returns
    -------
    int
        Number of parameters.
    """
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(params)]
    if threshold is None:
        return sum(leaf.size for leaf in leaves)
    _check.positive(threshold, "threshold", zero=True)
    return int(sum((np.abs(leaf) > threshold).sum() for leaf in leaves))


def generalised_dof(
    fit: Callable[[np.ndarray], ArrayLike],
    measured: ArrayLike,
    *,
    directions: int = 100,
    size: float | int | None = None,
    key: Key[Array, ""] | None = None,
) -> tuple[float, float]:
    r"""Estimate generalised degrees of freedom by perturbing the data and fitting anew.

    They are sum_i d \hat y_i / d y_i, estimated as

        (n / T) sum_t  u_t' (\hat y(y + s sqrt(n) u_t) - \hat y(y)) / (s sqrt(n)) ,

    with T random directions u_t, orthonormal in groups of n at most: n of them give a linear smoother's trace to the
    last digit, fewer an unbiased estimate with less scatter than independent ones.

    Parameters
    ----------
    fit
        y (n_trial, n_muscle) -> predictions of the same shape, after the whole procedure has run on y. It must be
        repeatable: a random procedure takes the same key every time.
    measured
        Data y (n_trial, n_muscle), in any unit.
    directions
        T; `fit` is called T + 1 times.
    size
        s, root mean square of the perturbation, in the unit of y; by default half of that of the residuals (Ye: half to
        all of the noise).
    key
        Draws the directions; None: `jax.random.key(0)`.

    Returns
    -------
    estimate : float
        Number of degrees of freedom.
    error : float
        Standard error of that number, over directions as if they were independent, so that it is too large; NaN for one
        direction.

    Notes
    -----
    J. Ye, J. Am. Stat. Assoc. 93, 120 (1998), who regresses every prediction on its own perturbation.
    """
    y = np.asarray(_check.finite(measured, "measured"), np.float64)
    _check.integer(directions, "directions")

    def predict(values: np.ndarray) -> np.ndarray:
        slopes = np.asarray(_check.finite(fit(values), "fit(measured)"), np.float64)
        if slopes.shape != y.shape:
            raise ValueError(f"fit: returns shape {slopes.shape} for measured of {y.shape}; return the same.")
        return slopes

    base = predict(y)
    step = np.sqrt(((y - base) ** 2).mean()) / 2 if size is None else float(_check.positive(size, "size"))
    if step == 0:
        raise ValueError("size: the fit is perfect, so that its residuals tell no size; pass one in the unit of y.")
    length, rng = step * np.sqrt(y.size), numpy_generator(key)
    slopes: list[float] = []
    while len(slopes) < directions:
        normal: np.ndarray = rng.normal(size=(y.size, min(y.size, directions - len(slopes))))
        for u in np.linalg.qr(normal)[0].T:
            moved = predict(y + length * u.reshape(y.shape)) - base
            slopes.append(y.size * float(u @ moved.ravel()) / length)
    error = np.std(slopes, ddof=1) / len(slopes) ** 0.5 if len(slopes) > 1 else np.nan
    return float(np.mean(slopes)), float(error)


def effective_dof(
    predict: Callable[[PyTree, PyTree], Array], params: PyTree, inputs: PyTree, penalty: ArrayLike
) -> Float[np.ndarray, "..."]:
    """Compute the effective number of parameters of a network, linearised where its training ended.

    It is tr K (K + lambda I)^-1 with K = J J', J = d predictions / d parameters. It holds for the loss 1/2 |y - f(w)|^2
    + lambda/2 |w|^2 near its minimum, with f taken as linear and one lambda for all parameters. For a mean of squares
    with weight decay, mean (y - f)^2 + d |w|^2, lambda = n d. For cross-entropy it is an analogy.

    J is computed in blocks of trials. With fewer parameters than values (p <= n) its p x p Gram matrix, whose
    eigenvalues other than zero are the same, is summed; with more, K is built from pairs of blocks, so that no more
    than two blocks of J, 1 GB, exist at once. K itself takes 8 n^2 bytes, its eigenvalues n^3 operations (n = 4500: 160
    MB, tens of seconds).

    Parameters
    ----------
    predict
        (params, one trial's input) -> (n_muscle,), by JAX.
    params
        Weights where the training ended.
    inputs
        Trials along the first axis (of each leaf).
    penalty
        lambda, above zero, a number or an array of any shape; no unit.

    Returns
    -------
    array
        Number of effective parameters, in the shape of `penalty`.
    """
    penalty = np.asarray(_check.positive(penalty, "penalty"), np.float64)
    weights, unravel = ravel_pytree(params)
    config = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(inputs)}
    if len(config) != 1 or config == {()}:
        raise ValueError("inputs: leaves of different lengths; the first axis of each must be the trials.")
    (n_trial,) = config.pop()
    shape = jax.eval_shape(lambda: predict(params, jax.tree.map(lambda leaf: leaf[0], inputs))).shape
    if len(shape) != 1:
        raise ValueError(f"predict: returns shape {shape} for one trial; it must be (n_muscle,).")

    @jax.jit
    def jacobian(w: Float[Array, " p"], x: PyTree) -> Float[Array, "rows p"]:
        rows = jax.vmap(jax.jacrev(lambda v, one: predict(unravel(v), one)), (None, 0))(w, x)
        return rows.reshape(-1, w.size)

    size = max(1, _MEMORY // (2 * shape[0] * weights.nbytes))
    blocks = [slice(start, min(start + size, n_trial)) for start in range(0, n_trial, size)]

    def block(where: slice) -> Float[Array, "rows p"]:
        return jacobian(weights, jax.tree.map(lambda leaf: jnp.asarray(leaf[where]), inputs))

    n = n_trial * shape[0]
    if weights.size <= n:
        gram = sum(np.asarray(_product(j.T, j.T), np.float64) for j in map(block, blocks))
    else:
        gram = np.zeros((n, n))
        for i, first in enumerate(blocks):
            one = block(first)
            rows = slice(first.start * shape[0], first.stop * shape[0])
            for second in blocks[: i + 1]:
                columns = slice(second.start * shape[0], second.stop * shape[0])
                gram[rows, columns] = _product(one, one if second is first else block(second))
    eigenvalues = np.maximum(eigvalsh(gram, overwrite_a=True, check_finite=True), 0)  # reads the lower triangle
    return np.asarray((eigenvalues / (eigenvalues + penalty[..., None])).sum(-1))


@jax.jit
def _product(a: Float[Array, "n p"], b: Float[Array, "m p"]) -> Float[Array, "n m"]:
    return jnp.matmul(a, b.T, precision=jax.lax.Precision.HIGHEST)
