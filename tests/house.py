"""Rules of the house that no general linter knows: names, doors, docstrings, types. `test_house.py` asserts them.

python tests/house.py [ROOM ...]        what breaks them, a line each
"""

import ast
import importlib
import inspect
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "jaxm2m"
warnings.filterwarnings("ignore", module="numpydoc")

# what numpydoc's validation must not find in a public docstring
NUMPYDOC = {
    "GL08": "no docstring",
    "SS01": "no summary",
    "SS03": "the first sentence does not end with a period",
    "SS05": "the first sentence does not begin with a verb in the infinitive",
    "SS06": "the first sentence takes more than a line",
    "PR01": "parameters that are not documented",
    "PR02": "documented parameters that do not exist",
    "PR03": "parameters in another order",
    "PR07": "a parameter without a description",
    "RT01": "no Returns section",
    "RT03": "a return value without a description",
}

# private words for things that the field has names for: (word, the field's)
NAMES = {
    "means": "solver",
    "Means": "FieldSolver",
    "own": "active, or what it is",
    "found": "what it is",
    "given": "what it is",
    "notes": "metadata",
    "Notes": "StaticMetadata",
    "together": "batch_size",
    "_TOGETHER": "_BATCH_SIZE",
    "TOGETHER": "BATCH_SIZE",
    "_BLOCK": "_BATCH_SIZE",
    "_PART": "_BATCH_SIZE",
    "_CHUNK": "_BATCH_SIZE",
    "show": "progress",
    "told": "advance, or what it is",
    "remember": "record",
    "Space": "SearchSpace",
    "Examples": "Dataset",
    "Sizes": "LFADSConfig",
    "Architecture": "NetworkConfig",
    "ahead": "ci_forward",
    "behind": "ci_backward",
    "graded": "grad_mask",
    "HEADS": "PATHWAYS",
    "fall": "lr_decay",
    "Recipe": "TrainingConfig",
    "Climb": "SearchState",
    "Trial": "Evaluation",
    "judged": "accept_step",
    "trespass": "constraint_violation",
    "lay": "project_to_scalp",
    "lift": "clear_casing",
    "Rows": "EllMatrix",
    "along_a_curve": "morton_order",
    "Encoders": "VariantTrainer",
}

# words that end like a participle but are verbs or nouns
NO_PARTICIPLE = {"seed", "feed", "embed", "need", "speed", "shed", "bed", "red", "med", "exceed", "proceed", "spread"}
IRREGULAR = {
    "begun", "built", "drawn", "told", "found", "given", "made", "held", "kept", "known", "shown", "taken", "worn",
    "written", "seen", "done", "gone", "left", "lost", "met", "put", "sent", "spent", "thrown", "wound", "hidden",
    "chosen", "divided", "laid", "driven", "stuck", "sought", "bound", "cut",
}  # fmt: skip

UNITS = re.compile(
    r"(?<![\w/])(mm\^?[23]?|m|V/m|V|A/s|A/us|A m\^2|kA|A|s|ms|us|Hz|kHz|rad|degrees?|uV|mV|S/m|T|T/s|GB|MB|"
    r"bytes?|samples?|bins?|ml|percent|%|nats?|bits?|% MSO)(?![\w/])|no units?|"
    r"unitless|dimensionless|relative|fractions?|shares?|probabilit|between 0 and 1|from 0 to 1|0 to 1|normali[sz]ed|"
    r"index|indices|masks?|units? of|same unit|any unit|number of|how many|"
    r"the unit|R2|VAF|correlation|p-value|logarithm|log |weights?|ratio",
    re.IGNORECASE,
)
SHAPE = re.compile(r"\([^()]*(,|n_|n\b)[^()]*\)|scalar|one number|a number|numbers?\b|shape|\bArray\b", re.IGNORECASE)


def rooms() -> list[str]:
    """Names of the rooms."""
    import jaxm2m

    return list(jaxm2m.__all__)


def public(room: str) -> Iterator[tuple[str, Any]]:
    """Every public function, class, method and property of a room: (path, object)."""
    module = importlib.import_module(f"jaxm2m.{room}")
    for name in module.__all__:
        value = getattr(module, name)
        # a Protocol says what others must do, an alias what is meant elsewhere
        if inspect.ismodule(value) or not callable(value) or getattr(value, "_is_protocol", False):
            continue
        if getattr(value, "__module__", "").split(".")[0] != "jaxm2m":
            continue
        yield f"jaxm2m.{room}.{name}", value
        if inspect.isclass(value):
            for key, member in vars(value).items():
                if key.startswith("_"):
                    continue
                if isinstance(member, (staticmethod, classmethod)):
                    yield f"jaxm2m.{room}.{name}.{key}", member.__func__
                elif inspect.isfunction(member) or isinstance(member, property):
                    yield f"jaxm2m.{room}.{name}.{key}", member


def docstring_faults(room: str) -> list[str]:
    """Public docstrings of a room that are not of the one form."""
    from numpydoc.validate import validate

    faults = []
    for path, value in public(room):
        for code, text in validate(path)["errors"]:
            if code not in NUMPYDOC or (code == "SS05" and not _third_person(value)):
                continue
            if code == "RT01" and isinstance(value, property):
                continue
            if code == "PR01" and inspect.isclass(value) and not _missing_attributes(value):
                continue
            faults.append(f"{path}: {code} {text}")
        faults += [f"{path}: {text}" for text in _unit_faults(value)]
    return faults


def _missing_attributes(cls: type) -> set[str]:
    """Fields of a class that stand neither under Parameters nor under Attributes of its docstring."""
    from numpydoc.docscrape import NumpyDocString

    sections = NumpyDocString(inspect.getdoc(cls) or "")
    entries = [*sections["Parameters"], *sections["Attributes"]]
    documented = {n.strip("* ") for p in entries for n in p.name.split(",")}
    return set(inspect.signature(cls).parameters) - documented


def _third_person(value: Any) -> bool:
    # numpydoc takes every first word that ends in s for a verb
    first = (inspect.getdoc(value) or " ").split()[0].lower()
    return first in {"returns", "computes", "makes", "gives", "takes", "reads", "writes", "draws", "loads", "saves"}


def _unit_faults(value: Any) -> Iterator[str]:
    from numpydoc.docscrape import NumpyDocString

    target = value.fget if isinstance(value, property) else value
    if not callable(target) or inspect.isclass(target):
        return
    text = inspect.getdoc(value) or ""
    sections = NumpyDocString(text)
    described = {n.strip("* "): " ".join(p.desc) for p in sections["Parameters"] for n in p.name.split(",")}
    annotations = getattr(target, "__annotations__", {})
    for name, annotation in annotations.items():
        kind = annotation if isinstance(annotation, str) else str(annotation)
        if not re.search(r"Array|ndarray|float|Float", kind) or "Key[" in kind or name in ("key", "return"):
            continue
        description = described.get(name, "")
        if description and not UNITS.search(description):
            yield f"parameter {name}: no unit"
        if description and "ArrayLike" in kind and not SHAPE.search(description):
            yield f"parameter {name}: no shape"
    if re.search(r"Array|ndarray|float", str(annotations.get("return", ""))):
        returns = " ".join(" ".join((p.name, p.type, *p.desc)) for p in sections["Returns"])
        if isinstance(value, property):
            returns = text
        if returns and not UNITS.search(returns):
            yield "what it returns: no unit"


def untyped(room: str) -> list[str]:
    """Public parameters of a room that are `Any` or have no type."""
    rows = []
    for path, value in public(room):
        if inspect.isclass(value):
            value = value.__call__ if "__call__" in vars(value) else None
        if value is None or isinstance(value, property) or not inspect.isfunction(value):
            continue
        value = inspect.unwrap(value)
        for name, parameter in inspect.signature(value).parameters.items():
            if name in ("self", "cls"):
                continue
            annotation = parameter.annotation
            if annotation is inspect.Parameter.empty or annotation is Any or Any in get_args(annotation):
                rows.append(f"{path}({name})")
    return rows


def sources(room: str | None = None) -> list[Path]:
    """The package's files, or those of a room."""
    return sorted((PACKAGE / room if room else PACKAGE).rglob("*.py"))


def _names(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Name):
            yield node.lineno, node.id
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Attribute):
            yield node.lineno, node.attr
        elif isinstance(node, ast.keyword) and node.arg:
            yield node.value.lineno, node.arg
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.lineno, node.name


def name_faults(room: str | None = None) -> list[str]:
    """Names that the table of standard terms has another for, and functions called by a bare participle."""
    faults = []
    for path in sources(room):
        where = path.relative_to(ROOT)
        faults += [f"{where}:{line}: {name} -> {NAMES[name]}" for line, name in _names(path) if name in NAMES]
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and _participle(node.name) and not _property(node):
                faults.append(f"{where}:{node.lineno}: {node.name}() is a bare participle; name what it does")
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Dict):
                for key in node.keys:
                    if isinstance(key, ast.Constant) and isinstance(key.value, str) and len(key.value.split()) > 4:
                        faults.append(f"{where}:{key.lineno}: the key {key.value!r} is a sentence")
    return faults


def _property(node: ast.FunctionDef) -> bool:
    return any("property" in ast.unparse(d) for d in node.decorator_list)


def _participle(name: str) -> bool:
    words = [w for w in name.strip("_").split("_") if w]
    if not words or len(words) > 1:
        return False
    word = words[0]
    return word in IRREGULAR or (word.endswith("ed") and word not in NO_PARTICIPLE)


def closed_doors() -> list[str]:
    """Imports of another room's private modules or names, in the package, benchmarks and notebooks."""
    import json

    faults = []
    texts: list[tuple[Path, str]] = [(p, p.read_text()) for p in sources()]
    texts += [(p, p.read_text()) for p in sorted((ROOT / "benchmarks").rglob("*.py"))]
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text())["cells"]
        code = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
        texts.append((path, "\n".join(line for text in code for line in text.splitlines() if line[:1] not in "%!")))
    for path, text in texts:
        parts = path.relative_to(ROOT).with_suffix("").parts
        room = parts[1] if parts[0] == "jaxm2m" and len(parts) > 2 else None
        inside = parts[0] == "jaxm2m"
        for line, target in _imports(ast.parse(text)):
            steps = target.split(".")
            if steps[0] != "jaxm2m" or len(steps) < 2:
                continue
            if steps[1].startswith("_"):  # what every room needs stands beside the rooms
                if not inside:
                    faults.append(f"{path.relative_to(ROOT)}:{line}: {target}")
            elif steps[1] != room and any(s.startswith("_") for s in steps[2:]):
                faults.append(f"{path.relative_to(ROOT)}:{line}: {target}")
    return faults


def _imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Modules and names that are imported, and private attributes taken through a room (`jm.efield._basis`)."""
    rooms_here: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
                if alias.name.split(".")[0] == "jaxm2m":
                    rooms_here[alias.asname or alias.name.split(".")[0]] = alias.name if alias.asname else "jaxm2m"
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"
                if node.module.split(".")[0] == "jaxm2m":
                    rooms_here[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            chain, base = [node.attr], node.value
            while isinstance(base, ast.Attribute):
                chain.append(base.attr)
                base = base.value
            private = node.attr.startswith("_") and not node.attr.startswith("__")
            if private and isinstance(base, ast.Name) and base.id in rooms_here:
                yield node.lineno, ".".join([rooms_here[base.id], *reversed(chain)])


def circles() -> list[list[str]]:
    """Import circles between the package's modules, imports inside functions included."""
    names = {".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p for p in sources()}
    edges: dict[str, set[str]] = {}
    for name, path in names.items():
        targets = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    full = f"{node.module}.{alias.name}"
                    target = full if full in names else node.module
                    # a room's face stands for what it hands on: it is no part of a circle inside the room
                    if target in names and target != name and not name.startswith(f"{target}."):
                        targets.add(target)
        edges[name] = targets
    return _components(edges)


def _components(edges: dict[str, set[str]]) -> list[list[str]]:
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    result = []

    def visit(v: str) -> None:
        index[v] = low[v] = len(index)
        stack.append(v)
        for w in edges.get(v, ()):
            if w not in index:
                visit(w)
                low[v] = min(low[v], low[w])
            elif w in stack:
                low[v] = min(low[v], index[w])
        if low[v] == index[v]:
            group = []
            while True:
                w = stack.pop()
                group.append(w)
                if w == v:
                    break
            if len(group) > 1:
                result.append(sorted(group))

    for v in edges:
        if v not in index:
            visit(v)
    return result


def main(chosen: list[str]) -> int:
    checks: list[Callable[[str], list[str]]] = [docstring_faults, untyped, name_faults]
    total = 0
    for room in chosen or [*rooms(), "cli"]:
        for check in checks:
            if room == "cli" and check is not name_faults:
                continue
            rows = check(room)
            total += len(rows)
            for row in rows:
                print(f"{check.__name__}: {row}")
    if not chosen:
        for row in closed_doors():
            print("door:", row)
        for circle in circles():
            print("circle:", *circle)
    print(total)
    return total


if __name__ == "__main__":
    main(sys.argv[1:])
