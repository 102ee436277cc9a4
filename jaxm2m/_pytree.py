"""Frozen dataclasses that JAX treats as pytrees.

Every numerical field is a leaf. A field of type `StaticMetadata` (names, provenance) travels with the tree but never
takes part in comparing two trees, so that a coil with another name, or a head of another person, compiles nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, TypeVar, dataclass_transform

import jax

T = TypeVar("T")


class StaticMetadata(Mapping[str, Any]):
    """Read-only remarks about a pytree (name, provenance); all `StaticMetadata` compare equal."""

    def __init__(self, *args: Any, **kwargs: Any):
        self._entries = MappingProxyType(dict(*args, **kwargs))

    def __getitem__(self, key: str) -> Any:
        return self._entries[key]

    def __iter__(self):
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StaticMetadata)

    def __hash__(self) -> int:
        return hash(StaticMetadata)

    def __repr__(self) -> str:
        return f"StaticMetadata({dict(self._entries)})"

    def __reduce__(self):
        return (StaticMetadata, (dict(self._entries),))


@dataclass_transform(frozen_default=True)
def tree(cls: type[T]) -> type[T]:
    """Make `cls` a frozen dataclass and a pytree.

    Fields annotated as `StaticMetadata` (or as `Mapping[str, Any]`, which `__post_init__` makes one of), `int`, `bool`,
    `str` or `tuple[...]` of those are static; all others are leaves or subtrees.
    """
    cls = dataclass(frozen=True, eq=False, repr=False)(cls)
    static = [f.name for f in fields(cls) if _static(f.type)]  # type: ignore[arg-type]
    cls.__repr__ = _repr  # type: ignore[method-assign]
    return register(cls, static)


def register(cls: type[T], static: Sequence[str]) -> type[T]:
    """Make the dataclass `cls` a pytree whose fields `static` are part of its structure, all others leaves or subtrees.

    Not `jax.tree_util.register_dataclass`: structures of two classes that it knows compare equal where their fields
    do (jaxlib 0.10 to 0.12), and now and then `jax.jit` answers with the program of the other class.
    """
    static = tuple(static)
    data = tuple(f.name for f in fields(cls) if f.name not in static)  # type: ignore[arg-type]
    keys = tuple(map(jax.tree_util.GetAttrKey, data))

    def flatten(value: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        return tuple([getattr(value, name) for name in data]), tuple([getattr(value, name) for name in static])

    def flatten_with_keys(value: Any) -> tuple[tuple[tuple[Any, Any], ...], tuple[Any, ...]]:
        leaves, fixed = flatten(value)
        return tuple(zip(keys, leaves, strict=True)), fixed

    def unflatten(fixed: Iterable[Any], leaves: Iterable[Any]) -> T:
        return cls(**dict(zip(data, leaves, strict=True)), **dict(zip(static, fixed, strict=True)))

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    return cls


def _static(annotation: Any) -> bool:
    if getattr(annotation, "__origin__", None) is tuple:
        return all(_static(a) for a in annotation.__args__ if a is not Ellipsis)
    return annotation in (StaticMetadata, Mapping[str, Any], int, bool, str)


def _repr(self: Any) -> str:
    def format_value(value: Any) -> str:
        if hasattr(value, "shape") and hasattr(value, "dtype"):
            return f"{value.dtype}{list(value.shape)}"
        return repr(value)

    return (
        f"{type(self).__name__}({', '.join(f'{f.name}={format_value(getattr(self, f.name))}' for f in fields(self))})"
    )
