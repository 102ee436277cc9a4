"""What is new in an export that a navigator is still writing: each stimulus once, none guessed.

Pure: from the bytes of the files and the stimuli that were used so far to the new ones. Lines without an end and
markers without a closing tag are not read yet. A stimulus is told from others by when it was recorded, else by its
name, else by its place among the samples.
"""

import re
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxm2m.cli._design_stimulus import Export, MepTable, News, Stimulus

if TYPE_CHECKING:
    import numpy as np

_MOVED = 1e-3  # of a matrix' entries, mm or none: less is how a number was printed
_CLOSE = b"</TriggerMarkerList>"
_FIX = "restore what was there, or begin another session with another --out"


def read_export(
    data: bytes,
    path: Path,
    *,
    image: Path | None = None,
    channels: Sequence[str] | None = None,
    option: str = "--watch",
) -> Export:
    """Read what is whole of a Brainsight or Localite export.

    Parameters
    ----------
    data
        The file's bytes, whole or not.
    path
        For messages, and for its suffix.
    image
        As in `session.load`.
    channels
        Which of the export's EMG channels are the muscles, in their order; None: all with any value.
    option
        What messages call the file.

    Raises
    ------
    ValueError
        No such export, or one of targets alone.
    """
    import numpy as np

    import jaxm2m as jm

    whole = _keep_whole(data, path, option)
    if whole is None:
        return Export(is_cut=not data.endswith(b"\n"))
    is_cut = len(whole) != len(data)
    session, remarks = _load(lambda copy: jm.session.load(copy, image), whole, path, option)
    rows = session.samples
    if not len(rows):
        if "target" in session.kind and whole.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
            raise ValueError(f"{option}: {path} holds targets; give the stimuli, a TriggerMarkers_Coil*.xml.")
        return Export((), session.space, session.source_space, session.channels, remarks, is_cut)
    wanted = session.channels if channels is None else tuple(channels)
    unread = [name for k, name in enumerate(rows.channels) if name not in wanted and np.isfinite(rows.meps[:, k]).any()]
    if unread:
        remarks = (*remarks, f"the export's EMG channel {', '.join(unread)} is no muscle's and is not read")
    column = {name: k for k, name in enumerate(rows.channels)}
    meps = np.stack(
        [rows.meps[:, column[name]] if name in column else np.full(len(rows), np.nan) for name in wanted], -1
    ) if wanted else np.empty((len(rows), 0))  # fmt: skip
    stimuli = tuple(
        Stimulus(key, rows.names[i], rows.poses[i], float(rows.intensity[i]), float(rows.didt[i]), meps[i])
        for i, key in enumerate(_make_keys(rows.time, rows.names))
    )
    return Export(stimuli, session.space, session.source_space, session.channels, remarks, is_cut)


def read_table(data: bytes, path: Path, muscles: Sequence[str] | None = None, option: str = "--meps") -> MepTable:
    """Read the whole lines of a table of MEPs, with columns mep_FDI_uv, ... and, if it has one, `name`.

    Parameters
    ----------
    data
        The file's bytes, whole or not.
    path
        For messages.
    muscles
        Which, in their order; None: all.
    option
        What messages call the file.

    Raises
    ------
    ValueError
        No table of MEPs, a muscle that it lacks, two rows of the same name.
    """
    import numpy as np

    import jaxm2m as jm

    whole = data[: data.rfind(b"\n") + 1]
    if not whole.strip():
        return MepTable(tuple(muscles or ()), np.empty((0, len(muscles or ()))), None)
    meps, _ = _load(jm.muscle.Meps.load, whole, path, option)
    for name in muscles or ():
        if name not in meps.muscles:
            raise ValueError(f"{option}: {path} has no column mep_{name}_uv, only MEPs of {', '.join(meps.muscles)}.")
    if muscles is not None:
        meps = meps.pick(muscles=muscles)
    amplitude = np.where(meps.reasons == "", meps.amplitude, np.nan)
    return MepTable(meps.muscles, amplitude, _read_names(whole.decode("utf-8-sig"), path, option))


def add_meps(stimuli: Sequence[Stimulus], table: MepTable) -> tuple[Stimulus, ...]:
    """Give each stimulus its MEPs: by its name where the table and the navigator have names, else by its place."""
    names = [stimulus.name for stimulus in stimuli]
    if table.names is not None and all(names) and len(set(names)) == len(names):
        rows = {name: i for i, name in enumerate(table.names)}
        places = [rows.get(name) for name in names]
    else:
        places = [i if i < len(table.amplitude) else None for i in range(len(names))]
    return tuple(
        replace(stimulus, meps=None if place is None else table.amplitude[place])
        for stimulus, place in zip(stimuli, places, strict=True)
    )


def find_new(
    used: Sequence[Stimulus], stimuli: Sequence[Stimulus], *, settled: bool = True, option: str = "--watch"
) -> News:
    """Find the stimuli that were not used yet.

    Parameters
    ----------
    used
        All that were used, those without a position too.
    stimuli
        What the export holds, with MEPs.
    settled
        Whether the files have not changed for a while; until then the last stimulus waits if it has no MEP at all.
    option
        What messages call the export.

    Raises
    ------
    ValueError
        The export has fewer stimuli than were used, or one of these is gone or another than it was.
    """
    import numpy as np

    if len(stimuli) < len(used):
        raise ValueError(f"{option}: it holds {len(stimuli)} stimuli, and {len(used)} were used: it shrank; {_FIX}.")
    present = {stimulus.key: stimulus for stimulus in stimuli}
    late = []
    for number, before in enumerate(used, 1):
        now = present.get(before.key)
        change = "is gone" if now is None else _describe_change(before, now)
        if change:
            raise ValueError(f"{option}: stimulus {number} ({_describe(before)}) {change} since it was used; {_FIX}.")
        assert now is not None
        came = before.meps is not None and now.meps is not None and np.isnan(before.meps) & np.isfinite(now.meps)
        if np.any(came):
            late.append(f"an MEP of stimulus {number} ({_describe(before)}) came after it was used, and stays missed")
    known = {stimulus.key for stimulus in used}
    new = [stimulus for stimulus in stimuli if stimulus.key not in known]
    ready = [stimulus for stimulus in new if stimulus.meps is not None]
    if not settled and ready and ready[-1] is stimuli[-1] and _is_empty(ready[-1]):
        ready = ready[:-1]
    return News(tuple(ready), len(new) - len(ready), tuple(late))


def find_markers(path: Path, option: str = "--watch") -> Path | None:
    """Find the newest file of stimuli with positions in the folder of a Localite session; None while there is none.

    Localite writes a file for each coil and recording, with the time of the recording in its name.

    Raises
    ------
    ValueError
        Both coils have positions.
    """
    by_time: dict[str, list[Path]] = {}
    for file in path.rglob("TriggerMarkers_*.xml"):
        by_time.setdefault(file.stem.rpartition("_")[2], []).append(file)
    for time in sorted(by_time, reverse=True):
        files = sorted(by_time[time])
        seen = [f for f in files if any(s.located for s in read_export(f.read_bytes(), f, option=option).stimuli)]
        if len(seen) > 1:
            raise ValueError(f"{option}: both {' and '.join(f.name for f in seen)} have positions; name the one.")
        if seen:
            return seen[0]
    return None


def _keep_whole(data: bytes, path: Path, option: str) -> bytes | None:
    """What is whole of an export; None while it has nothing that could be read."""
    start = data.lstrip(b"\xef\xbb\xbf \t\r\n")
    if not start.startswith(b"<"):
        whole = data[: data.rfind(b"\n") + 1]
        begun = whole.strip() and not re.match(rb"#\s*Version:", start)
        if begun or (start and not start.startswith(b"#")):
            raise ValueError(f"{option}: {path} is no Brainsight text export and no Localite XML; name one of them.")
        return whole if re.search(rb"^#\s*Sample Name\t", whole, re.MULTILINE) else None
    if data.rstrip().endswith((_CLOSE, b"</InstrumentMarkerList>")):
        return data
    end = data.rfind(b"</TriggerMarker>")
    if end >= 0:
        return data[: end + len(b"</TriggerMarker>")] + b"\n" + _CLOSE + b"\n"
    # a root of another name is refused by the reader; one that has not come yet is waited for
    root = re.search(rb"<([A-Za-z][\w.-]*)[\s/>]", data)
    if root is None or root[1] in (b"TriggerMarkerList", b"InstrumentMarkerList"):
        return None
    raise ValueError(f"{option}: {path} is a {root[1].decode(errors='replace')}; name a TriggerMarkers_Coil*.xml.")


def _load(read: Callable[[Path], Any], whole: bytes, path: Path, option: str) -> tuple[Any, tuple[str, ...]]:
    """Read a copy of what is whole by a public reader; its warnings, and its errors in the words of the option."""
    with tempfile.TemporaryDirectory() as folder, _name_file(Path(folder) / path.name, path, option) as rename:
        copy = Path(folder) / path.name
        copy.write_bytes(whole)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            content = read(copy)
        return content, tuple(rename(str(warning.message)) for warning in caught)


@contextmanager
def _name_file(copy: Path, path: Path, option: str) -> Iterator[Callable[[str], str]]:
    def rename(text: str) -> str:
        text = text.replace(str(copy), str(path))
        return f"{option}: {text.removeprefix('path: ')}" if text.startswith("path: ") else text

    try:
        yield rename
    except ValueError as error:
        raise ValueError(rename(str(error))) from None


def _make_keys(times: "np.ndarray", names: Sequence[str]) -> Iterator[str]:
    """What tells stimuli apart: when, else the name, else the place; those of the same key by their order."""
    import numpy as np

    seen: Counter[str] = Counter()
    for place, (time, name) in enumerate(zip(times, names, strict=True), 1):
        key = f"time {time:.3f} s" if np.isfinite(time) else f"name {name}" if name else f"place {place}"
        seen[key] += 1
        yield key if seen[key] == 1 else f"{key}, {seen[key]}"


def _read_names(text: str, path: Path, option: str) -> tuple[str, ...] | None:
    """The cells of the column `name` of a table, where it has one."""
    import csv

    header = text.lstrip().partition("\n")[0]
    separator = "," if "," in header else next((mark for mark in ";\t" if mark in header), ",")
    rows = [row for row in csv.reader(text.splitlines(), delimiter=separator) if any(cell.strip() for cell in row)]
    columns = [cell.strip() for cell in rows[0]]
    if "name" not in columns:
        return None
    names = tuple(row[columns.index("name")].strip() for row in rows[1:])
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"{option}: {path} has two rows called {twice[0]!r}; give each stimulus one row.")
    return names


def _describe_change(before: Stimulus, now: Stimulus) -> str:
    """What a file says otherwise of a stimulus than when it was used; "" where nothing."""
    import numpy as np

    if before.located != now.located or (before.located and np.abs(before.pose - now.pose).max() > _MOVED):
        return "has another position"
    if not np.allclose([before.intensity, before.didt], [now.intensity, now.didt], rtol=1e-6, atol=0, equal_nan=True):
        return "has another intensity"
    if before.meps is None:
        return ""
    if now.meps is None:
        return "has no row of MEPs any more"
    known = np.isfinite(before.meps)
    meps = np.asarray(now.meps)
    if before.meps.shape != meps.shape or not np.allclose(before.meps[known], meps[known], rtol=1e-6, atol=0):
        return "has other MEPs"
    return ""


def _describe(stimulus: Stimulus) -> str:
    return stimulus.name or stimulus.key


def _is_empty(stimulus: Stimulus) -> bool:
    import numpy as np

    return stimulus.meps is None or not np.isfinite(stimulus.meps).any()
