"""A recorded session: where the coil was, how strong, what the muscles answered."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from jaxm2m import _check
from jaxm2m.files import fingerprint


@dataclass(frozen=True, eq=False, repr=False)
class Session:
    """Targets and samples (stimuli) of one neuronavigation export; one row each.

    Dates, names of persons and of recording sessions, and comments are never read into it.

    Attributes
    ----------
    poses : (n, 4, 4) float array
        Coil poses, mm, "matsimnibs" convention (columns x, y along the handle's prolongation, z into the head, centre);
        NaN in rows without a position.
    space : str
        The coordinate space of `poses`: "subject" (the world of the subject's image), "MNI152" or "Talairach".
    source_space : str
        What the file called its space.
    names : tuple of str
        The labels of the markers.
    kind : tuple of str
        "target" or "sample".
    target : tuple of str
        The label of the target that a sample belongs to; "" where there is none.
    time : (n,) float array
        Seconds since the first sample (Brainsight) or the start of the recording (Localite); NaN for targets.
    intensity : (n,) float array
        Percent of the maximum stimulator output (%MSO), NaN where not recorded.
    didt : (n,) float array
        dI/dt, A/s, NaN where not recorded.
    channels : tuple of str
        Names of the EMG channels.
    meps : (n, n_channel) float array
        Peak-to-peak amplitudes, uV, NaN where not recorded.
    mep_latency : (n, n_channel) float array
        s, NaN where not recorded.
    emg : (n, n_channel, n_time) float array
        Waveforms, uV, NaN where not recorded; no samples (n_time = 0) where the file has none.
    sfreq : float
        Samples of `emg` a second, Hz; NaN where it has none.
    emg_start : float
        Time of the first sample of `emg` after the stimulus, s; NaN where not recorded.
    """

    poses: Float[np.ndarray, "n 4 4"]
    space: str
    source_space: str
    names: tuple[str, ...]
    kind: tuple[str, ...]
    target: tuple[str, ...]
    time: Float[np.ndarray, " n"]
    intensity: Float[np.ndarray, " n"]
    didt: Float[np.ndarray, " n"]
    channels: tuple[str, ...]
    meps: Float[np.ndarray, "n n_channel"]
    mep_latency: Float[np.ndarray, "n n_channel"]
    emg: Float[np.ndarray, "n n_channel n_time"]
    sfreq: float = float("nan")
    emg_start: float = float("nan")

    def __len__(self) -> int:
        return len(self.poses)

    def __repr__(self) -> str:
        n_target = self.kind.count("target")
        return (
            f"Session({len(self) - n_target} samples, {n_target} targets, {int(self.located.sum())} with a position, "
            f"{len(self.channels)} EMG channels, space={self.space!r})"
        )

    @property
    def located(self) -> Bool[np.ndarray, " n"]:
        """Which rows (n,) have a position."""
        return np.asarray(np.isfinite(self.poses).all(axis=(1, 2)))

    @property
    def samples(self) -> "Session":
        """The stimuli alone."""
        return self.pick(kind="sample")

    @property
    def targets(self) -> "Session":
        """The planned targets alone."""
        return self.pick(kind="target")

    def pick(
        self,
        where: np.ndarray | slice | Sequence[int] | None = None,
        *,
        kind: str | None = None,
        located: bool | None = None,
    ) -> "Session":
        """Select rows.

        Parameters
        ----------
        where : mask, slice or indices, optional
            Which rows, as a mask (n,), a slice or indices; those that also satisfy the other arguments stay.
        kind : "target" or "sample", optional
            Rows of this kind.
        located : bool, optional
            Rows with (True) or without (False) a position.

        Returns
        -------
        Session
            These rows.
        """
        rows = np.arange(len(self))
        if where is not None:
            rows = rows[where if isinstance(where, slice) else np.asarray(where)]
        if kind is not None:
            _check.option(kind, ("target", "sample"), "kind")
            rows = rows[np.array([self.kind[i] == kind for i in rows], dtype=bool)]
        if located is not None:
            rows = rows[self.located[rows] == located]
        part: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                part[field.name] = value[rows]
            elif field.name in ("names", "kind", "target"):
                part[field.name] = tuple(value[i] for i in rows)
        return replace(self, **part)

    def table(self) -> pd.DataFrame:
        """Make a table with a row for each target or sample.

        Returns
        -------
        pandas.DataFrame
            Columns name, kind, target, time_s (s), intensity_mso (% MSO), didt (A/s), x, y, z (mm), then for each
            channel mep_..._uv (uV) and latency_..._s (s).
        """
        columns: dict[str, object] = {
            "name": self.names,
            "kind": self.kind,
            "target": self.target,
            "time_s": self.time,
            "intensity_mso": self.intensity,
            "didt": self.didt,
            "x": self.poses[:, 0, 3],
            "y": self.poses[:, 1, 3],
            "z": self.poses[:, 2, 3],
        }
        for k, channel in enumerate(self.channels):
            columns[f"mep_{channel}_uv"] = self.meps[:, k]
            columns[f"latency_{channel}_s"] = self.mep_latency[:, k]
        return pd.DataFrame(columns)

    def fingerprint(self) -> str:
        """Compute a checksum of the numbers; labels do not count.

        Returns
        -------
        str
            SHA-256, hexadecimal.
        """
        return fingerprint(
            self.poses, self.space, list(self.kind), self.time, self.intensity, self.didt, self.meps, self.mep_latency
        )
