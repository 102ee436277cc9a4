"""Reference pages: one for each room, which lists its public names, and from there one for each name."""

import importlib
import inspect
from pathlib import Path

import jaxm2m

FOLDER = "reference/api"


def public(room):
    """Public names of a room by kind."""
    module = importlib.import_module(f"jaxm2m.{room}")
    kinds = {"Functions": [], "Classes": [], "Errors": [], "Modules": [], "Constants": []}
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.ismodule(value):
            kind = "Modules"
        elif inspect.isclass(value):
            kind = "Errors" if issubclass(value, BaseException) else "Classes"
        else:
            kind = "Functions" if inspect.isfunction(inspect.unwrap(value)) else "Constants"
        kinds[kind].append(name)
    return module, kinds


def page(room):
    """reStructuredText of a room's page."""
    module, kinds = public(room)
    title = f"jm.{room}"
    yield from (title, "=" * len(title), "", f".. automodule:: jaxm2m.{room}", "   :no-members:", "")
    for kind, names in kinds.items():
        if not names:
            continue
        yield from (kind, "-" * len(kind), "")
        if kind == "Constants":
            yield from (f".. py:currentmodule:: jaxm2m.{room}", "")
            for name in names:
                yield from _constant(name, getattr(module, name))
            continue
        yield from (
            f".. currentmodule:: jaxm2m.{room}",
            "",
            ".. autosummary::",
            "   :toctree: .",
            "   :nosignatures:",
            "",
        )
        yield from (f"   {name}" for name in names)
        yield ""


def _constant(name, value):
    shown = " ".join(repr(value).split())
    if isinstance(value, dict) and len(shown) > 80:
        shown = "a dictionary of " + ", ".join(f"``{key!r}``" for key in value)
    else:
        shown = f"``{shown}``"
    yield from (f".. py:data:: {name}", "", f"   {shown}", "")


def write(app, config):
    """Write the pages of all rooms, and leave alone those that have not changed."""
    folder = Path(app.srcdir) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    names = {
        f"jaxm2m.{room}.{name}" for room in jaxm2m.__all__ for name in importlib.import_module(f"jaxm2m.{room}").__all__
    }
    for stale in folder.glob("jaxm2m.*.rst"):
        if stale.stem not in names:
            stale.unlink()
    for room in jaxm2m.__all__:
        path, text = folder / f"{room}.rst", "\n".join(page(room))
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def setup(app):
    """Called by Sphinx."""
    app.connect("config-inited", write, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
