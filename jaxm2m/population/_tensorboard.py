"""Scores, losses and hyperparameters for TensorBoard."""

import functools
import math
from pathlib import Path
from typing import Any


class Board:
    """Scalars of each generation, in a folder that `tensorboard --logdir` shows (needs the extra `tensorboard`)."""

    def __init__(self, folder: Path):
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise ImportError(
                "tensorboard: tensorboardX is not installed; pip install 'jaxm2m[tensorboard]', or leave it out."
            ) from None
        self._make = functools.partial(SummaryWriter, str(folder))
        self._writer: Any = None

    def __enter__(self) -> "Board":
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer:
            self._writer.close()

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Add the rows of a generation: a curve for each member, and the best and the median score."""
        step = rows[0]["step"]
        if not self._writer:
            # hide what a killed process showed of steps that are now repeated
            self._writer = self._make(purge_step=step)
        scores = sorted(row["score"] for row in rows if math.isfinite(row["score"]))
        self._writer.add_scalar("score/best", scores[0], step)
        self._writer.add_scalar("score/median", scores[len(scores) // 2], step)
        for row in rows:
            for name, value in row.items():
                if isinstance(value, float) and math.isfinite(value):
                    self._writer.add_scalar(f"{name}/member_{row['member']}", value, step)
        self._writer.flush()
