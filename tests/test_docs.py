"""The pages under docs/ and README.md speak of what exists: names, arguments, options, files, links, figures."""

import ast
import dataclasses
import importlib.util
import inspect
import json
import os
import pydoc
import re
import shlex
from pathlib import Path

import pytest

import jaxm2m

pytestmark = pytest.mark.host

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
# what is made when the pages are built
MADE = [DOCS / "gallery", DOCS / "notebooks", DOCS / "reference" / "api"]
PAGES = sorted(p for p in DOCS.rglob("*.md") if not any(folder in p.parents for folder in MADE))
SCRIPTS = sorted((DOCS / "figures").glob("plot_*.py"))
WITH_README = [ROOT / "README.md", *PAGES]
RESULTS = ROOT / "benchmarks" / "results" / "amd-epyc-2-cores.json"

BLOCK = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAME = re.compile(r"\bjm((?:\.[A-Za-z_]\w*)+)")
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
FIGURE_OF = re.compile(r"^```\{figure\} (\S+)", re.MULTILINE)
COMMAND = re.compile(r"\bjaxm2m [a-z][^\n`]*")
# a figure, and where in the results it stands: 10.3<!-- script :: case :: ... :: .1f -->
FIGURE = re.compile(r"(-?\d[\d.]*(?:e-?\d+)?(?: %)?)<!-- (\w+ :: .+?) -->")


def loaded(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


elsewhere = loaded(DOCS / "_extensions" / "from_elsewhere.py")


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


def exists(path):
    """Whether a file is there, or is made when the pages are built."""
    path = Path(os.path.normpath(path))
    for folder in MADE:
        if folder in path.parents:
            break
    else:
        return path.exists()
    if folder.name == "notebooks":
        return (ROOT / "notebooks" / path.name).with_suffix(".ipynb").exists()
    if folder.name == "api":
        return path.stem in jaxm2m.__all__
    script = re.sub(r"^sphx_glr_(plot_\w+?)_\d{3}$", r"\1", path.stem)
    return path.stem == "index" or (DOCS / "figures" / f"{script}.py") in SCRIPTS


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
        for target in [*LINK.findall(text), *FIGURE_OF.findall(text)]
        if "://" not in target and not target.startswith("#") and not exists(page.parent / target.partition("#")[0])
    ]
    files = re.compile(r"(?:benchmarks|docs|jaxm2m|notebooks|tests)/[\w./-]*")
    missing += [f for f in CODE.findall(text) if files.fullmatch(f) and not (ROOT / f).exists()]
    assert not missing


@pytest.mark.parametrize("page", WITH_README, ids=name)
def test_scripts_named_in_pages_exist(page):
    bare = {code for code in CODE.findall(page.read_text()) if re.fullmatch(r"\w+\.py", code)}
    places = [ROOT / "benchmarks", ROOT / "jaxm2m", ROOT / "tests"]
    assert not {script for script in bare if not any((place / script).exists() for place in places)}


def shown_commands(page):
    """Every command with options or arguments that a page shows, in blocks and in running text."""
    text = page.read_text()
    shown = "\n".join(body for language, body in BLOCK.findall(text) if language in ("", "bash", "sh"))
    inline = [code for code in CODE.findall(BLOCK.sub("", text)) if code.startswith("jaxm2m ")]
    for line in [*COMMAND.findall(shown), *inline]:
        yield re.split(r"\s{3,}|\s&&\s", line)[0]


@pytest.mark.parametrize("page", WITH_README, ids=name)
def test_commands_and_their_options_exist(page):
    tree = dict(elsewhere.tree())
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
    text = "\n".join(elsewhere.commands())
    for command, node in elsewhere.tree():
        assert f"## {command}\n" in text
        for parameter in node.params:
            for option in [*parameter.opts, *parameter.secondary_opts]:
                assert option in text or parameter.param_type_name == "argument"


def test_the_reference_has_every_room():
    index = DOCS / "reference" / "index.md"
    assert set(re.findall(r"^api/(\w+)$", index.read_text(), re.MULTILINE)) == set(jaxm2m.__all__)
    assert set(re.findall(r"\(api/(\w+)\.rst\)", index.read_text())) == set(jaxm2m.__all__)


def test_the_reference_has_every_public_name():
    rooms = loaded(DOCS / "_extensions" / "rooms.py")
    for room in jaxm2m.__all__:
        lines = {line.strip().removeprefix(".. py:data:: ") for line in rooms.page(room)}
        assert set(getattr(jaxm2m, room).__all__) <= lines, room


def toctrees(page):
    """The pages that a page's tables of contents list, by their paths without a suffix."""
    for body in re.findall(r"^```\{toctree\}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL):
        for line in body.splitlines():
            if line and not line.startswith(":"):
                yield Path(os.path.normpath(page.parent / line))


def test_every_page_is_in_the_navigation():
    listed, left = set(), [DOCS / "index"]
    while left:
        path = left.pop()
        listed.add(path)
        page = path.with_suffix(".md")
        if page in PAGES:
            left += toctrees(page)
    assert {page.with_suffix("") for page in PAGES} <= listed
    assert {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")} == {
        path.stem for path in listed if path.parent == DOCS / "notebooks"
    }


def test_every_figure_function_is_in_the_gallery():
    shown = "\n".join(script.read_text() for script in SCRIPTS)
    functions = [name for name in jaxm2m.plot.__all__ if inspect.isfunction(getattr(jaxm2m.plot, name))]
    assert len(functions) >= 13
    assert not [name for name in functions if f"jm.plot.{name}(" not in shown]


@pytest.mark.parametrize("page", sorted((DOCS / "how-to").glob("*.md")), ids=name)
def test_every_how_to_has_a_picture(page):
    assert page.stem == "index" or FIGURE_OF.search(page.read_text())


@pytest.mark.parametrize("script", SCRIPTS, ids=name)
def test_scripts_of_the_gallery_speak_of_what_exists(script):
    tree = ast.parse(script.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (path := dotted(node.func)) is not None:
            starred = any(isinstance(a, ast.Starred) for a in node.args) or any(k.arg is None for k in node.keywords)
            if not starred:
                inspect.signature(found(path)).bind(*node.args, **{k.arg: None for k in node.keywords})
        elif isinstance(node, ast.Attribute) and (path := dotted(node)) is not None:
            found(path)


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


def test_benchmarks_are_made_from_the_results():
    page = (DOCS / "benchmarks.md").read_text()
    assert len(elsewhere.STORED.findall(page)) > 150
    made = elsewhere.fill(page)
    assert "{{" not in made
    assert "<!-- aims -->" not in made
    assert "not measured" not in made
    with pytest.raises(KeyError):
        elsewhere.fill("{{ sphere :: 3 mm :: worst :: white :: .1% }}")


def test_no_page_loads_from_the_network():
    for page in PAGES:
        assert not re.search(r"<(script|img|link|iframe)\b|(!\[[^\]]*\]\(|\{figure\} )https?:", page.read_text()), page
    settings = (DOCS / "conf.py").read_text()
    (mapping,) = re.findall(r"^intersphinx_mapping = (\{.*?^\})", settings, re.MULTILINE | re.DOTALL)
    assert all((DOCS / inventory).exists() for _, inventory in ast.literal_eval(mapping).values())
    assert "nb_ipywidgets_js = {}\n" in settings
    assert '"check_switcher": False' in settings


def test_links_to_other_packages_are_named_as_they_are():
    """Each name of an inventory can be imported."""
    for inventory in sorted((DOCS / "inventories").glob("*.txt")):
        for line in inventory.read_text().splitlines():
            if not line.startswith("#"):
                assert pydoc.locate(line.split()[0]) is not None or line.startswith("None "), line


def test_pictures_are_small():
    for picture in (DOCS / "images").iterdir():
        assert picture.stat().st_size < 250_000, picture
