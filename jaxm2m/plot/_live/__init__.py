"""A coil that a person moves over a head, in notebooks, as a local page, and as a saved one."""

from jaxm2m.plot._live._call import live, make_view

__all__ = ["live", "make_view"]
