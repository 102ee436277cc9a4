"""One progress bar: how many, how fast, how long still; lines in its place where a command writes into a log."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable


@runtime_checkable
class Advance(Protocol):
    """What `progress_bar` yields: call it with the number of finished items, and with what is reached by them."""

    def __call__(self, count: int = 1, note: str = "", /) -> None: ...


@contextmanager
def progress_bar(total: int | None, label: str, *, unit: str = "", enabled: bool | None = None) -> Iterator[Advance]:
    """Show a bar on standard error while the block runs.

    Parameters
    ----------
    total : int or None
        Number of items; None if it is not known.
    label : str
        What is being done, in two or three words.
    unit : str
        What is counted ("poses").
    enabled : bool or None
        None shows the bar on a terminal only.

    Yields
    ------
    callable
        `advance(count=1, note="")`: so many more items are done; a note takes the place of the one before.
    """
    if enabled is None and _log is not None and not sys.stderr.isatty():
        with _log.count(total, label, unit) as advance:
            yield advance
        return
    if enabled is None:
        enabled = sys.stderr.isatty()
    if not enabled:
        yield lambda count=1, note="", /: None
        return

    # rich costs a tenth of a second to import
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            if not speed:
                return Text("")
            return Text(f"{speed:.1f} {unit}/s" if speed >= 1 else f"{1 / speed:.1f} s each")

    description, note = (TextColumn(field, markup=False) for field in ("{task.description}", "{task.fields[note]}"))
    columns = (description, BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn(), note)
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=total, note="")

        def advance(count: int = 1, note: str = "", /) -> None:
            bar.advance(task, count)
            if note:
                bar.update(task, note=note)

        yield advance


class _Counter:
    """What a log's lines tell of one bar."""

    def __init__(self, total: int | None, label: str, unit: str):
        self.total, self.label, self.unit = total, label, unit
        self.start, self.done, self.note = time.monotonic(), 0, ""

    def __call__(self, count: int = 1, note: str = "", /) -> None:
        self.done += count
        self.note = note or self.note

    def line(self, now: float) -> str:
        elapsed = now - self.start
        text = f"{self.label}: {self.done}{'' if self.total is None else f' of {self.total}'} {self.unit}".rstrip()
        if self.total and 0 < self.done < self.total:
            text += f", about {_duration(elapsed / self.done * (self.total - self.done))} left"
        return f"... {text} after {_duration(elapsed)}{f'; {self.note}' if self.note else ''}"


class _Log:
    """Lines that say what a command is doing, whenever it has said nothing for a while."""

    def __init__(self, write: Callable[[str], None], every: float):
        self.write, self.every = write, every
        self.stage, self.since, self.last = "", time.monotonic(), time.monotonic()
        self.counters: list[_Counter] = []
        self.over = threading.Event()

    @contextmanager
    def count(self, total: int | None, label: str, unit: str) -> Iterator[Advance]:
        counter = _Counter(total, label, unit)
        self.counters.append(counter)
        try:
            yield counter
        finally:
            self.counters.remove(counter)

    def run(self) -> None:
        while not self.over.wait(max(0.05, self.last + self.every - time.monotonic())):
            now = time.monotonic()
            if now - self.last < self.every:
                continue
            counters = self.counters[-1:]
            self.write(counters[0].line(now) if counters else f"... {_duration(now - self.since)} at: {self.stage}")
            self.last = now


_log: _Log | None = None


@contextmanager
def log_lines(command: str, write: Callable[[str], None], every: float = 8.0) -> Iterator[None]:
    """Write a line at least every so many seconds while the block runs, where standard error is no terminal.

    Parameters
    ----------
    command : str
        What is being done as long as `tell_stage` has said nothing.
    write : callable
        Takes a line. It is called in a thread of its own.
    every : float
        s without a line after which one is written.
    """
    global _log
    if sys.stderr.isatty() or _log is not None:
        yield
        return
    _log = _Log(write, every)
    _log.stage = command
    thread = threading.Thread(target=_log.run, name="jaxm2m log", daemon=True)
    thread.start()
    try:
        yield
    finally:
        _log.over.set()
        thread.join()
        _log = None


def tell_stage(text: str) -> None:
    """Tell a log that is being written what was just said, so that it waits, and then repeats it."""
    if _log is not None:
        _log.stage, _log.since = text, time.monotonic()
        _log.last = _log.since


def _duration(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 100
        else f"{seconds / 60:.0f} min"
        if seconds < 6000
        else f"{seconds / 3600:.1f} h"
    )
