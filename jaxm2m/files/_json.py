"""JSON of users: whatever is wrong with it, the error is one line."""

import json
from typing import Any

from jaxm2m import _check
from jaxm2m._types import PathLike


def parse_json(text: str | bytes, where: str) -> Any:
    """Parse JSON text.

    Parameters
    ----------
    text
        The JSON.
    where
        What errors begin with: the file, and what in it.

    Returns
    -------
    object
        What it holds.

    Raises
    ------
    ValueError
        Not JSON, not UTF-8, nested too deep, a number of thousands of digits.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError(f"{where} is not JSON (nested too deep); write or download it again.") from None
    except ValueError as error:
        # UnicodeDecodeError prints the bytes, int() the way to lift its limit
        known = isinstance(error, json.JSONDecodeError)
        words = str(error) if known else "not UTF-8" if isinstance(error, UnicodeError) else "a number without end"
        raise ValueError(f"{where} is not JSON ({words}); write or download it again.") from None


def read_json(path: PathLike, name: str = "path") -> Any:
    """Read a JSON file.

    Parameters
    ----------
    path
        The file.
    name
        What errors call it.

    Returns
    -------
    object
        What it holds.

    Raises
    ------
    ValueError
        As of `parse_json`, or an empty file.
    OSError
        No such file, unreadable.
    """
    path = _check.file(path, name)
    return parse_json(path.read_bytes(), f"{name}: {path}")
