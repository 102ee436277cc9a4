"""Multigrid hierarchies kept on disk: a large head's is made once."""

from typing import Any

import h5py
import jax.numpy as jnp
import numpy as np
from scipy import sparse

from jaxm2m import files
from jaxm2m.fem import _algebraic
from jaxm2m.fem._algebraic import Algebraic, Level
from jaxm2m.fem._sparse import EllMatrix

SMALLEST = 100_000  # unknowns: below, making it takes a second
MOST = 4 << 30  # bytes of hierarchies on disk
_VERSION = 1


def load_or_build(matrix: sparse.csr_array) -> Algebraic:
    """`build_algebraic`, from the disk where it is known."""
    if matrix.shape[0] < SMALLEST:
        return _algebraic.build_algebraic(matrix)
    recipe = [_VERSION, _algebraic.DEGREE, _algebraic.FRACTION, _algebraic.COARSEST, _algebraic.SAFETY]
    key = files.fingerprint(recipe, matrix.data, matrix.indices, matrix.indptr)
    return files.load_or_make(
        "multigrid", key, lambda: _algebraic.build_algebraic(matrix), read=_read, write=_write, most=MOST
    )


def _write(file: h5py.File, hierarchy: Algebraic) -> None:
    file["coarse_inverse"] = np.asarray(hierarchy.coarse_inverse)
    for i, level in enumerate(hierarchy.levels):
        group = file.create_group(f"level-{i:02d}")
        group["diagonal"], group["spectrum"] = np.asarray(level.diagonal), np.asarray(level.spectrum)
        for name in ("matrix", "prolongation", "restriction"):
            matrix, inner = getattr(level, name), group.create_group(name)
            for k, (columns, values) in enumerate(zip(matrix.columns, matrix.values, strict=True)):
                inner[f"columns-{k:03d}"], inner[f"values-{k:03d}"] = np.asarray(columns), np.asarray(values)
            if matrix.order is not None:
                inner["order"] = np.asarray(matrix.order)


def _read(file: Any) -> Algebraic:
    levels = [file[name] for name in sorted(name for name in file if name.startswith("level-"))]
    return Algebraic([_read_level(group) for group in levels], jnp.asarray(file["coarse_inverse"][()]))


def _read_level(group: Any) -> Level:
    matrices = []
    for name in ("matrix", "prolongation", "restriction"):
        inner = group[name]
        columns, values = (
            [jnp.asarray(inner[k][()]) for k in sorted(inner) if k.startswith(kind)] for kind in ("columns", "values")
        )
        matrices.append(EllMatrix(columns, values, jnp.asarray(inner["order"][()]) if "order" in inner else None))
    matrix, prolongation, restriction = matrices
    diagonal, spectrum = jnp.asarray(group["diagonal"][()]), jnp.asarray(group["spectrum"][()])
    return Level(matrix, diagonal, spectrum, prolongation, restriction)
