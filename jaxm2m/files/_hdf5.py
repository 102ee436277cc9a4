"""HDF5 files, read without following where they point and without believing what they declare."""

import contextlib
import math
import mmap
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from jaxm2m import _check
from jaxm2m._memory import memory
from jaxm2m._types import PathLike
from jaxm2m.files._json import parse_json

GIGABYTE = 1 << 30
_SHARE = 0.8  # of the free memory
_SMALL = 64 << 20  # bytes that may be declared without being stored: an array of one value, say
_SEARCHED = 128 << 20  # bytes
_DEFLATE = 1032  # its largest ratio
_KINDS = {"float": "iuf", "int": "iu", "bool": "b"}


class Hdf5(h5py.File):
    """A file open for reading, whose defects are reported with its name, wherever they are met.

    What the library itself raises while the file is read in a `with` block (a broken chunk, an object that is missing)
    becomes a `ValueError` that begins with `label`.

    Parameters
    ----------
    path
        The file.
    label
        What errors call it: "path: /x/emg.h5".
    """

    def __init__(self, path: PathLike, label: str = "path"):
        super().__init__(path, "r")
        self.label = label

    def __exit__(self, *what: Any) -> None:
        super().__exit__(*what)
        _, error, trace = what
        if not isinstance(error, Exception) or not _raised_by_library(trace):
            return
        if isinstance(error, MemoryError):
            raise MemoryError(f"{self.label} needs more memory than there is; read it on a larger machine.") from None
        raise ValueError(
            f"{self.label} is damaged or not whole ({_first_line(error)}); make or download it again."
        ) from None

    def datasets(self) -> Iterator[tuple[str, h5py.Dataset]]:
        """Iterate over all data sets under hard links, each once.

        Yields
        ------
        tuple of str and h5py.Dataset
            Name, without the first "/", and data set.
        """
        for _, item in _objects(self):
            if isinstance(item, h5py.Dataset) and item.shape is not None:
                yield item.name.lstrip("/"), item

    def arrays(self, wanted: Mapping[str, str]) -> dict[str, Any]:
        """Read arrays of known kinds, whose axes fit each other.

        Parameters
        ----------
        wanted
            By name, kind and axes: "float sample channel". Kinds are "float" (any real numbers, as float64 where they
            are stored as integers), "int", "bool" and "text". An axis is a length, or a name: equal names are of equal
            lengths.

        Returns
        -------
        dict
            The arrays by name, text as an array of `str`.

        Raises
        ------
        ValueError
            What is missing, of another kind or shape, or larger than the memory.
        """
        items: dict[str, h5py.Dataset] = {}
        lengths: dict[str, int] = {}
        for name, words in wanted.items():
            kind, *axes = words.split()
            item = self.get(name)
            if not isinstance(item, h5py.Dataset) or item.shape is None:
                raise self._unfit(f"it has no array {name!r}")
            text = h5py.check_string_dtype(item.dtype) is not None
            if text != (kind == "text") or not (text or item.dtype.kind in _KINDS[kind]):
                raise self._unfit(f"{name!r} holds {item.dtype}, not {kind}")
            wrong = len(axes) != len(item.shape)
            for axis, length in zip(axes, item.shape, strict=False):
                wrong |= lengths.setdefault(axis, int(axis) if axis.isdigit() else length) != length
            if wrong:
                shape = ", ".join(str(lengths.get(axis, axis)) for axis in axes)
                raise self._unfit(f"{name!r} has the shape {item.shape}, not ({shape})")
            items[name] = item
        need, (_, free) = sum(math.prod(i.shape) * max(i.dtype.itemsize, 8) for i in items.values()), memory()
        if free and need > _SHARE * free:
            raise ValueError(
                f"{self.label} declares {need / GIGABYTE:.1f} GB, this machine has {free / GIGABYTE:.1f} GB free; read "
                "it on a larger one."
            )
        return {name: self._read(item, wanted[name].split()[0]) for name, item in items.items()}

    def number(self, name: str) -> float:
        """Read a finite number among the attributes.

        Parameters
        ----------
        name
            Of the attribute.

        Returns
        -------
        float
            In the unit of the attribute (any unit).

        Raises
        ------
        ValueError
            There is none of that name, or it is no number.
        """
        value = self._attribute(name)
        if not isinstance(value, (int, float, np.integer, np.floating)) or not np.isfinite(value):
            raise self._unfit(f"its attribute {name!r} is no number")
        return float(value)

    def text(self, name: str) -> str:
        """Read text among the attributes.

        Parameters
        ----------
        name
            Of the attribute.

        Returns
        -------
        str
            "" where there is none of that name, or something else.
        """
        return decode_text(self._attribute(name)) or ""

    def json(self, name: str) -> Any:
        """Parse the JSON in an attribute.

        Parameters
        ----------
        name
            Of the attribute.

        Returns
        -------
        object
            What the JSON holds.

        Raises
        ------
        ValueError
            No JSON.
        """
        return parse_json(self.text(name), f"{self.label} is damaged: its attribute {name!r}")

    def _attribute(self, name: str) -> Any:
        try:
            return self.attrs.get(name)
        except (OSError, RuntimeError, TypeError, ValueError, KeyError) as error:
            raise self._unfit(f"its attribute {name!r} cannot be read, {_first_line(error)}") from None

    def _read(self, item: h5py.Dataset, kind: str) -> Any:
        if kind != "text":
            values = item[()]
            return values.astype(np.float64) if kind == "float" and values.dtype.kind != "f" else values
        try:
            return np.asarray(item.asstr("utf-8")[()], object)
        except UnicodeDecodeError:
            raise self._unfit(f"{item.name!r} is not UTF-8 text") from None

    def _unfit(self, what: str) -> ValueError:
        return ValueError(f"{self.label} is damaged or of another program ({what}); make or download it again.")


def open_hdf5(path: PathLike, limit: int = 64 * GIGABYTE, name: str = "path", *, linked: bool = False) -> Hdf5:
    """Open an HDF5 file to read, after a look at all that it declares.

    Refused are links to other files, soft links, data stored in other files (external and virtual data sets), data
    sets of Python objects or references, declared sizes of more than `limit` bytes in all, and data sets that declare
    much more than the file stores.

    Parameters
    ----------
    path
        The file.
    limit
        Bytes that it may declare.
    name
        What errors call it.
    linked
        Let soft links and references pass: they point into the same file.

    Returns
    -------
    Hdf5
        An `h5py.File`, open, read-only; use it in a `with` block.

    Raises
    ------
    ValueError
        Not HDF5, empty, cut off, damaged, or refused for the reasons above.
    """
    path = _check.file(path, name)
    if not h5py.is_hdf5(path):
        raise ValueError(f"{name}: {path} is not an HDF5 file; check the path.")
    _check_heaps(path, f"{name}: {path}")
    try:
        file = Hdf5(path, f"{name}: {path}")
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        reason = "it was cut off" if "truncated" in str(error) else _first_line(error)
        raise ValueError(f"{name}: {path} cannot be opened ({reason}); make or download it again.") from None
    with contextlib.ExitStack() as stack:
        stack.enter_context(file)
        size, hollow = _measure_declared(file, path, name, linked)
        if size > limit:
            raise ValueError(
                f"{name}: {path} declares {size / GIGABYTE:.1f} GB, over the limit of {limit / GIGABYTE:.1f} GB; "
                "read a smaller file, or raise the limit."
            )
        if hollow:
            raise ValueError(
                f"{name}: {path} declares an array at {hollow} of which it stores next to nothing; write it whole."
            )
        stack.pop_all()  # all is well: it stays open
    return file


def decode_text(value: object) -> str | None:
    """Decode text of an HDF5 file as any console takes it.

    Parameters
    ----------
    value
        What an attribute or a data set holds.

    Returns
    -------
    str or None
        None where it is something else than text.
    """
    if isinstance(value, str):
        value = value.encode("utf-8", "surrogateescape")
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else None


def _measure_declared(file: h5py.File, path: Path, name: str, linked: bool) -> tuple[int, str]:
    """Bytes of all data sets, and one that cannot be there."""

    def refuse(place: str, what: str) -> ValueError:
        return ValueError(f"{name}: {path} has {what} at {place}; write its content into the file itself.")

    size, hollow = 0, ""
    for place, item in _objects(file):
        if isinstance(item, h5py.ExternalLink):
            raise refuse(place, "a link to another file")
        if isinstance(item, h5py.SoftLink) and not linked:
            raise refuse(place, "a soft link")
        if item is None:
            raise refuse(place, "a broken object")
        if not isinstance(item, h5py.Dataset):
            continue
        if item.external or item.is_virtual:
            raise refuse(place, "data stored in another file")
        try:
            dtype = item.dtype
        except (TypeError, ValueError, KeyError) as error:  # what NumPy has no type for
            raise refuse(place, f"a type that is not known ({_first_line(error)})") from None
        if _holds_objects(dtype) and not linked:
            raise refuse(place, "objects or references")
        if dtype.kind == "O" and h5py.check_string_dtype(dtype) and not _fits_into_file(item, path):
            raise refuse(place, "texts longer than the file")
        declared = math.prod(item.shape or ()) * dtype.itemsize
        size += declared
        if declared > _SMALL and declared > _DEFLATE * item.id.get_storage_size():
            hollow = place
    return size, hollow


def _objects(file: h5py.File) -> Iterator[tuple[str, Any]]:
    """Groups and data sets, each once, None for broken ones, and links that are not hard; by their place."""
    if not isinstance(file["/"], h5py.Group):
        yield "/", None
        return
    seen, waiting = {h5py.h5o.get_info(file.id).addr}, [file["/"]]
    while waiting:
        group = waiting.pop()
        for key in group:
            # names may hold bytes that no console can print
            place = f"{group.name.rstrip('/')}/{key}".encode("utf-8", "backslashreplace").decode()
            link = group.get(key, getlink=True)
            if not isinstance(link, h5py.HardLink):
                yield place, link
                continue
            try:
                item = group[key]
                address = h5py.h5o.get_info(item.id).addr
            except (KeyError, OSError, RuntimeError):
                yield place, None
                continue
            if address in seen:  # hard links can form a loop
                continue
            seen.add(address)
            if isinstance(item, h5py.Group):
                waiting.append(item)
            yield place, item


def _fits_into_file(item: h5py.Dataset, path: Path) -> bool:
    """Whether texts of variable length fit into their file: the library makes room for each before it looks."""
    start = item.id.get_offset()  # in one piece, as nearly always
    if start is None or item.shape is None:
        return True
    with open(path, "rb") as file:
        file.seek(start)
        words = file.read(16 * math.prod(item.shape))
    return int(np.frombuffer(words, "<u4")[::4].sum(dtype=np.uint64)) <= path.stat().st_size


def _check_heaps(path: Path, label: str) -> None:
    """Refuse free space of no length where texts are kept, in whose midst the library turns for ever."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        # of a large file its ends: texts stand beside what was written first or last
        for start, stop in {(0, min(len(data), _SEARCHED)), (max(0, len(data) - _SEARCHED), len(data))}:
            at = data.find(b"GCOL", start, stop)
            while at >= 0:
                end = at + struct.unpack("<Q", data[at + 8 : at + 16].ljust(8, b"\0"))[0]
                here = at + 16
                while data[at + 4] == 1 and here + 16 <= min(end, len(data)):
                    index, length = struct.unpack("<H6xQ", data[here : here + 16])
                    if not index and not length:
                        raise ValueError(
                            f"{label} is damaged (a heap of texts at byte {at}); make or download it again."
                        )
                    here += length if not index else 16 + length + -length % 8
                at = data.find(b"GCOL", at + 4, stop)


def _holds_objects(dtype) -> bool:
    if dtype.names:
        return any(_holds_objects(dtype[field]) for field in dtype.names)
    # text of variable length is an object to NumPy, but harmless
    return dtype.base.kind == "O" and h5py.check_string_dtype(dtype.base) is None


def _raised_by_library(trace: Any) -> bool:
    """Whether the innermost frame of a traceback is the library's."""
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__")).partition(".")[0] == "h5py"


def _first_line(error: Exception) -> str:
    words = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return (words or type(error).__name__).splitlines()[0]
