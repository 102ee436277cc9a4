"""Tissues: their names, order, conductivities, and the label tables of common software."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TypeAlias

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

LabelNumbers: TypeAlias = int | np.integer | Sequence[int] | set[int] | frozenset[int] | np.ndarray | range
LabelTable: TypeAlias = Mapping[int, str] | Mapping[np.integer, str] | Mapping[str, LabelNumbers]
"""Which label is which tissue: number -> name, or name -> number or numbers."""

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
}

FIVE_TISSUES = {1: "scalp", 2: "skull", 3: "csf", 4: "grey", 5: "white"}

SIMNIBS = {
    1: "white",
    2: "grey",
    3: "csf",
    4: "skull",
    5: "scalp",
    6: "eye",
    7: "compact_bone",
    8: "spongy_bone",
    9: "blood",
    10: "muscle",
}

# FreeSurferColorLUT: aseg (0-85, 251-255), samseg with its outer tissues (165, 257-262), aparc and wmparc by range
FREESURFER = {
    **dict.fromkeys((2, 7, 16, 28, 41, 46, 60, 77, 78, 79, 85, 251, 252, 253, 254, 255, 5001, 5002), "white"),
    **dict.fromkeys((3, 8, 9, 10, 11, 12, 13, 17, 18, 19, 20, 26, 27), "grey"),
    **dict.fromkeys((42, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 58, 59, 80), "grey"),
    **dict.fromkeys((4, 5, 14, 15, 24, 31, 43, 44, 63, 72, 122, 257), "csf"),
    **dict.fromkeys((30, 62), "blood"),
    **dict.fromkeys((165,), "skull"),
    **dict.fromkeys((118, 258), "scalp"),
    **dict.fromkeys((259, 260), "eye"),
    **dict.fromkeys((130, 262), "air"),
    **dict.fromkeys([*range(1000, 1036), *range(2000, 2036), *range(11100, 11176), *range(12100, 12176)], "grey"),
    **dict.fromkeys([*range(3000, 3036), *range(4000, 4036)], "white"),
}

_NEEDED = (("white",), ("grey",), ("csf",), ("skull", "compact_bone", "spongy_bone"), ("scalp",))


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


def parse_mapping(labels: Mapping) -> dict[int, str]:
    """A user's mapping as number -> name, from {number: name}, {name: number} or {name: (numbers)}."""
    if not isinstance(labels, Mapping) or not labels:
        raise TypeError('labels: a mapping is needed, {"scalp": 1, ...} or {1: "scalp", ...}.')
    table: dict[int, str] = {}

    def enter(number, name):
        if isinstance(number, bool) or not isinstance(number, (int, np.integer)):
            raise TypeError(f"labels: {number!r} is no whole number; map tissues to label numbers.")
        number, name = int(number), canonical_name(name)
        if number < 0:
            raise ValueError(f"labels: {number} is negative; label numbers start at 0 (air).")
        if table.setdefault(number, name) != name:
            raise ValueError(f"labels: {number} is mapped to both {table[number]!r} and {name!r}; keep one.")

    for key, value in labels.items():
        if isinstance(key, str) == isinstance(value, str):
            raise TypeError(
                f'labels: found {key!r}: {value!r}; map a name to numbers ("scalp": 1) or a number to a name.'
            )
        if isinstance(key, str):
            for number in value if isinstance(value, (Sequence, set, frozenset, np.ndarray, range)) else (value,):
                enter(number, key)
        else:
            enter(key, value)
    if table.get(0, "air") != "air":
        raise ValueError(f"labels: 0 is air, not {table[0]!r}; renumber the volume.")
    table[0] = "air"
    return table


def recognise(labels: np.ndarray, counts: Mapping[int, int], name: str) -> tuple[str, dict[int, str]]:
    """The default table that fits a volume: by the set of labels, and for {1...5} by which label lies outside.

    Parameters
    ----------
    labels
        (nx, ny, nz) integer volume.
    counts
        label -> number of voxels.
    name
        File or argument that messages name.

    Returns
    -------
    Name of the table, and the table as number -> tissue.

    Raises
    ------
    ValueError
        Unknown labels, an ambiguous table, or a tissue missing; the message names the fix.
    """
    present_labels = {label for label in counts if label != 0}
    fix = 'pass labels={"white": ..., "grey": ..., "csf": ..., "skull": ..., "scalp": ...} with the volume\'s numbers'
    if not present_labels:
        raise ValueError(f"{name}: only label 0 (air) found; is this the label volume?")
    fits: list[tuple[str, dict[int, str]]] = []
    if present_labels <= set(FIVE_TISSUES) or present_labels <= set(SIMNIBS):
        touching = _count_air_contacts(labels)
        total = sum(touching.values())
        outermost = max(touching, key=lambda k: touching[k]) if total else 0
        clear = total > 0 and touching[outermost] > total / 2
        if present_labels <= set(FIVE_TISSUES) and clear and FIVE_TISSUES[outermost] == "scalp":
            fits.append(("five tissues", FIVE_TISSUES))
        if present_labels <= set(SIMNIBS) and clear and SIMNIBS[outermost] == "scalp":
            fits.append(("SimNIBS", SIMNIBS))
        if not fits:
            raise ValueError(
                f"{name}: labels {sorted(present_labels)} fit the five-tissue (1 scalp ... 5 white) and the SimNIBS "
                f"(1 white ... 5 scalp) tables in part, but neither's scalp lies outermost; {fix}."
            )
    elif present_labels <= set(FREESURFER):
        fits.append(("FreeSurfer", FREESURFER))
    else:
        tables = {"five tissues": FIVE_TISSUES, "SimNIBS": SIMNIBS, "FreeSurfer": FREESURFER}
        nearest = min(tables, key=lambda k: len(present_labels - set(tables[k])))
        unknown = sorted(present_labels - set(tables[nearest]))
        raise ValueError(
            f"{name}: labels {format_few(unknown)} are unknown (nearest table: {nearest}); {fix}"
            ' (map labels to "air" to drop them).'
        )
    title, table = fits[0]
    present = {table[label] for label in present_labels}
    for choices in _NEEDED:
        if not present & set(choices):
            hint = "; FreeSurfer's aseg holds the brain alone, segment with samseg or SimNIBS charm" * (
                title == "FreeSurfer"
            )
            raise ValueError(f"{name}: no voxel of {' or '.join(choices)} (table: {title}){hint}; or {fix}.")
    return title, {label: table.get(label, "air") for label in (0, *sorted(present_labels))}


def _count_air_contacts(labels: np.ndarray) -> dict[int, int]:
    """Voxels' faces shared with air, by label."""
    contacts: dict[int, int] = {}
    for axis in range(3):
        moved = np.moveaxis(labels, axis, 0)
        for a, b in ((moved[:-1], moved[1:]), (moved[1:], moved[:-1])):
            values, n = np.unique(a[(b == 0) & (a != 0)], return_counts=True)
            for value, count in zip(values.tolist(), n.tolist(), strict=True):
                contacts[value] = contacts.get(value, 0) + count
    return contacts


def format_few(values: Sequence[int]) -> str:
    return ", ".join(map(str, values[:8])) + (f" and {len(values) - 8} more" if len(values) > 8 else "")
