"""Whether a reader told what is wrong with a file as it should, and what memory it took."""

import re
from pathlib import Path

TOLD = (ValueError, OSError, TypeError, MemoryError, ImportError, NotImplementedError)
PERSON = ("Doe", "Jane", "2021-06-2", "23:59:59")


def defect(error, path):
    """What is wrong with the message of an error about `path`; "" if nothing is."""
    words = str(error)
    if not isinstance(error, TOLD):
        return f"{type(error).__name__}: {words}"
    if path.name not in words and str(path.parent) not in words:
        return f"names no file: {words}"
    if "\n" in words or len(words) > 2000:
        return f"more than a line: {words[:200]}"
    found = [name for name in PERSON if name in words]
    return f"tells {found}: {words}" if found else ""


def told(read, path):
    """Whether `read` gives an object or a message as it should be: "" if so."""
    try:
        read(path)
    except Exception as error:
        return defect(error, path)
    return ""


def peak(reset=False):
    """MB that the process has held at most since the last reset; zero where the system does not tell."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        return int(re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())[1]) >> 10
    except (OSError, TypeError):
        return 0
