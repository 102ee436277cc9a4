"""What takes seconds to make and depends on numbers alone, kept in the cache folder under their fingerprint."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import h5py

from jaxm2m._cache import cache_folder
from jaxm2m.files._atomic import atomic
from jaxm2m.files._hdf5 import open_hdf5

T = TypeVar("T")


def load_or_make(
    kind: str,
    key: str,
    make: Callable[[], T],
    *,
    read: Callable[[Any], T],
    write: Callable[[h5py.File, T], None],
    most: int,
) -> T:
    """Return what `make` makes, from the cache folder where it is known.

    A file that is damaged is made again; a cache that cannot be written is none.

    Parameters
    ----------
    kind
        Folder of the cache.
    key
        Fingerprint of all that the numbers depend on, the version of the rule that makes them among it.
    make
        Makes it.
    read, write
        From and to an open HDF5 file; `read` raises KeyError or ValueError where something is missing.
    most
        Bytes of the kind that are kept; what was used longest ago goes.

    Returns
    -------
    T
        The same numbers in either case.
    """
    path = cache_folder() / kind / f"{key[:32]}.h5"
    with contextlib.suppress(OSError, KeyError, ValueError):
        with open_hdf5(path, limit=most) as file:
            kept = read(file)
        path.touch()
        return kept
    made = make()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path) as temporary, h5py.File(temporary, "w") as file:
            write(file, made)
        _prune(path.parent, most)
    return made


def _prune(folder: Path, most: int) -> None:
    """Remove the files used longest ago until the rest is small enough."""
    paths = sorted(folder.glob("*.h5"), key=lambda p: p.stat().st_mtime, reverse=True)
    total = 0
    for path in paths:
        total += path.stat().st_size
        if total > most:
            path.unlink(missing_ok=True)
