"""Random draws that NumPy makes, from JAX's keys."""

import jax
import numpy as np
from jaxtyping import Array, Key


def numpy_generator(key: Key[Array, ""] | None) -> np.random.Generator:
    """Make a NumPy generator of a key; `jax.random.key(n)` gives that of `default_rng(n)`, None that of key 0."""
    if key is None:
        return np.random.default_rng(0)
    words = np.asarray(jax.random.key_data(key)).ravel()
    return np.random.default_rng(int.from_bytes(words.astype(">u4").tobytes(), "big"))
