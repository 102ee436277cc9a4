"""Figures that a script of the gallery leaves in its names: `jm.plot` makes them without pyplot."""

from matplotlib.figure import Figure
from sphinx_gallery.scrapers import figure_rst


def scrape(block, block_vars, gallery_conf):
    """Save the figures that are new since the last block of this script, and return what shows them."""
    paths = []
    for value in block_vars["example_globals"].values():
        if isinstance(value, Figure) and not hasattr(value, "_in_gallery"):
            value._in_gallery = True
            path = next(block_vars["image_path_iterator"])
            value.savefig(path, dpi=130, facecolor="white", bbox_inches="tight", pad_inches=0.15)
            paths.append(path)
    return figure_rst(paths, gallery_conf["src_dir"])
