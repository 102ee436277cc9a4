"""Files that are either whole or not there."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from jaxm2m._types import PathLike


@contextlib.contextmanager
def atomic(path: PathLike) -> Iterator[Path]:
    """Write a file so that a kill at any instant leaves the old one or the new one, never half of one.

    Parameters
    ----------
    path : path
        The file to make or replace. Its folder must exist.

    Yields
    ------
    Path
        A temporary file in the same folder, with the same suffixes (writers choose the format by them). It takes the
        place of `path` when the block ends, and is removed when the block raises.
    """
    path = Path(path).expanduser()
    if not path.parent.is_dir():
        raise FileNotFoundError(f"path: the folder {path.parent} does not exist; make it first.")
    if path.is_dir():
        raise IsADirectoryError(f"path: {path} is a folder; name a file in it.")
    handle, name = tempfile.mkstemp(prefix=".", suffix="~" + path.name, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        # mkstemp lets nobody else read; a finished file has the rights of any other
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~umask)
        os.replace(temporary, path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    # the new name reaches the disk with the folder; not every system lets a folder be opened
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
