"""Which label is which tissue: the tables of common software, a user's mapping, and recognition.

Recognition goes by the numbers that occur, by what lies outermost, and, where tables differ in one label, by its volume
and parts. It takes what fits without doubt, and asks for everything else.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
from scipy import ndimage

from jaxm2m.head._tissues import canonical_name

LabelNumbers: TypeAlias = int | np.integer | Sequence[int] | set[int] | frozenset[int] | np.ndarray | range
LabelTable: TypeAlias = str | Mapping[int, str] | Mapping[np.integer, str] | Mapping[str, LabelNumbers]
"""Which label is which tissue: number -> name, name -> number or numbers, or a name of `label_tables`."""

_FIVE = {1: "scalp", 2: "skull", 3: "csf", 4: "grey", 5: "white"}
_SIMNIBS = {
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
    11: "cartilage",
    12: "fat",
    100: "electrode_rubber",
    500: "saline",
}
# FreeSurferColorLUT: aseg (0-85, 251-255), samseg with its outer tissues (165, 257-262), aparc and wmparc by range
_FREESURFER = {
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
# numbers of the charm atlas: 501 and on in SimNIBS, 902 and on in FreeSurfer 8
_CHARM_HEAD = {
    501: "air",
    502: "blood",
    506: "eye",
    507: "scalp",
    508: "muscle",
    509: "scalp",
    511: "scalp",
    512: "white",
    514: "blood",
    515: "compact_bone",
    516: "spongy_bone",
    517: "air",
    520: "csf",
    530: "white",
    902: "blood",
    907: "scalp",
    908: "muscle",
    909: "scalp",
    911: "scalp",
    914: "blood",
    915: "compact_bone",
    916: "spongy_bone",
    930: "white",
    126: "white",
}

label_tables: Mapping[str, Mapping[int, str]] = MappingProxyType(
    {
        "five": MappingProxyType(_FIVE),
        "mcx": MappingProxyType(_FIVE | {6: "air"}),
        "simnibs": MappingProxyType(_SIMNIBS),
        "roast": MappingProxyType({1: "white", 2: "grey", 3: "csf", 4: "skull", 5: "scalp", 6: "air"}),
        "freesurfer": MappingProxyType(_FREESURFER),
        "charm": MappingProxyType(_FREESURFER | _CHARM_HEAD),
    }
)
"""Tables by name, label number -> tissue; 0 is air in all of them.

"five" (1 scalp, 2 skull, 3 CSF, 4 grey, 5 white); "mcx", the same with 6 air; "simnibs" (`final_tissues.nii.gz` and
meshes: 1 white, 2 grey, 3 CSF, 4 bone, 5 scalp, 6 eyes, 7 compact and 8 spongy bone, 9 blood, 10 muscle, 11 cartilage,
12 fat, 100 electrode rubber, 500 saline or gel); "roast" (1 white, 2 grey, 3 CSF, 4 bone, 5 skin, 6 air cavities);
"freesurfer" (its colour table: aseg, aparc, wmparc, samseg); "charm" (FreeSurfer's numbers, and those of the charm
atlas for the head, 501 to 530 or 902 to 930: mucosa and other soft tissue count as scalp, veins and arteries as blood,
the spinal cord and the optic nerve as white).
"""

_TITLES = {
    "five": "five tissues",
    "mcx": "mcx",
    "simnibs": "SimNIBS",
    "roast": "ROAST",
    "freesurfer": "FreeSurfer",
    "charm": "CHARM",
}
_NEEDED = (("white",), ("grey",), ("csf",), ("skull", "compact_bone", "spongy_bone"), ("scalp",))
_SMALL = ("five", "mcx", "simnibs", "roast")
_BONE = ("compact_bone", "spongy_bone")
_RANK = ("white", "grey", "csf", "skull", "scalp")
_EYE = (2.0, 14.0)  # ml; an eyeball has 7
_CRUMB = 0.2  # ml


@dataclass(frozen=True)
class LabelGeometry:
    """What recognition looks at.

    Attributes
    ----------
    volume
        ml of each label but 0.
    outside
        Area that each label has in common with the outside, in any unit.
    measure_parts
        Volumes of the connected parts of a label, ml.
    measure_contacts
        Area that a label has in common with each other one, in any unit.
    """

    volume: Mapping[int, float]
    outside: Mapping[int, float]
    measure_parts: Callable[[int], Sequence[float]]
    measure_contacts: Callable[[int], Mapping[int, float]]


def select(labels: str, present: Iterable[int], name: str, noun: str = "labels") -> tuple[str, dict[int, str]]:
    """Title and table of one of `label_tables`, for the numbers that are there.

    Raises
    ------
    ValueError
        No such table, or a number that it does not have.
    """
    if labels not in label_tables:
        raise ValueError(
            f'labels: {labels!r} is no table; take one of {", ".join(label_tables)}, or a mapping {{"scalp": 1, ...}}.'
        )
    table = {0: "air", **label_tables[labels]}
    unknown = sorted(set(present) - set(table))
    if unknown:
        raise ValueError(
            f"{name}: {noun} {format_few(unknown)} are not in the table {labels!r}; take another one, or map them."
        )
    tissues = {label: table[label] for label in sorted({0, *present})}
    if set(tissues.values()) == {"air"}:
        raise ValueError(f"{name}: everything is air in the table {labels!r}; take another one, or map the {noun}.")
    return _TITLES[labels], tissues


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


def recognise(geometry: LabelGeometry, name: str, *, mesh: bool = False) -> tuple[str, dict[int, str]]:
    """The default table that fits without doubt.

    Parameters
    ----------
    geometry
        The labels of a volume or a mesh.
    name
        File or argument that messages name.
    mesh
        Whether they are a mesh's tags: tissues may be missing, and 1002 is SimNIBS's number of a surface, not
        FreeSurfer's of a part of the cortex.

    Returns
    -------
    Title of the table, and the table as number -> tissue.

    Raises
    ------
    ValueError
        Unknown labels, an ambiguous table, or a tissue missing; the message names the fix.
    """
    present = sorted(geometry.volume)
    noun = "tags" if mesh else "labels"
    tables = {key: table for key, table in label_tables.items() if not mesh or key in _SMALL}
    fix = (
        'pass labels="..." (one of '
        + ", ".join(label_tables)
        + f') or labels={{"white": ..., "grey": ..., "csf": ..., "skull": ..., "scalp": ...}} with its {noun}'
    )
    if not present:
        raise ValueError(f"{name}: only label 0 (air) found; is this the label volume?")
    known = [key for key, table in tables.items() if set(present) <= set(table)]
    if not known:
        nearest = min(reversed(tables), key=lambda key: len(set(present) - set(tables[key])))
        unknown = [label for label in present if label not in tables[nearest]]
        raise ValueError(
            f"{name}: {noun} {format_few(unknown)} are unknown (nearest table: {_TITLES[nearest]}); {fix} (map {noun} "
            'to "air" to drop them).'
        )
    # FreeSurfer's numbers are part of CHARM's, and the numbers of small tables of both
    small = [key for key in known if key in _SMALL]
    candidates = [key for key in small if key != "mcx" or 6 in present] or known[:1]
    fitting, doubts = [], []
    for key in candidates:
        doubt = _doubt(label_tables[key], geometry, noun)
        if doubt:
            doubts.append(f"{_TITLES[key]}: {doubt}")
        else:
            fitting.append(key)
    if "simnibs" in fitting and "roast" in fitting and 6 not in present:
        fitting.remove("roast")  # the same but for 6
    if mesh and len(fitting) > 1:
        fitting = [key for key in fitting if key == "simnibs"] or fitting
    if len(fitting) != 1:
        reason = "; ".join(doubts) if not fitting else f"the tables {' and '.join(_TITLES[k] for k in fitting)} fit"
        raise ValueError(f"{name}: {noun} {format_few(present)} cannot be told for sure ({reason}); {fix}.")
    key = fitting[0]
    table = label_tables[key]
    tissues = {table[label] for label in present}
    for choices in () if mesh else _NEEDED:
        if not tissues & set(choices):
            hint = "; FreeSurfer's aseg holds the brain alone, segment with samseg or SimNIBS charm" * (
                key == "freesurfer"
            )
            raise ValueError(f"{name}: no voxel of {' or '.join(choices)} (table: {_TITLES[key]}){hint}; or {fix}.")
    return _TITLES[key], {label: table.get(label, "air") for label in (0, *present)}


def _doubt(table: Mapping[int, str], geometry: LabelGeometry, noun: str) -> str:
    """Why a table does not fit; empty if it does."""
    outside: dict[str, float] = {}
    for label, area in geometry.outside.items():
        # what is air in this table is no skin: what lies under it is outside
        below = geometry.measure_contacts(label) if table[label] == "air" else {label: area}
        for other, shared in below.items():
            tissue = table[other]
            outside[tissue] = outside.get(tissue, 0.0) + shared * (tissue != "air")
    present = {("skull" if table[label] in _BONE else table[label]) for label in geometry.volume}
    ranked = [tissue for tissue in _RANK if tissue in present]
    total = sum(outside.values())
    if ranked and total:
        outermost = max(outside, key=lambda tissue: outside[tissue])
        if outermost != ranked[-1] or outside[outermost] <= total / 2:
            numbers = [label for label in geometry.volume if table[label] == outermost]
            return f"{outermost} ({noun} {format_few(numbers)}) would lie outermost, not {ranked[-1]}"
    for label in (6,) if table.get(6) in ("eye", "air") and 6 in geometry.volume else ():
        parts = [part for part in geometry.measure_parts(label) if part > _CRUMB]
        eyes = 0 < len(parts) <= 2 and all(_EYE[0] <= part <= _EYE[1] for part in parts)
        what = f"{label} is {geometry.volume[label]:.3g} ml in {len(parts)} part{'s' * (len(parts) != 1)}"
        if table[label] == "eye" and not eyes:
            return f"{what}, which is no pair of eyes"
        if table[label] == "air":
            if eyes:
                return f"{what}, which may be eyes"
            contacts = geometry.measure_contacts(label)
            inner = sum(area for other, area in contacts.items() if table.get(other) in ("white", "grey", "csf"))
            if inner > 0.05 * sum(contacts.values()):
                return f"{what} and touches brain or CSF, as air seldom does"
    return ""


def measure_volume_labels(labels: np.ndarray, counts: Mapping[int, int], voxel: float) -> LabelGeometry:
    """The geometry of a label volume (nx, ny, nz); `voxel` in mm^3."""

    def measure_parts(label: int) -> list[float]:
        parts, n = ndimage.label(labels == label)
        sizes = np.bincount(parts.ravel(), minlength=n + 1)[1:]
        return sorted((sizes * voxel / 1000).tolist(), reverse=True)

    outside = _count_contacts(labels, 0)
    if not outside:  # something fills the box: its faces are the outside
        for axis in range(3):
            for face in (0, -1):
                values, n = np.unique(np.take(labels, face, axis), return_counts=True)
                for value, count in zip(values.tolist(), n.tolist(), strict=True):
                    outside[value] = outside.get(value, 0.0) + count
    return LabelGeometry(
        volume={label: n * voxel / 1000 for label, n in counts.items() if label != 0},
        outside=outside,
        measure_parts=measure_parts,
        measure_contacts=lambda label: _count_contacts(labels, label),
    )


def _count_contacts(labels: np.ndarray, label: int) -> dict[int, float]:
    """Voxels' faces shared with those of `label`, by the other label; not with air but where that is asked for."""
    contacts: dict[int, float] = {}
    for axis in range(3):
        moved = np.moveaxis(labels, axis, 0)
        for a, b in ((moved[:-1], moved[1:]), (moved[1:], moved[:-1])):
            values, n = np.unique(a[(b == label) & (a != label)], return_counts=True)
            for value, count in zip(values.tolist(), n.tolist(), strict=True):
                contacts[value] = contacts.get(value, 0.0) + count
    contacts.pop(0, None)
    return contacts


def format_few(values: Sequence[int]) -> str:
    return ", ".join(map(str, values[:8])) + (f" and {len(values) - 8} more" if len(values) > 8 else "")
