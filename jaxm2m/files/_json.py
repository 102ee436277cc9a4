"""JSON of users: whatever is in it, it is told in one line."""

import json
import os
from typing import Any

from jaxm2m import _check


def parse_json(text: str | bytes, where: str) -> Any:
    """What JSON `text` holds.

    Raises
    ------
    ValueError
        Begins with `where` (file, and what in it): not JSON, not UTF-8, nested too deep, a number of thousands of
        digits.

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


def read_json(path: str | os.PathLike[str], name: str = "path") -> Any:
    """What a JSON file holds; errors as `parse_json`, and those of files."""
    path = _check.file(path, name)
    return parse_json(path.read_bytes(), f"{name}: {path}")
