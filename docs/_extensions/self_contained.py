"""No page tells where it was built, and none loads anything from the network: one that does fails the build."""

import re
import tempfile
from pathlib import Path

from sphinx.errors import SphinxError

ROOT = Path(__file__).resolve().parents[2]
LOADS = re.compile(r"<(?:script|img|iframe|link)\b[^>]*\b(?:src|href)=[\"']https?://[^>]*>")


def check(app, exception):
    """Called by Sphinx at the end."""
    if exception is not None or app.builder.format != "html":
        return
    paths = {str(ROOT), str(Path.home()), tempfile.gettempdir(), "/tmp"} - {"/"}
    faults = []
    for page in sorted(Path(app.outdir).rglob("*.html")):
        text, name = page.read_text(errors="replace"), page.relative_to(app.outdir)
        faults += [f"{name}: loads {tag}" for tag in LOADS.findall(text)]
        if "_modules" not in page.parts:
            faults += [f"{name}: holds {path}/" for path in sorted(paths) if f"{path}/" in text]
    if faults:
        raise SphinxError("pages with paths of this machine, or that need a network:\n" + "\n".join(faults))


def setup(app):
    """Called by Sphinx."""
    app.connect("build-finished", check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
