"""Notebooks as pages: copied beside the pages, and run there with their quick sizes.

They run two at a time while the gallery is made and other pages are read. One runs anew if it, or any file of the
package, has changed. One that complains, or draws too little, is an error, as in `tests/test_notebooks.py`.
"""

import hashlib
import os
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from sphinx.errors import SphinxError

ROOT = Path(__file__).resolve().parents[2]
FOLDER = "notebooks"
AT_ONCE = 2
SECONDS = 400  # of a cell
FEWEST = 4  # pictures
KEY = "jaxm2m_made_from"

running: dict[str, Future[None]] = {}


def begin(app, config):
    """Called by Sphinx first: start what has to run."""
    pages = Path(app.srcdir) / FOLDER
    pages.mkdir(exist_ok=True)
    package = hashlib.sha256(b"".join(path.read_bytes() for path in sorted((ROOT / "jaxm2m").rglob("*.py"))))
    pool = ThreadPoolExecutor(AT_ONCE)
    for path in sorted((ROOT / "notebooks").glob("*.ipynb"), reverse=True):  # the longest is the last
        page = pages / path.name
        parts = [path.read_bytes(), package.digest() if config.notebooks_run else b"not run"]
        made_from = hashlib.sha256(b"".join(parts)).hexdigest()
        if not page.exists():
            make(path, page, "", False)
        if nbformat.read(page, 4).metadata.get(KEY) != made_from:
            running[path.stem] = pool.submit(make, path, page, made_from, config.notebooks_run)
    pool.shutdown(wait=False)


def make(path, page, made_from, run):
    """Write a page from a notebook."""
    notebook = nbformat.read(path, 4)
    notebook.metadata[KEY] = made_from
    if run:
        environment = os.environ | {
            "JAXM2M_QUICK": "1",
            "JUPYTER_PREFER_ENV_PATH": "1",
            # as where the viewers are missing, which need a display or scripts from the network
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent / "hidden"), str(ROOT)]),
        }
        with tempfile.TemporaryDirectory() as folder:
            client = NotebookClient(notebook, timeout=SECONDS, resources={"metadata": {"path": folder}})
            client.execute(env=environment)
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
        said = "".join(output["text"] for output in outputs if output.get("name") == "stderr")
        pictures = sum("image/png" in output.get("data", {}) for output in outputs)
        if said or pictures < FEWEST:
            raise ValueError(
                f"{pictures} pictures where {FEWEST} are expected; it wrote to stderr: {said or 'nothing'}"
            )
    nbformat.write(notebook, page)


def order(app, env, names):
    """Called by Sphinx with the pages that it is going to read: notebooks come last."""
    names += [f"{FOLDER}/{name}" for name in running if f"{FOLDER}/{name}" not in names]
    names.sort(key=lambda name: name.startswith(f"{FOLDER}/"))


def wait(app, name, source):
    """Called by Sphinx with the text of a page before it is parsed."""
    future = running.pop(name.removeprefix(f"{FOLDER}/"), None)
    if future is None:
        return
    try:
        future.result()
    except Exception as error:
        raise SphinxError(f"{name}: {error}") from error
    source[0] = Path(app.env.doc2path(name)).read_text(encoding="utf-8")


def setup(app):
    """Called by Sphinx."""
    app.add_config_value("notebooks_run", True, "env", bool)
    app.connect("config-inited", begin, priority=100)
    app.connect("env-before-read-docs", order)
    app.connect("source-read", wait, priority=100)
    return {"parallel_read_safe": False, "parallel_write_safe": True}
