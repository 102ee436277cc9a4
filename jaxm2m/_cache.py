"""Where things are kept that could be made again: downloads, plans, and compiled programs by JAX's own cache."""

import hashlib
import os
import platform
import stat
import warnings
from pathlib import Path

import platformdirs

_MOST = 2 * 1024**3  # bytes; the oldest go


def cache_folder() -> Path:
    """Return the folder of the cache: what JAXM2M_CACHE names, else the user's own for this package.

    Returns
    -------
    Path
        It may not exist yet.
    """
    return Path(os.environ.get("JAXM2M_CACHE") or platformdirs.user_cache_dir("jaxm2m"))


def keep_programs() -> Path | None:
    """Keep compiled programs in the cache folder, so that the next process need not compile them.

    The command line does so before JAX is imported, and nothing else does: it is JAX's setting for the whole process.
    Where one of that cache stands in the environment, that holds. JAX looks programs up by what they compute, by its
    version and flags, so that numbers are the same to the bit.

    Returns
    -------
    Path or None
        The folder; None where the environment decides, where the folder cannot be written, or where others could:
        programs are machine code, which runs as this user.
    """
    if {"JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE"} & set(os.environ):
        return None
    folder = programs_folder()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        if not os.access(folder, os.W_OK) or not _is_private(folder):
            return None
        _remove_oldest(folder)
    except OSError:
        return None
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    # all: many small ones take longer to compile than to read
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    # a file that a full disk or a kill cut short is compiled anew, and is no fault of the user's
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation cache entry")
    # XLA complains of each kept program that it names features of the processor by other words
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    return folder


def programs_folder() -> Path:
    """Folder of compiled programs of this kind of processor, since machines may share a cache; may not exist yet."""
    described = [platform.machine(), platform.processor()]
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        described += sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    except OSError:
        pass
    return cache_folder() / "programs" / hashlib.sha256("\n".join(described).encode()).hexdigest()[:12]


def _is_private(folder: Path) -> bool:
    """Whether nobody else can put a program there; where the system has no owners, that is not asked."""
    if not hasattr(os, "getuid"):
        return True
    status = folder.lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o022


def _remove_oldest(folder: Path) -> None:
    entries = [(entry.stat(), entry) for entry in folder.iterdir() if entry.is_file()]
    total = sum(status.st_size for status, _ in entries)
    for status, entry in sorted(entries, key=lambda pair: pair[0].st_mtime):
        if total <= _MOST:
            return
        entry.unlink(missing_ok=True)
        total -= status.st_size
