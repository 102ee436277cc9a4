"""What griffe is told of this package's docstrings: sentences under Returns, shared entries, tables, pytrees."""

import re
from typing import Any

import griffe

_SECTION = re.compile(r"^(?P<title>\w+)\n-+\n(?P<body>.*?)(?=\n\n\S[^\n]*\n---|\Z)", re.MULTILINE | re.DOTALL)
_SHARED = re.compile(r"^(?P<names>\w+(?:,\s+\w+)+)\n(?P<text>(?:    .*\n?|\n(?=    ))+)", re.MULTILINE)
_TABLE = re.compile(r"^=+(?:  +=+)+$.*^=+(?:  +=+)+$", re.MULTILINE | re.DOTALL)


class Docstrings(griffe.Extension):
    """Changes docstrings before they are parsed."""

    def on_class_instance(self, *, cls: griffe.Class, **kwargs: Any) -> None:
        """Make `tree` known as what it is, a dataclass."""
        for decorator in cls.decorators:
            if str(decorator.value) == "tree":
                decorator.value = griffe.ExprName("dataclasses.dataclass")

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite what the parser of numpydoc takes for something else."""
        if obj.docstring is not None:
            obj.docstring.value = _TABLE.sub(lambda t: _indented(t[0]), _SECTION.sub(_section, obj.docstring.value))


def _section(match: re.Match[str]) -> str:
    title, body = match["title"], match["body"]
    head = match[0][: len(match[0]) - len(body)]
    if title in ("Returns", "Yields"):
        first, _, rest = body.partition("\n")
        # sentences, not a type with its description: the type is that of the annotation
        return match[0] if rest.startswith("    ") or first.isidentifier() else head + ":\n" + _indented(body)
    if title in ("Parameters", "Attributes"):
        # the parser would give all names the first one's type and default
        return head + _SHARED.sub(lambda s: "".join(f"{n}\n{s['text'].rstrip()}\n" for n in _names(s)), body)
    return match[0]


def _names(shared: re.Match[str]) -> list[str]:
    return re.split(r",\s+", shared["names"])


def _indented(text: str) -> str:
    return "\n".join("    " + line if line else line for line in text.split("\n"))
