"""Tissues: their names, order and conductivities."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

conductivities: Mapping[str, float] = MappingProxyType(
    {
        "white": 0.126,
        "grey": 0.275,
        "csf": 1.654,
        "skull": 0.010,
        "compact_bone": 0.008,
        "spongy_bone": 0.025,
        "scalp": 0.465,
        "eye": 0.5,
        "blood": 0.6,
        "muscle": 0.16,
        "cartilage": 0.88,
        "fat": 0.078,
        "electrode_rubber": 29.4,
        "saline": 1.0,
    }
)
"""Default conductivities, S/m, inside to outside (the field's common values, as in SimNIBS)."""

_ALIASES = {
    "wm": "white",
    "white_matter": "white",
    "gm": "grey",
    "gray": "grey",
    "grey_matter": "grey",
    "gray_matter": "grey",
    "bone": "skull",
    "skin": "scalp",
    "eyes": "eye",
    "eye_balls": "eye",
    "compact": "compact_bone",
    "spongy": "spongy_bone",
    "background": "air",
    "saline_or_gel": "saline",
    "gel": "saline",
}


def canonical_name(name: str) -> str:
    """The name used here for a tissue ("GM" -> "grey")."""
    key = name.strip().lower().replace(" ", "_").replace("-", "_")
    return _ALIASES.get(key, key)


def order_tissues(names: Sequence[str]) -> tuple[str, ...]:
    """Unique tissue names, inside to outside; names not in `conductivities` keep their order at the end."""
    unique = list(dict.fromkeys(n for n in names if n != "air"))
    known = [n for n in conductivities if n in unique]
    return (*known, *(n for n in unique if n not in conductivities))


def look_up_conductivity(
    tissues: Sequence[str], overrides: Mapping[str, float | int] | None = None
) -> Float[Array, "n_tissue"]:
    """Conductivity of every tissue, S/m: `overrides` by name over the defaults.

    Raises
    ------
    ValueError
        A tissue that has neither, a value that is not positive and finite, or a name that is no tissue of the head.
    """
    values_by_name = {canonical_name(name): value for name, value in (overrides or {}).items()}
    for name in values_by_name:
        if name not in tissues:
            raise ValueError(f"conductivity: {name!r} is no tissue of this head; it has {', '.join(tissues)}.")
    values = []
    for name in tissues:
        value = values_by_name.get(name, conductivities.get(name))
        if value is None:
            raise ValueError(f"conductivity: no default for {name!r}; pass conductivity={{{name!r}: ...}} in S/m.")
        if not np.isfinite(value) or value <= 0:
            raise ValueError(f"conductivity: {name!r} is {value}; a positive number in S/m is needed.")
        values.append(float(value))
    return jnp.asarray(values, dtype=jnp.result_type(float))
