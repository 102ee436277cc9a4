"""Where things are kept that could be made again."""

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """Return the folder of the cache: what JAXM2M_CACHE names, else the user's own for this package.

    Returns
    -------
    Path
        It may not exist yet.
    """
    return Path(os.environ.get("JAXM2M_CACHE") or platformdirs.user_cache_dir("jaxm2m"))
