"""The directory of a run: what it was begun with, its history, its checkpoints, one writer."""

import contextlib
import errno
import json
import math
import os
import platform
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax

from jaxm2m._types import PathLike
from jaxm2m.files import Settings, atomic, describe_differences, lock, parse_json, parse_settings, read_json

_FORMAT = 1
_ENTRIES: dict[str, Any] = {"config": dict, "sessions": list, "plan": (dict, type(None)), "stopped": str}
_CONFIG: dict[str, Any] = {"model": dict, "hyper": list, "members": int, "notes": dict}
_PACKAGES = ("jaxm2m", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


class RunDirectory:
    """`run.json`, `history.jsonl` and `checkpoints/`, held by a lock; `open_run_directory` opens it.

    Attributes
    ----------
    path
        The directory.
    plan
        How members are stepped, as the run was begun; None in a new run.
    """

    def __init__(self, path: Path, record: dict[str, Any]):
        self.path = path
        self._record = record

    @property
    def plan(self) -> dict[str, Any] | None:
        """How members are stepped, as the run was begun; None in a new run."""
        return self._record["plan"]

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    def begin(self, plan: dict[str, Any]) -> None:
        """Note how members are stepped, and what runs it now."""
        versions = _collect_versions()
        sessions = self._record["sessions"]
        if sessions and sessions[-1]["versions"] != versions:
            then = sessions[-1]["versions"]
            changed = [f"{n} {then.get(n)} then, {versions[n]} now" for n in versions if then.get(n) != versions[n]]
            warnings.warn(
                f"directory: {self.path} goes on with other packages ({', '.join(changed)}); its numbers may differ "
                "from those of an uninterrupted run.",
                stacklevel=5,
            )
        devices = [f"{d.platform}:{d.id} {d.device_kind}" for d in jax.devices()]
        session = {"versions": versions, "devices": devices}
        if not sessions or sessions[-1] != session:
            sessions.append(session)
        self._record |= {"plan": plan, "stopped": "unfinished"}
        self._write()

    def end(self, stopped: str) -> None:
        """Note why the run has ended."""
        self._record["stopped"] = stopped
        self._write()

    def _write(self) -> None:
        with atomic(self.path / "run.json") as temporary:
            temporary.write_text(json.dumps(self._record, indent=1))

    def read_history(self) -> list[dict[str, Any]]:
        """Read the rows on the disk; a last one that a kill cut short is left out."""
        return read_history(self.path)

    def cut_history(self, rows: list[dict[str, Any]]) -> None:
        """Replace the history by `rows`."""
        with atomic(self._history) as temporary:
            temporary.write_text("".join(map(_format_row, rows)))

    def add_history(self, rows: list[dict[str, Any]]) -> None:
        """Append `rows`."""
        with open(self._history, "a", encoding="utf-8") as file:
            file.write("".join(map(_format_row, rows)))
            file.flush()
            os.fsync(file.fileno())

    @property
    def _history(self) -> Path:
        return self.path / "history.jsonl"


@contextlib.contextmanager
def open_run_directory(path: PathLike, settings: Settings, config: dict[str, Any]) -> Iterator[RunDirectory]:
    """Make the directory of a run or find it, and hold its lock.

    Parameters
    ----------
    path
        A new or empty directory, or one that the same run was begun in.
    settings
        All that the results depend on.
    config
        The same for people and for loading: JSON.

    Yields
    ------
    RunDirectory
        The directory, locked.

    Raises
    ------
    ValueError
        A run was begun there with other settings: what differs is named; or by another version's format.
    FileExistsError
        Something else is there.
    RuntimeError
        Another process writes there.
    OSError
        It cannot be made or written to.
    """
    path = Path(path).expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise FileExistsError(f"directory: {path} is a file, or lies below one; name a directory.") from None
    except OSError as error:
        raise type(error)(f"directory: {path} cannot be made ({error.strerror}); choose another one.") from None
    ours = {".lock", "history.jsonl", "checkpoints", "tensorboard"}
    others = [f.name for f in path.iterdir() if f.name not in ours and "~" not in f.name]
    if "run.json" not in others and others:
        raise FileExistsError(
            f"directory: {path} holds no run, but {', '.join(sorted(others)[:3])}; choose a new directory, or empty it."
        )
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lock(path))
        except OSError as error:
            raise type(error)(
                f"directory: {path} cannot be written to ({error.strerror}); choose another one."
            ) from None
        if (path / "run.json").exists():
            record = read_record(path)
            different = describe_differences(record["settings"], settings)
            if different:
                raise ValueError(
                    f"directory: the run in {path} was begun with another {different}; repeat the call with what it "
                    "was begun with, or choose another directory."
                )
        elif (path / "history.jsonl").exists() or any((path / "checkpoints").glob("[0-9]*")):
            raise FileExistsError(
                f"directory: {path} holds checkpoints or a history, but no run.json that tells of what; bring it back, "
                "or choose another directory."
            )
        else:
            record = {"format": _FORMAT, "settings": settings, "config": config, "plan": None, "sessions": []}
        for leftover in path.glob(".*~*"):  # what a killed writer left; nobody else holds the lock
            leftover.unlink(missing_ok=True)
        yield RunDirectory(path, record)


def read_record(path: Path) -> dict[str, Any]:
    """Read `run.json` of a directory.

    Raises
    ------
    FileNotFoundError
        There is none.
    ValueError
        Another version wrote it, or it is damaged.
    """
    place = path / "run.json"
    if not place.exists():
        raise FileNotFoundError(f"directory: {path} holds no run (no run.json); name the directory of a run.")
    try:
        record = read_json(place)
        format_number = record["format"]
        if format_number == _FORMAT:
            record["settings"] = parse_settings(record["settings"])
            _check_kinds(record, _ENTRIES)
            for session in record["sessions"]:
                _check_kinds(session, {"versions": dict, "devices": list})
            return record
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"directory: {place} is damaged, or not of this package; choose another directory.") from None
    raise ValueError(
        f"directory: {path} has format {str(format_number)[:20]}, this version of jaxm2m reads format {_FORMAT}; go on "
        "with the version that began it, or choose another directory."
    )


def read_run_config(path: Path) -> dict[str, Any]:
    """Read `config` in `run.json`, as training and loading need it; errors as `read_record`."""
    config = read_record(path)["config"]
    try:
        _check_kinds(config, _CONFIG)
        if config["members"] < 1 or not all(isinstance(name, str) for name in config["hyper"]):
            raise TypeError("members or hyper")
    except (KeyError, TypeError) as error:
        place = path / "run.json"
        raise ValueError(f"directory: {place} is damaged (config: {error}); choose another directory.") from None
    return config


def _check_kinds(entries: Any, kinds: dict[str, Any]) -> None:
    for name, kind in kinds.items():
        if not isinstance(entries[name], kind) or isinstance(entries[name], bool):
            raise TypeError(name)


def read_history(path: Path) -> list[dict[str, Any]]:
    """Read the rows of `history.jsonl`: one for each member and generation."""
    place = path / "history.jsonl"
    try:
        lines = place.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    rows = []
    for number, line in enumerate(lines, start=1):
        where = f"directory: {place}, line {number},"
        try:
            row = parse_json(line, where)
        except ValueError:
            if not any(lines[number:]):  # empty, or cut short by a kill
                break
            raise
        if not isinstance(row, dict) or not isinstance(row.get("generation"), int):
            raise ValueError(f"{where} is no row of a history; bring the file back, or choose another directory.")
        rows.append({name: math.nan if value is None else value for name, value in row.items()})
    return rows


def _format_row(row: dict[str, Any]) -> str:
    # NaN is no JSON, and infinity is only as a number that is too large
    clean = {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}
    return json.dumps(clean).replace(": Infinity", ": 1e999").replace(": -Infinity", ": -1e999") + "\n"


@contextlib.contextmanager
def explain_full_disk(path: Path, checkpoints: Callable[[], list[int]]) -> Iterator[None]:
    """Explain a full disk by the run and the last of its `checkpoints`; other errors stay as they are."""
    try:
        yield
    except Exception as error:
        if not _is_disk_full(error):
            raise
        kept = checkpoints()
        last = f"checkpoint {kept[-1]} is kept" if kept else "no checkpoint is kept yet"
        raise OSError(
            errno.ENOSPC,
            f"directory: no space left on the disk of {path}; {last}: make room and repeat the call, which goes on "
            "from there",
        ) from error


def _is_disk_full(error: BaseException) -> bool:
    """Whether a full disk is among the causes; errors of the C++ below say so in words only."""
    words = ("o space left", "ENOSPC", "isk quota", "File too large")
    seen: BaseException | None = error
    while seen is not None:
        if getattr(seen, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return True
        if any(word in str(seen) for word in words):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _collect_versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions
