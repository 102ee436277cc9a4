"""The pages under docs/ and README.md speak of what exists: names, arguments, options, files, links, figures."""

import ast
import dataclasses
import importlib.util
import inspect
import json
import re
import shlex
from pathlib import Path

import pytest

import jaxm2m

pytestmark = pytest.mark.host

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
WITH_README = [ROOT / "README.md", *PAGES]
RESULTS = ROOT / "benchmarks" / "results" / "amd-epyc-2-cores.json"

BLOCK = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAME = re.compile(r"\bjm((?:\.[A-Za-z_]\w*)+)")
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
COMMAND = re.compile(r"\bjaxm2m [a-z][^\n`]*")
# a figure, and where in the results it stands: 10.3<!-- script :: case :: ... :: .1f -->
FIGURE = re.compile(r"(-?\d[\d.]*(?:e-?\d+)?(?: %)?)<!-- (\w+ :: .+?) -->")


def loaded(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


hooks = loaded(DOCS / "hooks.py")


def blocks(page, *languages):
    return [text for language, text in BLOCK.findall(page.read_text()) if language in languages]


def found(path):
    """What a dotted name after `jm.` stands for; a field of a dataclass stands for itself."""
    thing = jaxm2m
    for part in path.strip(".").split("."):
        if dataclasses.is_dataclass(thing) and part in {f.name for f in dataclasses.fields(thing)}:
            return part
        thing = getattr(thing, part)
    return thing


def dotted(node):
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join(reversed(parts)) if isinstance(node, ast.Name) and node.id == "jm" and parts else None


def name(page):
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", WITH_README, ids=name)
def test_python_blocks_parse(page):
    for block in blocks(page, "python"):
        ast.parse(block)


@pytest.mark.parametrize("page", WITH_README, ids=name)
def test_names_exist(page):
    missing = []
    for path in {match[1] for match in NAME.finditer(page.read_text())}:
        try:
            found(path)
        except AttributeError:
            missing.append(f"jm{path}")
    assert not missing


@pytest.mark.parametrize("page", WITH_README, ids=name)
def test_calls_have_the_arguments_that_functions_take(page):
    for block in blocks(page, "python"):
        for call in [node for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Call)]:
            path = dotted(call.func)
            starred = any(isinstance(a, ast.Starred) for a in call.args) or any(k.arg is None for k in call.keywords)
            if path is None or starred:
                continue
            try:
                inspect.signature(found(path)).bind(*call.args, **{k.arg: None for k in call.keywords})
            except TypeError as error:
                pytest.fail(f"{ast.unparse(call)}: {error}")


@pytest.mark.parametrize("page", WITH_README, ids=name)
def test_links_and_files_exist(page):
    text = page.read_text()
    missing = [
        target
        for target in LINK.findall(text)
        if "://" not in target and not target.startswith("#") and not (page.parent / target.partition("#")[0]).exists()
    ]
    files = re.compile(r"(?:benchmarks|docs|jaxm2m|notebooks|tests)/[\w./-]*")
    missing += [f for f in CODE.findall(text) if files.fullmatch(f) and not (ROOT / f).exists()]
    assert not missing


def test_scripts_named_in_readme_exist():
    section = hooks.section("Accuracy and speed")
    scripts = set(re.findall(r"`(\w+\.py)`", section))
    assert scripts
    assert not {script for script in scripts if not (ROOT / "benchmarks" / script).exists()}


def shown_commands(page):
    """Every command with options or arguments that a page shows, in blocks and in running text."""
    text = page.read_text()
    shown = "\n".join(body for language, body in BLOCK.findall(text) if language in ("", "bash", "sh"))
    inline = [code for code in CODE.findall(BLOCK.sub("", text)) if code.startswith("jaxm2m ")]
    for line in [*COMMAND.findall(shown), *inline]:
        yield re.split(r"\s{3,}|\s&&\s", line)[0]


@pytest.mark.parametrize("page", WITH_README, ids=name)
def test_commands_and_their_options_exist(page):
    tree = dict(hooks.tree())
    for line in shown_commands(page):
        words = [w for w in shlex.split(line.replace("[", " ").replace("]", " ")) if w]
        path = words.pop(0)
        while words and any(f"{path} {key}" in tree for key in words[0].split("|")):
            keys = words.pop(0).split("|")
            assert all(f"{path} {key}" in tree for key in keys), line
            path = f"{path} {keys[-1]}"
        assert path != "jaxm2m" or all(w.startswith("-") for w in words), f"no such command: {line}"
        known = {"--help", *(o for p in tree[path].params for o in [*p.opts, *p.secondary_opts])}
        options = {w.partition("=")[0] for w in words if w.startswith("--")}
        assert options <= known, f"{line}: {path} has no {options - known}"


def test_the_reference_has_every_command_and_option():
    text = "\n".join(hooks.commands())
    for command, node in hooks.tree():
        assert f"## {command}\n" in text
        for parameter in node.params:
            for option in [*parameter.opts, *parameter.secondary_opts]:
                assert option in text or parameter.param_type_name == "argument"


def test_the_reference_has_every_room():
    rooms = {path.stem for path in (DOCS / "reference").glob("*.md")} - {"index", "cli"}
    assert rooms == set(jaxm2m.__all__)
    for room in rooms:
        assert f"::: jaxm2m.{room}\n" in (DOCS / "reference" / f"{room}.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_what_pages_take_from_readme_is_there(page):
    for title in re.findall(r"<!-- README: (.+?) -->", page.read_text()):
        assert hooks.section(title)


def test_every_page_is_in_the_navigation():
    listed = re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text())
    assert sorted(listed) == sorted(str(page.relative_to(DOCS)) for page in PAGES)


def test_figures_are_those_of_the_results():
    results = json.loads(RESULTS.read_text())
    wrong, count = [], 0
    for page in PAGES:
        text = page.read_text()
        figures = FIGURE.findall(text)
        assert len(figures) == len(re.findall(r"<!-- \w+ :: ", text)), f"{page}: a source without a figure before it"
        for written, source in figures:
            *keys, form = source.split(" :: ")
            value = results
            for key in keys:
                value = value[int(key)] if isinstance(value, list) else value[key]
            expected = format(value, form)
            count += 1
            if written.replace(" %", "%").rstrip("%") != expected.rstrip("%"):
                wrong.append(f"{name(page)}: {written}, now {expected} ({source})")
    assert count > 40
    assert not wrong, "\n".join(wrong)


def test_no_page_loads_from_the_network():
    for page in PAGES:
        assert not re.search(r"<(script|img|link|iframe)\b|!\[[^\]]*\]\(https?:", page.read_text()), page
    assert "font: false" in (ROOT / "mkdocs.yml").read_text()


def test_pictures_are_small():
    for picture in (DOCS / "images").iterdir():
        assert picture.stat().st_size < 250_000, picture
