"""Whether a head fits before long work on it starts."""

import jax

from jaxm2m._memory import memory


def check_fits(needed: float | int, what: str, fix: str) -> None:
    """Refuse a head whose solve needs more bytes than the device, or the machine, has."""
    there = _device_memory()
    if there and needed > there:
        raise MemoryError(
            f"head: {what} need about {needed / 1e9:.0f} GB for a solve, and there are {there / 1e9:.0f} GB; {fix}."
        )


def _device_memory() -> float:
    """Bytes; zero where nobody tells."""
    if jax.default_backend() == "cpu":
        return memory()[0]
    return (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit", 0)
