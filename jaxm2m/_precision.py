"""Settings of JAX that the package's programs are traced with, whatever those of the caller are."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import jax

F = TypeVar("F", bound=Callable[..., Any])


def full_precision(function: F) -> F:
    """Trace `function` with full-precision matrix products, and let arrays broadcast as NumPy does.

    Recent GPUs multiply float32 matrices with ten bits of mantissa by default: a tenth of a millimetre in a position.
    A caller who sets `jax_numpy_rank_promotion` to "raise" means their own code, not this.
    """

    @wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        with jax.default_matmul_precision("highest"), jax.numpy_rank_promotion("allow"):
            return function(*args, **kwargs)

    return wrapper  # type: ignore[return-value]
