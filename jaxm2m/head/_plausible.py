"""Whether a head's size and conductivities are those of a head: doubts are told, nothing is refused."""

import warnings

import numpy as np

from jaxm2m.head._head_model import HeadModel

_SMALLEST, _LARGEST = 100.0, 350.0  # mm: longest side of a newborn's head; of an adult's with its neck
_INSULATOR, _METAL = 1e-5, 10.0  # S/m


def warn_of_doubts(head: HeadModel, name: str) -> None:
    """Warn of a head in another unit than mm, and of conductivities in another than S/m."""
    filled = [np.flatnonzero(np.asarray(head.labels).any(axis=other)) for other in ((1, 2), (0, 2), (0, 1))]
    spacing = np.linalg.norm(np.asarray(head.labels_affine)[:3, :3], axis=0)
    extent = np.array([rows[-1] - rows[0] + 1 for rows in filled]) * spacing
    if not _SMALLEST <= extent.max() <= _LARGEST:
        unit = "cm, multiply its coordinates by 10" if extent.max() < _SMALLEST else "tenths of mm, divide them by 10"
        warnings.warn(
            f"{name}: the head is {' x '.join(f'{x:.0f}' for x in extent)} mm large, and people's are 100 to 350 mm. "
            f"If the file is in {unit}; a part of a head and an animal's are what they are.",
            stacklevel=4,
        )
    for tissue, value in zip(head.tissues, np.asarray(head.conductivity, float), strict=True):
        if not _INSULATOR <= value <= _METAL:
            warnings.warn(
                f"conductivity: {value:g} S/m for {tissue}; tissues have 0.005 to 2 S/m. Convert it if it is in mS/m "
                "or S/mm.",
                stacklevel=4,
            )
