"""A trained model as a folder: what it is in `model.json`, its weights by Orbax."""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from jaxm2m import _check, files
from jaxm2m._types import PathLike
from jaxm2m.muscle.networks._networks import NetworkConfig
from jaxm2m.population import Checkpoints

_NAMES_0_1 = {"sizes": "config", "fall": "lr_decay"}


def save_folder(path: PathLike, content: str, text: Mapping[str, Any], tree: PyTree) -> Path:
    """Write the folder; it appears whole or not at all.

    Raises
    ------
    FileExistsError, FileNotFoundError
        There is something of that name; there is no folder for it.
    """
    path = Path(path).expanduser()
    if path.exists():
        raise FileExistsError(f"path: {path} exists; choose another name, or remove it.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"path: the folder {path.parent} does not exist; make it first.")
    tree = jax.tree.map(np.asarray, tree)
    temporary = Path(tempfile.mkdtemp(prefix=".", suffix="~" + path.name, dir=path.parent))
    try:
        with Checkpoints(temporary / "weights") as checkpoints:
            checkpoints.save(0, tree, 0.0)
        with files.atomic(temporary / "model.json") as file:
            file.write_text(json.dumps({"content": content, "jaxm2m": version("jaxm2m"), **text}, indent=1))
        temporary.chmod(0o777 & ~_umask())
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return path


def load_folder(path: PathLike, content: str, parse: Callable[[dict[str, Any]], tuple[PyTree, Callable]]) -> Any:
    """Read a folder of this content.

    Parameters
    ----------
    parse
        Takes what `model.json` says; returns the shapes of the weights, and what makes the model of them.

    Raises
    ------
    FileNotFoundError, ValueError
        No model is there, one of another kind, or one of another version.
    """
    path = Path(path).expanduser()
    place = _check.file(path / "model.json", "path")
    text = files.read_json(place)
    with _name_damage(place):
        if text["content"] != content:
            raise ValueError(f"it holds a {str(text['content'])[:40]}, and a {content} was asked for")
        like, make = parse(text)
    with Checkpoints(path / "weights", read_only=True) as checkpoints:
        arrays = checkpoints.restore(0, like)
    arrays = jax.tree.map(lambda a: jnp.asarray(a, jnp.result_type(float)), arrays)
    with _name_damage(place):
        return make(arrays)


def as_tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    """Convert lists to tuples: JSON knows lists only."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def parse_network(settings: Mapping[str, Any]) -> tuple[NetworkConfig, dict[str, Any]]:
    """Read a network's settings out of JSON, also under the names of version 0.1: its architecture, and the rest."""
    named = {_NAMES_0_1.get(name, name): value for name, value in as_tuples(settings).items()}
    return NetworkConfig(**as_tuples(named.pop("config"))), named


@contextlib.contextmanager
def _name_damage(place: Path) -> Iterator[None]:
    """Numbers that are no architecture fail wherever they are first used."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        line = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise ValueError(f"path: {place} is not a model of this version ({line}); save it again.") from None


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask
