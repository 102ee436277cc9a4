"""Interfaces with current across them, in three dimensions: slabs, spheres, a folded cortex.

    python benchmarks/interface_errors.py [--spacings 4,2,1] [--cases slab,sphere,fold]

Slabs and spheres are exact (`interfaces/slab.py`, `interfaces/two_medium_sphere.py`); the fold's reference is a
body-fitted quadratic mesh whose own error is below 1 % (`interfaces/fold.py`). Every case is solved with the tensor
(the default), the arithmetic and the harmonic average and hard labels; fractions are exact, counted from labels, or
those of maps of tissue probability of 1 mm (blurred by 1 mm, full width at half maximum, with noise of 2 %).
Errors are relative L2 norms in per cent over points inside the tissue, near the interfaces included.
"""

import argparse
import tempfile
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import nibabel
import numpy as np
import record
from interfaces import fold, slab, two_medium_sphere, voxels
from scipy.ndimage import gaussian_filter

import jaxm2m as jm
from jaxm2m import fem

SOURCES = {None: "exact fractions", "maps": "fractions from 1 mm maps"}
TREATMENTS = ("tensor", "arithmetic", "harmonic", "hard")


@jax.jit
def solved(matrix, b, where, conductivity):
    phi, remainder, stats = fem.solve(matrix, b, 1e-6)
    gradients = jax.tree.map(lambda u, r: -(u + r), fem.gradient(phi, matrix.h), fem.gradient(remainder, matrix.h))
    mixture = matrix.mixture
    e = where(fem.at_centres(gradients), mixture.across, mixture.normal, conductivity)
    return e, stats


def imposed(case, spacing, treatment):
    """Worst relative error over the media of a case that an imposed boundary current drives."""
    fractions = case.fractions(spacing)
    shape = fractions.shape[1:]
    room = [(0, n - m) for n, m in zip(fem.pad_shape(shape), shape, strict=True)]
    f = jnp.asarray(np.pad(fractions, [(0, 0), *room]), jnp.float32)
    f = fem.tissue_fractions(f)
    normal = jnp.zeros((3, *f.shape[1:]), f.dtype) if treatment == "hard" else jax.jit(fem.interface_normal)(f)
    sigma = jnp.asarray(case.sigma, jnp.float32)
    mixture = fem.mix(f, normal, sigma, treatment)
    # lengths in mm throughout, as the load is
    matrix = fem.assemble_stiffness(mixture, float(spacing), scalar=treatment != "tensor")
    b = jnp.asarray(np.pad(case.load(spacing), room), jnp.float32)
    points, layer = case.samples(2000)
    index = (points - case.origin) / spacing - 0.5
    where = jm.efield.build_recovery(f, jnp.asarray(index, jnp.float32), jnp.asarray(layer, jnp.int32))
    e, _ = solved(matrix, b, where, sigma)
    e, truth = np.asarray(e, float), case.field(points, layer)
    return {
        int(m): 100 * float(np.linalg.norm((e - truth)[layer == m]) / np.linalg.norm(truth[layer == m]))
        for m in np.unique(layer)
    }


BLUR, NOISE = 1 / 2.355, 0.02  # mm, standard deviation; of a voxel


def fold_maps(spacing):
    """The head that `head.load` makes of the maps."""
    body = fold.Fold()
    exact = body.fractions(1.0)
    maps = np.stack([gaussian_filter(f, BLUR, mode="nearest") for f in exact])
    whole = np.minimum(maps.sum(0), 1)
    maps = np.clip(maps + NOISE * np.random.default_rng(0).normal(size=maps.shape) * (whole > 0.5), 0, 1)
    maps *= whole / np.maximum(maps.sum(0), 1e-9)
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for name, values in zip(fold.NAMES, maps, strict=True):
            image = nibabel.Nifti1Image(values.astype(np.float32), voxels.affine(1.0, body.origin))
            image.set_sform(image.affine, 1)
            files[name] = Path(folder) / f"{name}.nii.gz"
            nibabel.save(image, files[name])
        conductivity = dict(zip(fold.NAMES, fold.SIGMA, strict=True))
        return jm.head.load(files, spacing, fill="air", conductivity=conductivity)


@cache
def fold_head(spacing, labels):
    if labels == "maps":
        return fold_maps(spacing)
    body = fold.Fold()
    return jm.head.from_fractions(
        body.fractions(spacing, labels),
        voxels.affine(spacing, body.origin),
        fold.NAMES,
        conductivity=dict(zip(fold.NAMES, fold.SIGMA, strict=True)),
    )


def folded(spacing, labels, treatment, reference):
    head = fold_head(spacing, labels)
    sim = jm.efield.Simulator(head, interfaces=treatment, tolerance=1e-6)
    tissue = np.array([head.tissues.index(n) for n in fold.NAMES])[reference.layer]
    if labels == spacing:
        # pure voxels: a point's own tissue may be in none of those round it; it gets the field that a user would see
        tissue = head.tissue_at(reference.points)
    row = {}
    for name, source in fold.COILS.items():
        dipoles = jm.coil.Dipoles(*(jnp.asarray(a, jnp.float32) for a in source.dipoles()))
        coil = jm.coil.Coil((dipoles,), None, jnp.array([jnp.nan]), {"name": name})
        e = np.asarray(sim.bind(coil, jm.efield.Points(reference.points, tissue))(np.eye(4), didt=1e6), float)
        for layer, kind in enumerate(fold.NAMES):
            if (reference.layer == layer).any():
                inside = reference.layer == layer
                row[f"{kind}, coil {name}"] = fold.errors(e[inside], reference.e[name][inside])
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spacings", default="4,2,1")
    parser.add_argument("--cases", default="slab,sphere,fold")
    options = parser.parse_args()
    spacings = [float(s) for s in options.spacings.split(",")]
    chosen = options.cases.split(",")
    for room, cases in (("slab", slab.CASES), ("sphere", two_medium_sphere.CASES)):
        for name, case in cases.items() if room in chosen else ():
            row = {f"{t}, {s:g} mm": imposed(case, s, t) for s in spacings for t in TREATMENTS}
            record.write("interface_errors", f"{room}: {name}", row)
    reference = fold.load()
    for spacing in spacings if "fold" in chosen else ():
        for labels in (None, spacing / 2, spacing, "maps"):
            for treatment in TREATMENTS if labels is None or labels == spacing else ("tensor",):
                source = SOURCES.get(labels) or f"fractions from {labels:g} mm labels"
                row = folded(spacing, labels, treatment, reference)
                record.write("interface_errors", f"fold: {spacing:g} mm, {source}, {treatment}", row)


if __name__ == "__main__":
    main()
