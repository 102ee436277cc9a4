"""Signatures as they are written: shapes of arrays stay readable, and types are links.

Evaluated annotations would not do: `ArrayLike | None` is a union of nine types by then.
"""

import ast
import importlib
import inspect
import sys
import textwrap

import jaxm2m

# where a type is documented, for those that say otherwise of themselves
ELSEWHERE = {
    "jax.jaxlib._jax.Array": "jax.Array",
    "jaxlib._jax.Array": "jax.Array",
    "jaxlib.xla_extension.Array": "jax.Array",
    "pandas.core.frame.DataFrame": "pandas.DataFrame",
    "pandas.core.series.Series": "pandas.Series",
    "pandas.core.indexes.base.Index": "pandas.Index",
    "pathlib._local.Path": "pathlib.Path",
    "h5py._hl.files.File": "h5py.File",
    "h5py._hl.dataset.Dataset": "h5py.Dataset",
    "h5py._hl.group.Group": "h5py.Group",
}


def known_names():
    """Public names by the identity of what they stand for."""
    names = {}
    for room in jaxm2m.__all__:
        module = importlib.import_module(f"jaxm2m.{room}")
        for name in module.__all__:
            names.setdefault(id(getattr(module, name)), f"jaxm2m.{room}.{name}")
    return names


class Qualified(ast.NodeTransformer):
    """Writes types by the names under which they are documented, of which `~` shows the last part alone."""

    def __init__(self, namespace, names):
        self.namespace, self.names = namespace, names

    def visit_Constant(self, node):
        if isinstance(node.value, str):  # an annotation in quotes
            try:
                return self.visit(ast.parse(node.value, mode="eval").body)
            except SyntaxError:
                return node
        return node

    def visit_Subscript(self, node):
        head = self.visit(node.value)
        last = ast.unparse(head).rpartition(".")[2]
        parts = node.slice
        if last == "Literal":
            return ast.Subscript(head, parts, node.ctx)
        if isinstance(parts, ast.Tuple) and len(parts.elts) == 2 and _is_shape(parts.elts[1]):
            parts = ast.Tuple([self.visit(parts.elts[0]), parts.elts[1]], parts.ctx)
        else:
            parts = self.visit(parts)
        return ast.Subscript(head, parts, node.ctx)

    def visit_Name(self, node):
        return self.named(node)

    def visit_Attribute(self, node):
        return self.named(node)

    def named(self, node):
        try:
            value = eval(ast.unparse(node), self.namespace)
        except Exception:
            return node
        name = self.names.get(id(value))
        if name is None and inspect.isclass(value) and value.__module__ not in ("builtins", "jaxtyping"):
            name = f"{value.__module__}.{value.__qualname__}"
            name = ELSEWHERE.get(name, name)
            if name.startswith("jaxm2m.") or "._" in name:  # private: no page
                return ast.Name(value.__qualname__)
        return node if name is None else ast.UnaryOp(ast.Invert(), ast.parse(name, mode="eval").body)


def _is_shape(node):
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def written(function):
    """The definition of a function as its source has it."""
    source = textwrap.dedent(inspect.getsource(inspect.unwrap(function)))
    return Numbers(source).visit(ast.parse(source).body[0])


class Numbers(ast.NodeTransformer):
    """Keeps numbers as they are written: 1e6 is no 1000000.0."""

    def __init__(self, source):
        self.source = source

    def visit_Constant(self, node):
        written = ast.get_source_segment(self.source, node)
        return ast.Name(written) if isinstance(node.value, float) and written else node


def of_function(function, names, bound):
    """(arguments, what is returned) of a function or method."""
    node = written(function)
    if not isinstance(node, ast.FunctionDef):
        return None
    qualified = Qualified(dict(vars(sys.modules[inspect.unwrap(function).__module__])), names)
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    if bound:
        (arguments.posonlyargs or arguments.args).pop(0)
    for argument in [*positional, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]:
        if argument is not None and argument.annotation is not None:
            argument.annotation = qualified.visit(argument.annotation)
    returned = None if node.returns is None else _text(qualified.visit(node.returns))
    return f"({_text(arguments)})", returned


def of_class(cls, names):
    """What a class is made from: `__init__` where it writes one, else its fields."""
    for base in cls.__mro__:
        method = vars(base).get("__init__")
        if method is not None and inspect.isfunction(method) and "__dataclass_fields__" not in vars(base):
            return of_function(method, names, True)
    if not hasattr(cls, "__dataclass_fields__"):
        return None
    written_types = {}
    for base in reversed(cls.__mro__):
        if "__dataclass_fields__" not in vars(base):
            continue
        tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
        qualified = Qualified(dict(vars(sys.modules[base.__module__])), names)
        for node in tree.body[0].body:
            if isinstance(node, ast.AnnAssign):
                text = _text(qualified.visit(node.annotation))
                simple = node.value is not None and not isinstance(node.value, ast.Call)
                default = f" = {ast.unparse(node.value)}" if simple else " = ..." if node.value is not None else ""
                written_types[node.target.id] = f"{node.target.id}: {text}{default}"
    fields = [name for name, field in cls.__dataclass_fields__.items() if field.init]
    return f"({', '.join(written_types.get(name, name) for name in fields)})", None


def _text(node):
    # unparse writes the inversion of a dotted name without brackets, which is what Sphinx reads
    return ast.unparse(ast.fix_missing_locations(node))


def signature(app, what, name, obj, options, given, returned):
    """Called by autodoc for each object."""
    names = app.env.temp_data.setdefault("public names", None) or known_names()
    app.env.temp_data["public names"] = names
    try:
        if inspect.isclass(obj):
            return of_class(obj, names) or None
        if what in ("method", "function") and callable(obj):
            plain = inspect.unwrap(getattr(obj, "__func__", obj))
            bound = what == "method" and not _is_static(name)
            return of_function(plain, names, bound)
    except (OSError, TypeError, SyntaxError, LookupError):
        return None
    return None


def _is_static(name):
    parts = name.split(".")
    owner = getattr(importlib.import_module(".".join(parts[:2])), parts[2], None)
    return any(isinstance(vars(base).get(parts[-1]), staticmethod) for base in getattr(owner, "__mro__", ()))


def setup(app):
    """Called by Sphinx."""
    app.connect("autodoc-process-signature", signature, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
