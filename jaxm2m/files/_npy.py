"""NumPy's own files, of numbers alone."""

import numpy as np

from jaxm2m import _check
from jaxm2m._types import PathLike


def read_npy(path: PathLike, name: str = "path") -> np.ndarray:
    """Read the array of a `.npy` file.

    Parameters
    ----------
    path
        The file.
    name
        What errors call it.

    Returns
    -------
    array
        Real numbers, in the file's shape and unit (any unit).

    Raises
    ------
    ValueError
        Not such a file, cut off, of Python objects (nothing is unpickled) or anything else that is no real number.
    """
    path = _check.file(path, name)
    try:
        # mapped, so that a header cannot claim more than the file holds
        values = np.array(np.load(path, mmap_mode="r", allow_pickle=False))
    except Exception as error:  # the header is a piece of Python, and its parsers raise what they met
        line = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise ValueError(
            f"{name}: {path} is not a whole .npy file of numbers ({line}); save it with numpy.save."
        ) from None
    return np.asarray(_check.array(values, f"{name}: {path}"))
