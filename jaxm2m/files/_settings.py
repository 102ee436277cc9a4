"""What a result was made with: in words for people, as fingerprints for the comparison."""

from typing import Any, TypeAlias

import h5py

from jaxm2m.files._fingerprint import fingerprint
from jaxm2m.files._hdf5 import decode_text
from jaxm2m.files._json import parse_json

Settings: TypeAlias = dict[str, dict[str, str]]
"""By name, {"value": words for people, "sha256": fingerprint for the comparison}."""

_OLD_KEY = "is"  # what version 0.1 called "value"


def make_setting(words: str, *content: object) -> dict[str, str]:
    """Make one entry of settings, `{"value": words, "sha256": fingerprint of the words and the content}`.

    Parameters
    ----------
    words
        What a user would call it, in a few words; they may be the same for two that differ.
    *content
        What the words stand for, as `fingerprint` takes it.

    Returns
    -------
    dict
        The entry.
    """
    return {"value": words, "sha256": fingerprint(words, *content)}


def describe_differences(then: Settings, now: Settings) -> str:
    """Describe what differs between two settings.

    Parameters
    ----------
    then, now
        The settings.

    Returns
    -------
    str
        "didt (2e+06 A/s then, 1e+06 A/s now), poses", say; empty if nothing differs.
    """
    parts = []
    for name in dict.fromkeys([*then, *now]):
        was, is_now = then.get(name, {}), now.get(name, {})
        if was.get("sha256") != is_now.get("sha256"):
            words = (was.get("value", "unknown"), is_now.get("value", "unknown"))
            parts.append(f"{name} ({words[0]} then, {words[1]} now)" if words[0] != words[1] else name)
    return ", ".join(parts)


def read_settings(file: h5py.File) -> Settings:
    """Read the settings in the attribute `settings` (JSON) of an open file.

    Parameters
    ----------
    file
        An HDF5 file.

    Returns
    -------
    Settings
        What the file was made with; those of version 0.1 as of today.

    Raises
    ------
    ValueError
        There are none.
    """
    try:
        return parse_settings(parse_json(decode_text(file.attrs.get("settings")) or "", "settings"))
    except (OSError, RuntimeError, KeyError, TypeError, ValueError):
        raise ValueError(f"path: {file.filename} does not say what it was made with; make it again.") from None


def parse_settings(content: object) -> Settings:
    """Take what JSON holds as settings.

    Parameters
    ----------
    content
        Names with entries of `make_setting`, or of version 0.1, which called "value" "is".

    Returns
    -------
    Settings
        With the entries of `make_setting`.

    Raises
    ------
    ValueError
        Something else.
    """
    entries: dict[str, Any] = content if isinstance(content, dict) else {"": None}
    if not all(isinstance(e, dict) and all(isinstance(words, str) for words in e.values()) for e in entries.values()):
        raise ValueError("settings: not a dict of dicts of text; the file was not written by this package.")
    return {name: {"value" if k == _OLD_KEY else k: words for k, words in e.items()} for name, e in entries.items()}
