"""Many items to one HDF5 file, in a way that survives being killed.

An HDF5 file that is open for writing is broken by a kill. So each few items become a small HDF5 file of their own in
the folder `<path>.parts`, which is whole or not there (written beside, synced, renamed), together with `run.json`,
which says what the run was begun with. When the last part is there, all are brought into one file, which is renamed
to `path`, and the folder goes.

The processes of `jax.distributed` share the parts among them; the first one alone begins and ends the run, and holds
its lock.
"""

import contextlib
import errno
import io
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import jax

from jaxm2m import _check
from jaxm2m._processes import agree, broadcast, end_all_on_failure
from jaxm2m._progress import Advance, progress_bar
from jaxm2m._types import PathLike
from jaxm2m.files._atomic import _sync_folder, atomic
from jaxm2m.files._fingerprint import fingerprint
from jaxm2m.files._hdf5 import Hdf5, decode_text, open_hdf5
from jaxm2m.files._json import read_json
from jaxm2m.files._lock import lock
from jaxm2m.files._settings import Settings, describe_differences, parse_settings, read_settings

_LONGEST_DELAY = 60.0  # seconds after which a file that another machine wrote is seen by this one


@dataclass(frozen=True)
class Parts:
    """A run that stores its items in parts; `open_parts` begins or continues it.

    Attributes
    ----------
    path
        The file that it ends with.
    settings
        All that the numbers depend on.
    batch_size, size, count
        Number of items computed at once, in a part, and in all.
    unit
        What an item is, in the plural.
    finished
        Whether `path` was there when the run was opened: then there is nothing left to do.
    """

    path: Path
    settings: Settings
    batch_size: int
    size: int
    count: int
    unit: str
    finished: bool = False

    @property
    def indices(self) -> range:
        """Indices of the parts."""
        return range(-(-self.count // self.size))

    def items(self, index: int) -> slice:
        """Return the items of a part.

        Parameters
        ----------
        index
            Of the part.

        Returns
        -------
        slice
            Of the items.
        """
        return slice(index * self.size, min((index + 1) * self.size, self.count))

    @property
    def missing(self) -> list[int]:
        """Indices of the parts that are now not on the disk, or damaged."""
        return [i for i in self.indices if not self._is_whole(i)]

    def share(self) -> list[int]:
        """Return the indices of the missing parts that this process is to store; each is the share of one process.

        All processes call it.

        Returns
        -------
        list of int
            Indices; the n-th of N processes takes every N-th.
        """
        return broadcast(self.missing)[jax.process_index() :: jax.process_count()]

    @contextlib.contextmanager
    def report_progress(self, label: str, share: list[int], enabled: bool | None = None) -> Iterator[Advance]:
        """Show a bar over the items that this process computes and those that were stored before.

        Parameters
        ----------
        label
            What is being done, in two or three words.
        share
            What `share` returned.
        enabled
            Whether the bar is shown, by the first process alone; by default on a terminal only.

        Yields
        ------
        callable
            `advance(count)`: so many more items are done.
        """
        left, n = sum(_count(self.items(i)) for i in share), jax.process_count()
        total = self.count if n == 1 else left
        if n > 1:
            label += f", share of process 1 of {n}"
        if len(self.missing) < len(self.indices):
            label += " (continued)"
        enabled = enabled if jax.process_index() == 0 else False
        with progress_bar(total, label, unit=self.unit, enabled=enabled) as advance:
            advance(total - left)
            yield advance

    def wait(self) -> bool:
        """Wait until all processes have stored their shares, and say whether this one is to `finish` the run.

        Returns
        -------
        bool
            Whether this is the first process. Leaving the block of `open_parts`, the others wait for it.

        Raises
        ------
        RuntimeError
            Another process failed, or what it stored is not on the disk of this one.
        """
        agree()
        if jax.process_index():
            return False
        if not _wait_until(lambda: not self.missing):
            raise RuntimeError(
                f"path: {len(self.missing)} of {len(self.indices)} parts are not in {self.folder}; give all processes "
                "the same input, and a path on a disk that all of them share."
            )
        return True

    @property
    def stored(self) -> int:
        """Number of items that are on the disk now."""
        names = (file.stem for file in self.folder.glob("*.h5"))
        there = sorted(int(name) for name in names if name.isdecimal() and name.isascii() and len(name) < 12)
        return sum(_count(self.items(i)) for i in there if i in self.indices and self._is_whole(i))

    @property
    def kept(self) -> str:
        """`count_stored` in words, for the message of an error: "2 of 5 poses are kept"."""
        return f"{self.stored} of {self.count} {self.unit} are kept"

    @contextlib.contextmanager
    def store(self, index: int) -> Iterator[h5py.File]:
        """Write a part: the block fills the file, which is on the disk as a whole when the block has ended.

        Nothing is left of a block that raises. A part that is there is replaced. May be called from another thread.

        Parameters
        ----------
        index
            Of the part.

        Yields
        ------
        h5py.File
            The file to fill.

        Raises
        ------
        OSError
            The disk is full; the message says how many items are kept.
        """
        memory = io.BytesIO()  # a full disk then is an error of a plain file; in the middle of HDF5's own it is a mess
        with h5py.File(memory, "w") as file:
            file.attrs["run"] = self._fingerprint()
            yield file
        with self._explain_full_disk(), atomic(self.file(index)) as temporary:
            temporary.write_bytes(memory.getbuffer())

    def open(self, index: int) -> h5py.File:
        """Open a part that is there, to read; use it in a `with` block.

        Parameters
        ----------
        index
            Of the part.

        Returns
        -------
        h5py.File
            Open for reading.
        """
        return Hdf5(self.file(index), f"path: {self.file(index)}")

    def check_room(self, index: int) -> None:
        """Raise an error now, not in an hour, where the disk is too small for the rest and for the file itself.

        Parameters
        ----------
        index
            Of a part that is there, to judge the others' size by.

        Raises
        ------
        OSError
            The disk will be full.
        """
        need = self.file(index).stat().st_size * (len(self.missing) + len(self.indices))
        free = shutil.disk_usage(self.folder).free
        if free < need:
            raise OSError(
                f"path: {self.count} {self.unit} need about {need / 2**30:.2f} GB more on the disk of {self.path}, "
                f"which has {free / 2**30:.2f} GB free; make room and repeat the call, or choose another path."
            )

    @contextlib.contextmanager
    def finish(self) -> Iterator[h5py.File]:
        """Bring the parts into one file: the block fills it.

        When the block has ended, it gets the attribute `settings` (`read_settings`), is renamed to `path`, and the
        parts are removed. When it raises, the parts stay and there is no `path`.

        Yields
        ------
        h5py.File
            The file to fill.

        Raises
        ------
        OSError
            The disk is full, or has no room for as much as the parts hold; the message says what is kept.
        """
        complete = self.folder / "complete.h5"
        with self._explain_full_disk():
            size = sum(self.file(i).stat().st_size for i in self.indices)
            if shutil.disk_usage(self.folder).free < size + (1 << 20):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            with atomic(complete) as temporary, h5py.File(temporary, "w") as file:
                yield file
                file.attrs["settings"] = json.dumps(self.settings)
            os.replace(complete, self.path)
            _sync_folder(self.path.parent)
        self.remove()

    def remove(self) -> None:
        """Remove the parts."""
        leftovers = [*self.folder.glob(".*~*"), *map(self.file, self.indices), self.folder / "run.json"]
        for leftover in leftovers:
            leftover.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # somebody else's file in it
            self.folder.rmdir()

    @property
    def folder(self) -> Path:
        """The folder of the parts."""
        return _folder(self.path)

    def file(self, index: int) -> Path:
        """Return the file of a part.

        Parameters
        ----------
        index
            Of the part.

        Returns
        -------
        Path
            It may not exist yet.
        """
        return self.folder / f"{index:06d}.h5"

    def _fingerprint(self) -> str:
        # with the key of version 0.1, so that its parts are recognised
        entries = {name: {"is" if k == "value" else k: v for k, v in e.items()} for name, e in self.settings.items()}
        return fingerprint(entries, self.batch_size, self.size)

    def _is_whole(self, index: int) -> bool:
        """Whether a part is there and belongs to this run."""
        try:
            with self.open(index) as file:
                return decode_text(file.attrs["run"]) == self._fingerprint()
        except (OSError, RuntimeError, KeyError, TypeError, ValueError):  # h5py raises all of them on a damaged file
            return False

    @contextlib.contextmanager
    def _explain_full_disk(self) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError) as error:
            # HDF5 reports it in words only
            full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            if not full and "o space left" not in str(error) and "errno = 28" not in str(error):
                raise
            raise OSError(
                f"path: no space left on the disk of {self.path}; {self.kept}: make room and repeat the call, which "
                "goes on from there."
            ) from error


@contextlib.contextmanager
def open_parts(
    path: PathLike,
    settings: Settings,
    *,
    count: int,
    size: int,
    batch_size: int = 1,
    unit: str,
    content: str,
) -> Iterator[Parts]:
    """Begin or continue a run that computes `count` items into the HDF5 file `path`, and hold its lock.

        with open_parts(path, settings, count=300, size=8, unit="modes", content="basis") as run:
            if not run.finished:
                for i in run.share():
                    with run.store(i) as part:
                        part["e"] = compute(run.items(i))
                if run.wait():
                    with run.finish() as file:
                        ...

    It may be killed at any instant: whole parts stay, and the same call goes on from there. All processes of
    `jax.distributed` make the same call.

    Parameters
    ----------
    path
        Ends in `.h5` or `.hdf5`; its folder exists.
    settings
        All that the numbers depend on: a name and an entry of `make_setting` each.
    count
        Number of items in all.
    size, batch_size
        Number of items in a part, and of items computed at once, in a new run. A run that goes on keeps its own, since
        numbers can depend on them: use `run.size` and `run.batch_size`.
    unit, content
        For messages: what an item is, in the plural ("poses"), and what the file holds ("fields of
        efield.compute_fields").

    Yields
    ------
    Parts
        If it is `finished`, `path` is complete, of the same settings, and no part is left.

    Raises
    ------
    ValueError
        `path`, or its unfinished run, was begun with other settings: what differs is named.
    FileExistsError
        Something else is there.
    RuntimeError
        Another run writes to `path`, or another process of this one failed.
    """
    for name, number in (("count", count), ("size", size), ("batch_size", batch_size)):
        _check.integer(number, name)
    run = Parts(check_output(path), settings, batch_size, size, count, unit)
    with contextlib.ExitStack() as stack:
        with end_all_on_failure():
            if jax.process_index() == 0:
                stack.enter_context(lock(run.path))
                run = _open(run, content)
        how = broadcast({"batch_size": run.batch_size, "size": run.size, "finished": run.finished})
        run = replace(run, **how)
        with end_all_on_failure():
            if not run.finished and not _wait_until((run.folder / "run.json").exists):
                raise RuntimeError(
                    f"path: what the first process began is not in {run.folder}; give all processes the same path, on "
                    "a disk that all of them share."
                )
        # from here on a failure elsewhere is met by `wait`, or at the end
        with end_all_on_failure():
            yield run


def count_stored(path: PathLike) -> int:
    """Count the items that an unfinished run has stored.

    Parameters
    ----------
    path
        The file that the run ends with.

    Returns
    -------
    int
        0 where there is no unfinished run.
    """
    run = _find_unfinished(Path(path).expanduser())
    return 0 if run is None else run.stored


def check_output(path: PathLike) -> Path:
    """Check that an HDF5 file can be written to a path; call it before long work.

    Parameters
    ----------
    path
        Ends in `.h5` or `.hdf5`; its folder exists.

    Returns
    -------
    Path
        The same.

    Raises
    ------
    ValueError
        Another suffix.
    OSError
        No such folder, one that cannot be written to, or `path` is a folder.
    """
    path = Path(path).expanduser()
    if path.suffix.lower() not in (".h5", ".hdf5"):
        raise ValueError(f"path: {path} does not end in .h5; name an HDF5 file.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"path: the folder {path.parent} does not exist; make it first.")
    if path.is_dir():
        raise IsADirectoryError(f"path: {path} is a folder; name a file in it.")
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"path: the folder {path.parent} cannot be written to; choose another one.")
    return path


def _wait_until(is_there: Callable[[], bool]) -> bool:
    """Whether something is there at last, which another machine may have written."""
    late = time.monotonic() + _LONGEST_DELAY
    while not is_there():
        if jax.process_count() == 1 or time.monotonic() > late:
            return False
        time.sleep(0.1)
    return True


def _open(new: Parts, content: str) -> Parts:
    """The run as it is on the disk, begun where there is none."""
    if not new.path.exists():
        return _begin(new)
    _refuse_other(_read_settings_of(new.path, content), new.settings, new.path, f"delete {new.path.name}")
    left = _find_unfinished(new.path)
    if left is not None:
        left.remove()
    return replace(new, finished=True)


def _begin(new: Parts) -> Parts:
    """The run that the folder of parts holds, or the new one."""
    folder = new.folder
    remedy = f"delete the folder {folder.name}"
    run = _find_unfinished(new.path, new.unit)
    if run is not None:
        _refuse_other(run.settings, new.settings, new.path, remedy)
        if run.count != new.count:
            raise ValueError(f"path: {new.path} was begun with {run.count} {new.unit}, not {new.count}; {remedy}.")
        for leftover in folder.glob(".*~*"):  # what a killed writer left; nobody else holds the lock
            leftover.unlink(missing_ok=True)
        return run
    if folder.exists() and any(folder.iterdir()):
        ours = [f for f in folder.iterdir() if "~run.json" in f.name]
        if len(ours) < len(list(folder.iterdir())):
            raise FileExistsError(
                f"path: {folder} exists and holds no unfinished run; {remedy}, or choose another path."
            )
        for leftover in ours:
            leftover.unlink()
    folder.mkdir(exist_ok=True)
    record: dict[str, Any] = {"settings": new.settings, "batch": new.batch_size, "part": new.size, "total": new.count}
    with atomic(folder / "run.json") as temporary:
        temporary.write_text(json.dumps(record, indent=1))
    return new


def _find_unfinished(path: Path, unit: str = "items") -> Parts | None:
    try:
        record = read_json(_folder(path) / "run.json")
        batch_size, size, count = (_check.integer(record[key], key) for key in ("batch", "part", "total"))
        run = Parts(path, parse_settings(record["settings"]), batch_size, size, count, unit)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return run


def _read_settings_of(path: Path, content: str) -> Settings:
    try:
        with open_hdf5(path, limit=1 << 60) as file:  # its size is no matter: one attribute is read
            return read_settings(file)
    except ValueError:
        raise FileExistsError(
            f"path: {path} exists and holds no {content}; choose another path, or move it away."
        ) from None


def _refuse_other(then: Settings, now: Settings, path: Path, remedy: str) -> None:
    different = describe_differences(then, now)
    if different:
        raise ValueError(
            f"path: {path} was begun with another {different}; repeat the call with what it was begun with, choose "
            f"another path, or {remedy}."
        )


def _folder(path: Path) -> Path:
    return path.with_name(path.name + ".parts")


def _count(where: slice) -> int:
    return where.stop - where.start
