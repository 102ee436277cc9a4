"""One writer at a time."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from jaxm2m._types import PathLike

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextmanager
def lock(path: PathLike) -> Iterator[None]:
    """Lock a file or run directory for this process; others are refused.

    The system frees the lock when its holder ends, however it ends, so that a lock file that is left behind keeps
    nobody out. It is named `.lock` inside a directory, `.<name>.lock` beside a file, and says who holds it.

    Parameters
    ----------
    path
        The file or directory.

    Raises
    ------
    RuntimeError
        Another holder, named by process and host.
    """
    path = Path(path).expanduser()
    place = path / ".lock" if path.is_dir() else path.parent / f".{path.name}.lock"
    with open(place, "a+", encoding="utf-8") as file:
        if not _take(file):
            file.seek(0)
            raise RuntimeError(
                f"path: {path} is in use by {_describe_holder(file.read())}; wait for it or choose another path."
            )
        try:
            file.seek(0)
            file.truncate()
            json.dump({"pid": os.getpid(), "host": socket.gethostname()}, file)
            file.flush()
            yield
        finally:
            # the file stays: were it removed, one process could hold the old file and another a new one
            file.seek(0)
            file.truncate()
            file.flush()
            _release(file)


def _take(file: IO[str]) -> bool:
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            import msvcrt

            file.seek(1 << 20)  # Windows would keep a locked first byte from being read
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _release(file: IO[str]) -> None:
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_UN)
    else:
        import msvcrt

        file.seek(1 << 20)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)


def _describe_holder(text: str) -> str:
    try:
        holder = json.loads(text)
        return f"process {int(holder['pid'])} on {str(holder['host'])[:80]}"
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return "another process"
