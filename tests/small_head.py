"""A small head of five shells as a label volume, for tests of commands."""

import nibabel
import numpy as np

AFFINE = np.diag([4.0, 4, 4, 1])
AFFINE[:3, 3] = -38.0


def radii():
    """Distance from the middle (20, 20, 20), mm."""
    axes = (np.arange(20) - 9.5) * 4
    return np.linalg.norm(np.stack(np.meshgrid(axes, axes, axes, indexing="ij")), axis=0)


def shells():
    """Labels of scalp, skull, CSF, grey and white matter inside 36, 32, 28, 26 and 20 mm."""
    radius = radii()
    labels = np.zeros(radius.shape, np.uint8)
    for label, limit in ((1, 36), (2, 32), (3, 28), (4, 26), (5, 20)):
        labels[radius < limit] = label
    return labels


def save_labels(path, labels):
    """Write labels to a NIfTI file."""
    nibabel.save(nibabel.Nifti1Image(labels, AFFINE), path)
