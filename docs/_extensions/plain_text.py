"""Docstrings are plain text that reStructuredText misreads in places: |E| is a magnitude, formulas are indented."""

import inspect
import re

HEADING = re.compile(r"-{3,}\s*")
CODE = re.compile(r"(``.+?``|`[^`]+`)")
ENUMERATOR = re.compile(r"^(\s*)(?=([A-Za-z]|[ivxlcdmIVXLCDM]+)[.)](\s|$))")
PAIR = re.compile(r"(\*\*[^*\s][^*]*\*\*|(?<!\w)\*[^*\s][^*]*\*(?!\w))")


def process(app, what, name, obj, options, lines):
    """Called by autodoc for each docstring, before numpydoc reads it."""
    out = []
    section, previous, formula, doctest, item = None, "", False, False, None
    for k, line in enumerate(lines):
        if k + 1 < len(lines) and HEADING.fullmatch(lines[k + 1]) and line.strip():
            section = line.strip()
        blank = not line.strip()
        if formula and line and not line.startswith(" "):
            formula = False
        doctest = line.lstrip().startswith(">>>") or (doctest and not blank)
        starts = line.startswith("    ") and k > 0 and not lines[k - 1].strip()
        if starts and section is None and not formula and not re.match(r"(-|\*|\d+\.)\s", previous):
            out += ["::", ""]
            formula = True
        match = re.match(r"( *)- ", line)
        item = match[1] if match else None if blank else item
        if item is not None and not match and len(line) - len(line.lstrip()) <= len(item):
            line = f"{item}  {line.lstrip()}"  # the item goes on
        names = section in ("Parameters", "Attributes", "Other Parameters") and not line.startswith(" ")
        out.append(line if formula or doctest or names else escape(line))
        if not blank and not line.startswith(" "):
            previous = line if k == 0 or not lines[k - 1].strip() or line[:2] in ("- ", "* ") else previous
    lines[:] = out


def escape(line):
    """A line with what is no markup escaped, outside of code."""
    parts = CODE.split(ENUMERATOR.sub(r"\1\\", line))  # "mm." is no number 2000
    parts[::2] = [_escape(part) for part in parts[::2]]
    # code beside a word or a sign is none to reStructuredText
    for k in range(1, len(parts), 2):
        before, after = parts[k - 1][-1:], parts[k + 1][:1]
        parts[k] = (r"\ " if before.isalnum() else "") + parts[k] + (r"\ " if after.isalnum() or after == "^" else "")
    return "".join(parts)


def _escape(text):
    parts = PAIR.split(text.replace("|", r"\|"))
    parts[::2] = [re.sub(r"(?<=\w)_(?!\w)", r"\_", part.replace("*", r"\*")) for part in parts[::2]]
    return "".join(parts)


def skip(app, what, name, obj, skipped, options):
    """Leave out what classes have from other packages."""
    target = getattr(obj, "fget", None) or getattr(obj, "__func__", obj)
    module = getattr(inspect.unwrap(target) if callable(target) else target, "__module__", "jaxm2m") or "jaxm2m"
    return True if not str(module).startswith("jaxm2m") and callable(target) else None


def setup(app):
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", process, priority=100)
    app.connect("autodoc-skip-member", skip)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
