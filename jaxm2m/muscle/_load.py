"""Models from the field to the muscles, whichever kind a path holds."""

from pathlib import Path

from jaxm2m._types import PathLike
from jaxm2m.muscle.networks._model import Model, load_networks
from jaxm2m.muscle.sources._sources import Sources


def load(path: PathLike) -> Model | Sources:
    """Read what `Model.save` or `Sources.save` wrote.

    Parameters
    ----------
    path
        The folder of a `Model` (those of version 0.1 are read too), or the `.h5` file of `Sources`.

    Returns
    -------
    Model or Sources
        The model that is there.

    Raises
    ------
    FileNotFoundError, ValueError
        No model is there, or one of another kind or version.
    """
    path = Path(path).expanduser()
    if path.suffix.lower() in (".h5", ".hdf5"):
        return Sources.load(path)
    return load_networks(path)
