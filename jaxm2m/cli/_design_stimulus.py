"""What a navigator and an EMG say of stimuli, as far as it has been read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, eq=False)
class Stimulus:
    """What a navigator and an EMG recorded of a stimulus.

    Attributes
    ----------
    key
        What tells it from the others of its export.
    name
        What the navigator calls it.
    pose
        (4, 4) coil frame to world, mm, NaN where there is no position.
    intensity, didt
        %MSO and A/s, NaN where not recorded.
    meps
        (n_muscle,) uV, NaN where one is missing or flagged; None: the table of MEPs is behind.
    """

    key: str
    name: str
    pose: "np.ndarray"
    intensity: float
    didt: float
    meps: "np.ndarray | None"

    @property
    def located(self) -> bool:
        """Whether the navigator saw the coil."""
        import numpy as np

        return bool(np.isfinite(self.pose).all())

    def pack(self) -> dict[str, Any]:
        """Make what JSON can hold."""
        return {
            "key": self.key,
            "name": self.name,
            "pose": _pack(self.pose.ravel()),
            "intensity": _pack([self.intensity])[0],
            "didt": _pack([self.didt])[0],
            "meps": None if self.meps is None else _pack(self.meps),
        }

    @classmethod
    def unpack(cls, content: dict[str, Any]) -> "Stimulus":
        """Read what `pack` made."""
        meps = content["meps"]
        return cls(
            str(content["key"]), str(content["name"]), _unpack(content["pose"]).reshape(4, 4),
            float(_unpack([content["intensity"]])[0]), float(_unpack([content["didt"]])[0]),
            None if meps is None else _unpack(meps),
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Export:
    """What an export holds so far.

    Attributes
    ----------
    stimuli
        In the order of the file.
    space, source_space
        As in `Session`; "" while there is no stimulus.
    channels
        Of the EMG, those with any value.
    remarks
        What the reader warned of.
    is_cut
        Whether the file ends in the middle of something, which was not read.
    """

    stimuli: tuple[Stimulus, ...] = ()
    space: str = ""
    source_space: str = ""
    channels: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    is_cut: bool = False


@dataclass(frozen=True, eq=False)
class MepTable:
    """MEPs of a growing table: (n, n_muscle) uV, NaN where flagged, and the names of stimuli where it has them."""

    muscles: tuple[str, ...]
    amplitude: "np.ndarray"
    names: tuple[str, ...] | None


@dataclass(frozen=True, eq=False)
class News:
    """New stimuli in the order of the export, how many wait for their MEPs, and what is to be said."""

    stimuli: tuple[Stimulus, ...]
    waiting: int
    remarks: tuple[str, ...] = ()


def _pack(values: Any) -> list[float | None]:
    return [float(value) if value == value else None for value in values]


def _unpack(values: Sequence[float | None]) -> "np.ndarray":
    import numpy as np

    return np.array([np.nan if value is None else value for value in values], np.float64)
