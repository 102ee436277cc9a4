"""The sections of a Gmsh file as streams of numbers, text or binary, none longer than the file."""

import warnings
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np

_MOST_LINES = 1000


class BrokenFile(Exception):
    """What is wrong with a file, for a message."""


class TruncatedSection(Exception):
    """A section asks for more than there is."""


class Source:
    """A file's bytes, its format, and where the next section begins."""

    def __init__(self, data: bytes):
        self.data, self.at = data, data.index(b"$MeshFormat")
        self.line()
        words = self.line().split()
        try:
            self.version, self.binary, size = float(words[0]), int(words[1]) == 1, int(words[2])
        except (ValueError, IndexError):
            raise BrokenFile("has a broken first section $MeshFormat; export it again.") from None
        if not (2 <= self.version < 3 or self.version == 4.1) or size != 8:
            raise BrokenFile(
                f"is of Gmsh's version {words[0].decode('ascii', 'replace')} with numbers of {size} bytes; save it as "
                "2.2 or 4.1 with 8 (Gmsh: File > Export)."
            )
        self.order = "<"
        if self.binary:
            one = data[self.at : self.at + 4]
            if one == b"\x00\x00\x00\x01":
                self.order = ">"
            elif one != b"\x01\x00\x00\x00":
                raise BrokenFile("has a broken first section $MeshFormat; export it again.")
            self.at += 4
        self.close("MeshFormat")

    def line(self) -> bytes:
        end = self.data.find(b"\n", self.at)
        if end < 0:
            end = len(self.data)
        out = self.data[self.at : end]
        self.at = end + 1
        return out.strip()

    def lines(self) -> list[bytes]:
        """As many lines as the first says."""
        count = parse_count(self.line())
        if not 0 <= count <= _MOST_LINES:
            raise TruncatedSection(f"it declares {count} lines of its head")
        return [self.line() for _ in range(count)]

    def sections(self) -> Iterator[str]:
        """Names of the sections; whoever takes one leaves `at` behind it."""
        while True:
            while self.at < len(self.data) and self.data[self.at : self.at + 1].isspace():
                self.at += 1
            if self.at >= len(self.data):
                return
            name = self.line()
            if not name.startswith(b"$") or len(name) > 64:
                raise BrokenFile(
                    f"is broken: a section was expected at byte {self.at - len(name)}; export or download it again."
                )
            yield name[1:].decode("ascii", "replace")

    def skip(self, section: str) -> None:
        end = self.data.find(f"$End{section}".encode("ascii", "replace"), self.at)
        if end < 0:
            raise BrokenFile(f"is cut off in its section ${section}; export or download it again.")
        self.at = end
        self.line()

    def stream(self, section: str) -> "Stream":
        if self.binary:
            return Binary(self)
        end = self.data.find(f"$End{section}".encode("ascii"), self.at)
        if end < 0:
            raise TruncatedSection("its end is missing")
        text, self.at = self.data[self.at : end], end
        return Text(text)

    def close(self, section: str) -> None:
        while self.at < len(self.data) and self.data[self.at : self.at + 1].isspace():
            self.at += 1
        if not self.data.startswith(f"$End{section}".encode("ascii"), self.at):
            raise BrokenFile(f"is cut off or broken at the end of its section ${section}; export or download it again.")
        self.line()


class Binary:
    """Numbers of a binary section, taken from the file's bytes."""

    def __init__(self, source: Source):
        self.source = source

    def count(self) -> int:
        """Of rows: written as text in version 2."""
        return parse_count(self.source.line())

    def integers(self, n: int) -> np.ndarray:
        return self._take("i4", n)

    def sizes(self, n: int) -> np.ndarray:
        return self._take("u8", n).astype(np.int64)

    def doubles(self, n: int) -> np.ndarray:
        return self._take("f8", n)

    def numbered_rows(self, n: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """`n` rows of a number and `width` values."""
        rows = self._take([("number", self.source.order + "i4"), ("values", self.source.order + "f8", (width,))], n)
        return rows["number"].astype(np.int64), np.array(rows["values"], np.float64)

    def rest(self) -> np.ndarray:
        """All integers to the end of the file, of which `advance` says how many were taken."""
        left = (len(self.source.data) - self.source.at) // 4
        return np.frombuffer(self.source.data, self.source.order + "i4", left, self.source.at)

    def advance(self, n: int) -> None:
        self.source.at += 4 * n

    def finish(self) -> None:
        """What is left over is found where the section's end should stand."""

    def _take(self, kind: Any, n: int) -> np.ndarray:
        dtype = np.dtype(self.source.order + kind if isinstance(kind, str) else kind)
        left = (len(self.source.data) - self.source.at) // dtype.itemsize
        if not 0 <= n <= left:
            raise TruncatedSection(f"it declares {n} entries, the file has room for {max(left, 0)}")
        out = np.frombuffer(self.source.data, dtype, n, self.source.at)
        self.source.at += n * dtype.itemsize
        return out


class Text:
    """Numbers of a text section."""

    def __init__(self, text: bytes):
        with warnings.catch_warnings():
            # NumPy only warns where something is no number, and stops there
            warnings.simplefilter("error", DeprecationWarning)
            try:
                self.values = np.fromstring(text, sep=" ")
            except (DeprecationWarning, ValueError):
                raise TruncatedSection("it holds something that is no number") from None
        self.at = 0

    def count(self) -> int:
        return int(self.integers(1)[0])

    def integers(self, n: int) -> np.ndarray:
        return to_integers(self.doubles(n))

    sizes = integers

    def doubles(self, n: int) -> np.ndarray:
        left = len(self.values) - self.at
        if not 0 <= n <= left:
            raise TruncatedSection(f"it declares {n} entries, the file has {left}")
        self.at += n
        return self.values[self.at - n : self.at]

    def numbered_rows(self, n: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        rows = self.doubles(n * (width + 1)).reshape(n, width + 1)
        return to_integers(rows[:, 0]), rows[:, 1:].copy()

    def rest(self) -> np.ndarray:
        return self.values[self.at :]

    def advance(self, n: int) -> None:
        self.at += n

    def finish(self) -> None:
        if self.at < len(self.values):
            raise TruncatedSection("it holds more than it declares")


def parse_count(word: bytes) -> int:
    try:
        return int(word)
    except ValueError:
        raise TruncatedSection(f"a count was expected, found {word[:20]!r}") from None


def to_integers(values: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        out = values.astype(np.int64)
    if (out != values).any():
        raise TruncatedSection("a whole number was expected")
    return out


Stream: TypeAlias = Binary | Text
