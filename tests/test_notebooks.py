"""Notebooks run from top to bottom, with small sizes and in a fresh kernel, and are stored without outputs."""

import base64
import os
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from jaxm2m.cli import _arguments

pytestmark = pytest.mark.host

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("*.ipynb"))


def test_there_are_notebooks():
    assert [path.stem for path in NOTEBOOKS] == [
        "01_efield", "02_placement", "03_muscles", "04_emg", "05_populations", "06_the_whole_line", "07_next_stimulus",
    ]  # fmt: skip


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_stored_bare(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("outputs"), f"{path.name}: clear the outputs before storing it"
        assert cell.get("execution_count") is None


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, tmp_path, monkeypatch):
    # this interpreter, whatever kernels the machine has registered
    from jupyter_client.kernelspec import KernelSpec, KernelSpecManager

    spec = KernelSpec(argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"], language="python")
    monkeypatch.setattr(KernelSpecManager, "get_kernel_spec", lambda self, name: spec)
    monkeypatch.setenv("JAXM2M_QUICK", "1")
    for name in ("XLA_FLAGS", "JAX_DISABLE_MOST_OPTIMIZATIONS"):  # of these tests
        monkeypatch.delenv(name, raising=False)
    _arguments.compile_quickly()
    # as where PyVista is missing: what VTK says, and whether it can draw, differs between machines without a display
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "pyvista.py").write_text("raise ModuleNotFoundError('hidden')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "hidden"), prepend=os.pathsep)
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    pictures = [
        output["data"]["image/png"]
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]
    assert len(pictures) >= 4
    assert all(base64.b64decode(p).startswith(b"\x89PNG") for p in pictures)
    complaints = [o for c in notebook.cells for o in c.get("outputs", []) if o.get("name") == "stderr"]
    assert not complaints, complaints
