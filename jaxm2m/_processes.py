"""What the processes of `jax.distributed` tell each other; alone, a process goes on as if there were no others."""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

_LONGEST = 1000  # bytes of a message that others receive


class StoppedElsewhereError(RuntimeError):
    """Another process stopped, and this one with it."""


def broadcast(value: Any) -> Any:
    """Return what the first process has (JSON) in all processes."""
    if jax.process_count() == 1:
        return value
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    text = np.resize(text, length) if len(text) else np.zeros(length, np.uint8)
    return json.loads(np.asarray(multihost_utils.broadcast_one_to_all(text), np.uint8).tobytes())


def agree(failure: BaseException | None = None) -> None:
    """Wait for all processes, and raise in those that did not fail what failed in another one."""
    if jax.process_count() == 1:
        return
    message = np.zeros(_LONGEST, np.uint8)
    if failure is not None:
        text = (str(failure) or type(failure).__name__).encode()[:_LONGEST]
        message[: len(text)] = np.frombuffer(text, np.uint8)
    messages = np.asarray(multihost_utils.process_allgather(message), np.uint8)
    failed = np.flatnonzero(messages.any(1))
    if failure is None and len(failed):
        first = int(failed[0])
        what = messages[first].tobytes().rstrip(b"\0").decode(errors="ignore")
        raise StoppedElsewhereError(f"process {first} of {jax.process_count()} stopped: {what}")


@contextlib.contextmanager
def end_all_on_failure() -> Iterator[None]:
    """End the other processes with what fails in the block of one of them, for which they would wait otherwise.

    Raises
    ------
    StoppedElsewhereError
        The block failed in another process, whose number and message are told.
    """
    try:
        yield
    except StoppedElsewhereError:
        raise
    except Exception as error:
        agree(error)
        raise
    agree()
