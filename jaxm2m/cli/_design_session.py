"""A session beside the navigator: reads what is new, proposes what is next, loses nothing when it is killed."""

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from jaxm2m.cli import _arguments, _design_watch
from jaxm2m.cli._design_intensity import describe_didt, make_didt_reader
from jaxm2m.cli._design_stimulus import Export, MepTable, News, Stimulus

if TYPE_CHECKING:
    from jaxm2m.cli._design_desk import Desk
    from jaxm2m.design import Loop

JOURNAL = "watch.json"
_CONTENT = "jaxm2m design next"
GRACE = 10.0  # s for which a file may be half written, locked, or away
SETTLED = 5.0  # s without a change, after which the last stimulus without an MEP counts as missed
_SLICE = 0.2  # s that Ctrl-C waits at most
_LOOKS = 3  # at a file that has fewer stimuli than were used
_SILENT = 3  # stimuli without any MEP, after which that is told


@dataclass
class Journal:
    """Which stimuli of an export a loop has used; on the disk before the loop takes one.

    Attributes
    ----------
    path
        The file.
    muscles, channels
        Of the loop, and the export's EMG channels that they are; None: MEPs are those of a table.
    used
        In the order in which they were taken, those without a position too.
    standing
        By key of stimuli that came and are not used yet: dI/dt of the proposal that stood then, A/s.
    """

    path: Path
    muscles: tuple[str, ...]
    channels: tuple[str, ...] | None
    used: list[Stimulus] = field(default_factory=list)
    standing: dict[str, float] = field(default_factory=dict)

    def append(self, stimulus: Stimulus) -> None:
        """Add one, on the disk too."""
        self.used.append(stimulus)
        self.write()

    def write(self) -> None:
        """Replace the file."""
        from jaxm2m import files

        content = {
            "content": _CONTENT,
            "muscles": list(self.muscles),
            "channels": None if self.channels is None else list(self.channels),
            "used": [stimulus.pack() for stimulus in self.used],
            "standing": self.standing,
        }
        with files.atomic(self.path) as temporary:
            temporary.write_text(json.dumps(content, allow_nan=False), encoding="utf-8")

    def keep_didt(self, keys: Sequence[str], didt: float) -> None:
        """Keep, for stimuli that came, dI/dt (A/s) of the proposal that stands and is about to be replaced."""
        used = {stimulus.key for stimulus in self.used}
        kept = {key: value for key, value in self.standing.items() if key not in used}
        kept = {key: didt for key in keys if key not in used} | kept
        if kept != self.standing:
            self.standing = kept
            self.write()

    def agree(self, n_recorded: int) -> None:
        """Take back what was written down and never recorded: a kill came between the two."""
        located = [i for i, stimulus in enumerate(self.used) if stimulus.located]
        if len(located) == n_recorded + 1:
            del self.used[located[-1]]
        elif len(located) != n_recorded:
            raise ValueError(
                f"--out: {self.path.parent} holds a loop of {n_recorded} stimuli, of which {len(located)} came from an "
                "export; go on where it was begun, or begin another session with another --out."
            )


def read_journal(out: Path) -> Journal | None:
    """Read the journal of a folder; None where it has none.

    Raises
    ------
    ValueError
        A file that is none.
    """
    from jaxm2m import files

    path = out / JOURNAL
    if not path.exists():
        return None
    content = files.read_json(path, "--out")
    try:
        if content["content"] != _CONTENT:
            raise ValueError
        channels = content["channels"]
        return Journal(
            path,
            tuple(map(str, content["muscles"])),
            None if channels is None else tuple(map(str, channels)),
            [Stimulus.unpack(entry) for entry in content["used"]],
            {str(key): float(value) for key, value in content.get("standing", {}).items()},
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ValueError(f"--out: {path} is no journal of a session; give --out another folder.") from None


@dataclass
class Feed:
    """The files that a session comes from.

    Attributes
    ----------
    export
        The navigator's, or the folder of a Localite session.
    option
        What messages call it.
    table
        Of MEPs; None: those of the export.
    image
        As in `session.load`.
    muscles, channels
        As of `Journal`.
    watched
        Whether they grow.
    """

    export: Path
    option: str
    table: Path | None
    image: Path | None
    muscles: tuple[str, ...] | None
    channels: tuple[str, ...] | None
    watched: bool
    _content: tuple[bytes, bytes] = (b"", b"")
    _since: float = 0.0
    _waits: bool = True
    _remarks: set[str] = field(default_factory=set)
    _space: tuple[str, str] = ("", "")

    def read(self) -> tuple[Export, MepTable | None]:
        """Read what the files hold now."""
        path, data, rows = self._read_bytes()
        return self._parse(path, data, rows)

    def check_space(self, space: str) -> str | None:
        """Refuse an export in another coordinate space than the head's; what Brainsight calls it, if that stands."""
        name, source_space = self._space
        if name and name != space:
            raise ValueError(
                f"{self.option}: {self.export} is in {name!r} space, the head in {space!r}; take a head in that space "
                "or export in the head's."
            )
        # with an image, poses are in the image's world, which the name may not stand for
        return source_space if self.image is None and source_space.lower().startswith("nifti:") else None

    def find_new(self, used: Sequence[Stimulus]) -> News:
        """Find what is new; nothing where no file has changed."""
        path, data, rows = self._read_bytes()
        now = time.monotonic()
        if (data, rows) != self._content:
            self._content, self._since = (data, rows), now
        elif not self._waits:
            return News((), 0)
        self._waits = True  # whatever it is that cannot be read is looked at again
        export, table = self._parse(path, data, rows)
        stimuli = export.stimuli if table is None else _design_watch.add_meps(export.stimuli, table)
        settled = not self.watched or now - self._since >= SETTLED
        news = _design_watch.find_new(used, stimuli, settled=settled, option=self.option)
        self._waits = not settled
        cut = ()
        if export.is_cut and not self.watched:
            cut = (f"the end of {path} was not read: it ends in the middle of a line, or of a marker",)
        for remark in (*export.remarks, *news.remarks, *cut):
            if remark not in self._remarks:
                self._remarks.add(remark)
                _arguments.say(f"warning: {remark}.".replace("..", "."))
        return news

    def list_keys(self, n_used: int) -> list[str]:
        """List the stimuli that have come; none where the files cannot be read at this moment."""
        keys: list[str] = []
        for _ in range(_LOOKS):
            with suppress(ValueError, OSError):
                keys = [stimulus.key for stimulus in self.read()[0].stimuli]
            if len(keys) >= n_used:
                break
            time.sleep(_SLICE)  # it is being written
        return keys

    def _read_bytes(self) -> tuple[Path, bytes, bytes]:
        path: Path | None = self.export
        if self.export.is_dir():
            path = _design_watch.find_markers(self.export, self.option)
        if path is None or (self.watched and not path.exists()):
            path, data = self.export, b""
        else:
            data = path.read_bytes()
        rows = b""
        if self.table is not None and (self.table.exists() or not self.watched):
            rows = self.table.read_bytes()
        return path, data, rows

    def _parse(self, path: Path, data: bytes, rows: bytes) -> tuple[Export, MepTable | None]:
        export = _design_watch.read_export(
            data, path, image=self.image, channels=() if self.table is not None else self.channels, option=self.option
        )
        table = None if self.table is None else _design_watch.read_table(rows, self.table, self.muscles)
        self._space = export.space, export.source_space
        return export, table


def open_feed(
    out: Path, export: Path | None, watched: bool, meps: Path | None, image: Path | None,
    muscles: tuple[str, ...] | None, channels: tuple[str, ...] | None, journal: Journal | None,
) -> tuple[Feed | None, Journal]:  # fmt: skip
    """What a session comes from, and its journal: its muscles are those of before, of --muscles, or of the files."""
    from jaxm2m import _check

    if channels is not None and (muscles is None or len(channels) != len(muscles)):
        raise ValueError(f"--channels: {len(channels)} of them; name as many muscles by --muscles.")
    if export is None:
        if journal is None and muscles is None:
            raise ValueError("--muscles: missing; name those that are recorded, such as FDI,ADM.")
        return None, journal or Journal(out / JOURNAL, muscles or (), None)
    option = "--watch" if watched else "--session"
    for path, name in ((export, option), (meps, "--meps")):
        if path is None or path.is_dir():
            continue
        if path.suffix.lower() in (".mat", ".h5", ".hdf5", ".npy", ".json"):
            raise ValueError(f"{name}: {path} is not written while a session runs; give text or XML.")
        if not watched:
            _check.file(path, name)
        elif not path.parent.is_dir():
            raise FileNotFoundError(f"{name}: the folder {path.parent} does not exist; check the path.")
    if image is not None:
        _check.file(image, "--image", suffixes=(".nii", ".nii.gz"))
    if journal is not None:
        if muscles is not None and muscles != journal.muscles:
            raise ValueError(
                f"--muscles: {', '.join(muscles)}, but the session of {out} has {', '.join(journal.muscles)}; go on as "
                "it was begun, or begin another with another --out."
            )
        if (journal.channels is None) != (meps is not None) or (channels or journal.channels) != journal.channels:
            source = "a table, --meps" if journal.channels is None else f"channels {', '.join(journal.channels)}"
            raise ValueError(f"--out: the MEPs of the session of {out} come from {source}; go on as it was begun.")
        muscles, channels = journal.muscles, journal.channels
    elif muscles is not None and meps is None:
        channels = channels or tuple(str(k) for k in range(1, len(muscles) + 1))
    feed = Feed(export, option, meps, image, muscles, channels, watched)
    seen, table = feed.read()
    if muscles is None:
        muscles = table.muscles if table is not None else seen.channels
        if not muscles:
            what = "the table has no row of column names" if meps is not None else "the export has no MEP"
            raise ValueError(f"--muscles: missing, and {what} yet; name those that are recorded, such as FDI,ADM.")
        feed.muscles = muscles
        feed.channels = None if meps is not None else muscles
    return feed, journal or Journal(out / JOURNAL, muscles, feed.channels)


class Stop:
    """Whether Ctrl-C was pressed."""

    def __init__(self) -> None:
        self.pressed = False

    def wait(self, seconds: float) -> None:
        """Wait so long, or until it is pressed."""
        end = time.monotonic() + seconds
        while not self.pressed and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, _SLICE))

    @contextmanager
    def listen(self) -> Iterator[None]:
        """Listen while the block runs; a second Ctrl-C interrupts as usual."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.getsignal(signal.SIGINT)

        def hear(*_: object) -> None:
            self.pressed = True
            signal.signal(signal.SIGINT, before)

        signal.signal(signal.SIGINT, hear)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


def run(
    loop: "Loop", journal: Journal, feed: Feed | None, desk: "Desk", *, n_stimulus: int, interval: float, stop: Stop
) -> None:
    """Record what comes and propose what is next, until enough is known or Ctrl-C."""

    def find_standing(stimulus: Stimulus) -> float:
        return journal.standing.get(stimulus.key) or desk.read_didt(loop)

    def keep_standing() -> None:
        # what came while the next one was computed was stimulated as the proposal says that still stands
        if feed is not None and desk.standing is not None and len(loop.levels) > 1:
            journal.keep_didt(feed.list_keys(len(journal.used)), desk.standing)

    read_didt = make_didt_reader(desk.stimulator, find_standing)
    proposed, failing = False, None
    while not stop.pressed:
        news = News((), 0)
        try:
            news = news if feed is None else feed.find_new(journal.used)
            failing = None
        except (ValueError, OSError) as error:
            # the navigator may be writing the file at this moment
            now = time.monotonic()
            if feed is None or not feed.watched or (failing is not None and now - failing >= GRACE):
                if proposed:
                    desk.finish(loop, "the export could not be read any more")
                raise
            if failing is None:
                failing = now
                _arguments.say(f"waiting, the last proposal stands: {error}")
        if feed is not None and news.stimuli:
            desk.source_space = feed.check_space(desk.setup.head.space)
        recorded = record(loop, journal, news, read_didt, n_stimulus)
        if recorded or (not proposed and failing is None):
            if loop.done:
                break
            desk.propose(loop, keep_standing)
            proposed = True
        if feed is None or not feed.watched:
            if news.waiting:
                _arguments.say(f"{news.waiting} stimuli have no row of MEPs yet.")
            return
        stop.wait(interval)
    desk.finish(loop, loop.reason or "stopped by Ctrl-C")


def record(loop: "Loop", journal: Journal, news: News, read_didt: Callable[[Stimulus], float], n_stimulus: int) -> int:
    """Record new stimuli as far as the loop takes them; how many. Each goes into the journal before it."""
    import numpy as np

    count = 0
    for stimulus in news.stimuli:
        if len(loop) >= n_stimulus:
            break
        start, label = time.monotonic(), stimulus.name or stimulus.key
        didt = read_didt(stimulus)
        journal.append(stimulus)
        if not stimulus.located:
            _arguments.say(f"{label}: the navigator did not see the coil; passed over.")
            continue
        assert stimulus.meps is not None
        loop.record(stimulus.pose, didt, stimulus.meps)
        count += 1
        pairs = list(zip(journal.muscles, stimulus.meps, strict=True))
        missed = ", ".join(name for name, mep in pairs if not np.isfinite(mep))
        meps = ", ".join(f"{name} {mep:.0f}" for name, mep in pairs if np.isfinite(mep))
        what = f"{meps} \N{MICRO SIGN}V{f', without {missed}' if missed else ''}" if meps else "no MEP, missed"
        strength = describe_didt(didt, None)
        _arguments.say(f"stimulus {len(loop)} ({label}) at {strength}: {what}; {time.monotonic() - start:.1f} s")
        _doubt_silence(journal)
    return count


def _doubt_silence(journal: Journal) -> None:
    """Warn once where no stimulus has an MEP: they may be in another program."""
    import numpy as np

    meps = [s.meps for s in journal.used if s.located and s.meps is not None]
    if len(meps) == _SILENT and not np.isfinite(np.array(meps)).any():
        _arguments.say(
            f"warning: none of the {_SILENT} stimuli so far has an MEP; they count as missed. MEPs of another program "
            "go into a table: --meps TABLE.csv."
        )
