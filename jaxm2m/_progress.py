"""One progress bar: how many, how fast, how long still. Silent where nobody watches."""

import sys
from collections.abc import Iterator
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
