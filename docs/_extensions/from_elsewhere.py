"""What pages take from elsewhere when they are built: the commands with their options, and figures of the benchmarks.

A line `<!-- commands -->` becomes the reference of the command line, `<!-- aims -->` the table of what was aimed at and
what was measured, and `{{ script :: case :: ... :: .1f }}` the number that stands there in the stored results.
"""

import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "amd-epyc-2-cores.json"
STORED = re.compile(r"\{\{ (\w+ :: .+?) \}\}")


def fill(text: str) -> str:
    """A page's text with what it takes from elsewhere."""
    text = text.replace("<!-- commands -->", "\n".join(commands())) if "<!-- commands -->" in text else text
    if "<!-- aims -->" in text:
        text = text.replace("<!-- aims -->", aims())
    results = json.loads(RESULTS.read_text()) if STORED.search(text) else {}
    return STORED.sub(lambda match: figure(results, match[1]), text)


def figure(results: Any, source: str) -> str:
    """The number at `script :: case :: ... :: format` of the stored results."""
    *keys, form = source.split(" :: ")
    value = results
    for key in keys:
        value = value[int(key)] if isinstance(value, list) else value[key]
    return format(value, form).replace("%", " %")


def aims() -> str:
    """The benchmarks' own table: what was aimed at, what was measured, whether that is enough."""
    spec = importlib.util.spec_from_file_location("figures", ROOT / "benchmarks" / "figures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.table(json.loads(RESULTS.read_text()))


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
        yield from (f"## {name}", "", "```text", " ".join(usage), "```", "", command.help or "", "")
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
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in (name, parameter.help or "", default)) + " |"


def _argument(parameter: Any) -> str:
    return (parameter.metavar or parameter.name).upper()


def _option(parameter: Any) -> str:
    names = ", ".join(f"`{name}`" for name in [*parameter.opts, *parameter.secondary_opts])
    return f"{names} `{parameter.metavar}`" if parameter.metavar else names


def _first_sentence(text: str | None) -> str:
    return re.split(r"(?<=\.)\s", text or "", maxsplit=1)[0].replace("\n", " ")


def read(app: Any, name: str, source: list[str]) -> None:
    """Called by Sphinx for each page before it is parsed."""
    source[0] = fill(source[0])


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("source-read", read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
