"""Names of public functions and classes in text and docstrings become links: `jm.efield.Basis`, `coil.tabulate`."""

import importlib
import re

from docutils import nodes
from sphinx import addnodes

import jaxm2m

NAME = re.compile(rf"(?:jm\.|jaxm2m\.)?((?:{'|'.join(jaxm2m.__all__)})(?:\.\w+)+)(?:\(.*\))?")


def is_public(path):
    """Whether `room.name` or `room.Class.method` stands for something that has a place in the reference."""
    room, name, *rest = path.split(".")
    module = importlib.import_module(f"jaxm2m.{room}")
    value = getattr(module, name, None) if name in module.__all__ else None
    for part in rest:
        value = getattr(value, part, None)
    return value is not None


def link(app, doctree):
    """Called by Sphinx for each page that was read."""
    for literal in list(doctree.findall(nodes.literal)):
        if any(isinstance(above, (nodes.reference, addnodes.pending_xref, nodes.title)) for above in _above(literal)):
            continue
        match = NAME.fullmatch(literal.astext())
        if match is None or not is_public(match[1]):
            continue
        reference = addnodes.pending_xref(
            "", refdomain="py", reftype="obj", reftarget=f"jaxm2m.{match[1]}", refwarn=False, refdoc=app.env.docname
        )
        literal.replace_self(reference)
        reference += literal


def _above(node):
    while node.parent is not None:
        node = node.parent
        yield node


def setup(app):
    """Called by Sphinx."""
    app.connect("doctree-read", link)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
