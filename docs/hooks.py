"""What pages take from elsewhere when they are built: sections of README.md, and the commands with their options.

A line `<!-- README: Title -->` becomes what stands under that heading, `<!-- commands -->` the reference of the command
line.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

_SECTION = re.compile(r"^<!-- README: (.+) -->$", re.MULTILINE)
_OUTSIDE = re.compile(r"\[([^\]]+)\]\((?!https?:|#|docs/)[^)]+\)")  # links to what the site does not hold
_COMMANDS = re.compile(r"^<!-- commands -->$", re.MULTILINE)


def on_page_markdown(markdown: str, page: Any, **kwargs: Any) -> str:
    """Called by mkdocs for each page."""
    to_docs = "../" * page.file.src_uri.count("/")

    def here(match: re.Match[str]) -> str:
        text = _OUTSIDE.sub(r"\1", section(match[1]))
        return text.replace("](docs/", f"]({to_docs}")

    return _COMMANDS.sub(lambda _: "\n".join(commands()), _SECTION.sub(here, markdown))


def section(title: str) -> str:
    """What stands under a second-level heading of README.md."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", (ROOT / "README.md").read_text(), re.M | re.S)
    if found is None:
        raise ValueError(f"README.md: no section {title!r}; correct the page that asks for it.")
    return found[1].strip()


def tree() -> Iterator[tuple[str, Any]]:
    """Each command by its full name, the whole first."""
    import typer

    from jaxm2m.cli import app

    def walk(name: str, command: Any) -> Iterator[tuple[str, Any]]:
        yield name, command
        for key, child in getattr(command, "commands", {}).items():
            yield from walk(f"{name} {key}", child)

    return walk("jaxm2m", typer.main.get_command(app))


def commands() -> Iterator[str]:
    """The reference of the command line, as lines of Markdown."""
    for name, command in tree():
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        options = [p for p in command.params if p.param_type_name == "option"]
        inside = hasattr(command, "commands")
        usage = [name, *("OPTIONS" for _ in options[:1]), *(_argument(a) for a in arguments), *(["COMMAND"] * inside)]
        yield from (f"## {name}", "", "```", " ".join(usage), "```", "", command.help or "", "")
        if inside:
            yield from (
                f"- [`{name} {key}`](#{name.replace(' ', '-')}-{key}): {_first_sentence(child.help)}"
                for key, child in command.commands.items()
            )
            yield ""
        if arguments or options:
            yield from ("| | | default |", "| --- | --- | --- |")
            yield from (_row(f"`{_argument(a)}`", a) for a in arguments)
            yield from (_row(_option(o), o) for o in options)
            yield ""


def _row(name: str, parameter: Any) -> str:
    if parameter.required:
        default = "needed"
    else:
        default = "" if parameter.default in (None, False) else f"`{parameter.default}`"
    return f"| {name} | {(parameter.help or '').replace('|', chr(92) + '|')} | {default} |"


def _argument(parameter: Any) -> str:
    return (parameter.metavar or parameter.name).upper()


def _option(parameter: Any) -> str:
    names = ", ".join(f"`{name}`" for name in [*parameter.opts, *parameter.secondary_opts])
    return f"{names} `{parameter.metavar}`" if parameter.metavar else names


def _first_sentence(text: str | None) -> str:
    return re.split(r"(?<=\.)\s", text or "", maxsplit=1)[0].replace("\n", " ")
