"""What a result was made with: in words for people, as fingerprints for the comparison."""

from typing import Any, TypeAlias

import h5py

from jaxm2m.files._fingerprint import fingerprint
from jaxm2m.files._hdf5 import plain
from jaxm2m.files._json import parse_json

Settings: TypeAlias = dict[str, dict[str, str]]


def setting(words: str, *content: Any) -> dict[str, str]:
    """One entry of settings: `{"is": words, "sha256": fingerprint of the words and the content}`.

    Parameters
    ----------
    words
        What a user would call it, in a few words; they may be the same for two that differ.
    content
        What the words stand for, as `fingerprint` takes it.

    """
    return {"is": words, "sha256": fingerprint(words, *content)}


def differences(then: Settings, now: Settings) -> str:
    """What differs between two settings: "didt (2e+06 A/s then, 1e+06 A/s now), poses"; empty if nothing does."""
    found = []
    for name in dict.fromkeys([*then, *now]):
        was, is_now = then.get(name, {}), now.get(name, {})
        if was.get("sha256") != is_now.get("sha256"):
            words = (was.get("is", "unknown"), is_now.get("is", "unknown"))
            found.append(f"{name} ({words[0]} then, {words[1]} now)" if words[0] != words[1] else name)
    return ", ".join(found)


def read_settings(file: h5py.File) -> Settings:
    """The settings in the attribute `settings` (JSON) of an open file.

    Raises
    ------
    ValueError
        There are none.

    """
    try:
        return parse_settings(parse_json(plain(file.attrs.get("settings")) or "", "settings"))
    except (OSError, RuntimeError, KeyError, TypeError, ValueError):
        raise ValueError(f"path: {file.filename} does not say what it was made with; make it again.") from None


def parse_settings(found: Any) -> Settings:
    """What JSON gave, as settings; `ValueError` if it is something else."""
    entries = list(found.values()) if isinstance(found, dict) else [None]
    if not all(isinstance(e, dict) and all(isinstance(words, str) for words in e.values()) for e in entries):
        raise ValueError("settings: not a dict of dicts of text; the file was not written by this package.")
    return found
