"""Full float32 products on devices that would round their operands to fewer bits."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import jax

F = TypeVar("F", bound=Callable[..., Any])


def full_precision(function: F) -> F:
    """Trace `function` with full-precision matrix products.

    Recent GPUs multiply float32 matrices with ten bits of mantissa by default: a tenth of a millimetre in a position.
    """

    @wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        with jax.default_matmul_precision("highest"):
            return function(*args, **kwargs)

    return wrapper  # type: ignore[return-value]
