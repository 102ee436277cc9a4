"""The demo's stages: what runs, what it said, and how long the rest will take."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from jaxm2m._progress import tell_stage


class Stages:
    """Tells which stage runs, how long all will take still, and what each has found."""

    def __init__(self, expected: dict[str, float | int]) -> None:
        from rich.console import Console

        self.seconds: dict[str, float] = {}
        self._expected = expected
        self._console = Console(highlight=False)
        self._began = time.perf_counter()

    @contextmanager
    def __call__(self, name: str) -> Iterator[list[str]]:
        """A stage; what is put into the list is told at its end."""
        said: list[str] = []
        place = list(self._expected).index(name) + 1
        self._print(f"[{place:>2}/{len(self._expected)}] {name} ...  {self._estimate_left()}".rstrip())
        start = time.perf_counter()
        yield said
        self.seconds[name] = time.perf_counter() - start
        self._print(f"        {self.seconds[name]:.1f} s  {'; '.join(said)}")

    @property
    def total(self) -> float:
        """Seconds since the beginning."""
        return time.perf_counter() - self._began

    def _estimate_left(self) -> str:
        """What is expected of the stages to come, at the pace of those that are done."""
        done = sum(self._expected[name] for name in self.seconds)
        pace = (10 + sum(self.seconds.values())) / (10 + done)  # a stage that is there from before tells little
        left = (sum(self._expected.values()) - done) * pace
        return f"about {left / 60:.0f} min left" if left > 90 else f"about {10 * max(1, round(left / 10))} s left"

    def _print(self, text: str) -> None:
        tell_stage(text.strip())
        self._console.print(text, soft_wrap=True, markup=False)
