"""The page's own program and style, read from the files beside it; no other program is loaded, nor any network."""

from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).parent / "page"
# each does one thing; one module is what a notebook takes
_PARTS = ("camera.js", "gl.js", "overlay.js", "panel.js", "live.js")


@cache
def read_module() -> str:
    """The widget as one ES module, whose default export has `render`."""
    return "\n".join((_FOLDER / name).read_text("utf-8") for name in _PARTS)


@cache
def read_style() -> str:
    """The widget's style."""
    return (_FOLDER / "live.css").read_text("utf-8")


@cache
def read_program(name: str) -> str:
    """The widget with what runs it outside of notebooks: "served.js" or "saved.js"."""
    wire, program = ((_FOLDER / part).read_text("utf-8") for part in ("wire.js", name))
    # the last line exports what a page of its own does not import
    module = read_module().replace("export default { render };", "")
    return f"{module}\n{wire}\n{program}"
