"""Settings of the documentation; `sphinx-build -b html docs build/site` makes it.

Notebooks and the gallery's scripts run while it is built. `JAXM2M_DOCS_RUN=0` leaves that out, for who writes a page.
Nothing is fetched from the network.
"""

import os
import sys
from pathlib import Path

import jaxm2m

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "_extensions"))

from figures_of_matplotlib import scrape  # noqa: E402  (beside the pages)

run = os.environ.get("JAXM2M_DOCS_RUN", "1") != "0"

project = "jaxm2m"
author = "The jaxm2m developers"
copyright = "The jaxm2m developers"
version = release = jaxm2m.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.viewcode",
    "numpydoc",
    "myst_nb",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
    "rooms",
    "plain_text",
    "signatures",
    "names",
    "from_elsewhere",
    "notebooks_run",
    "self_contained",
]
templates_path = ["_templates"]
exclude_patterns = ["_templates", "_extensions", "inventories", "figures", "gallery/*.ipynb", "gallery/*.py", "**.zip"]
nitpicky = True
# what other packages have, beyond the inventories below, and what is private has no page to link to
nitpick_ignore_regex = [("py:.*", r"(?!jaxm2m\.).*"), ("py:.*", r"jaxm2m\.(.*\.)?_.*")]

# Markdown and notebooks
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4
nb_execution_mode = "off"  # notebooks_run has run them
notebooks_run = run
nb_merge_streams = True
nb_output_stderr = "remove-warn"
nb_ipywidgets_js = {}

# the reference
autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
maximum_signature_line_length = 88
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
default_role = "code"
highlight_language = "text"
viewcode_line_numbers = True

# a name or two of each package that docstrings speak of, so that they are links without a look at the network
intersphinx_mapping = {
    "python": ("https://docs.python.org/3/", "inventories/python.txt"),
    "numpy": ("https://numpy.org/doc/stable/", "inventories/numpy.txt"),
    "jax": ("https://docs.jax.dev/en/latest/", "inventories/jax.txt"),
    "scipy": ("https://docs.scipy.org/doc/scipy/", "inventories/scipy.txt"),
    "pandas": ("https://pandas.pydata.org/docs/", "inventories/pandas.txt"),
    "matplotlib": ("https://matplotlib.org/stable/", "inventories/matplotlib.txt"),
    "h5py": ("https://docs.h5py.org/en/stable/", "inventories/h5py.txt"),
    "nibabel": ("https://nipy.org/nibabel/", "inventories/nibabel.txt"),
    "mne": ("https://mne.tools/stable/", "inventories/mne.txt"),
}

# the gallery
sphinx_gallery_conf = {
    "examples_dirs": "figures",
    "gallery_dirs": "gallery",
    "filename_pattern": r"/plot_",
    "plot_gallery": run,
    "image_scrapers": (scrape,),
    "reset_modules": (),
    "capture_repr": (),
    "doc_module": ("jaxm2m",),
    "reference_url": {"jaxm2m": None},
    "backreferences_dir": "gallery/of",
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "min_reported_time": 600,
    "remove_config_comments": True,
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "write_computation_times": False,
}
# the scraper is a function, which says nothing about what is out of date; pictures are not there when nothing runs
suppress_warnings = ["config.cache", *([] if run else ["image.not_readable"])]

# the pages
html_theme = "pydata_sphinx_theme"
html_title = f"jaxm2m {version}"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "check_switcher": False,
    "switcher": {"json_url": "_static/switcher.json", "version_match": version},
    "navbar_start": ["navbar-logo"],
    "navbar_end": ["version-switcher", "theme-switcher"],
    "navbar_align": "left",
    "navigation_depth": 3,
    "show_toc_level": 2,
    "header_links_before_dropdown": 6,
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
}
html_sidebars = {name: [] for name in ("index", "getting-started", "benchmarks", "changelog", "cite")}

# what runs is small, and mostly compiles; shared between notebooks and the gallery
os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(HERE.parent / ".jax_cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
if run:
    from jaxm2m.cli._arguments import compile_quickly

    compile_quickly()
