"""A disk that is full while a field is written."""

import h5py
import meshio
import nibabel
import pytest


def check_failing_writer(field, path, monkeypatch):
    """Check that a file that cannot be written leaves the one that was there, and nothing else."""
    path.write_bytes(b"old")

    def fail(*args, **kwargs):
        raise OSError("no space left")

    monkeypatch.setattr(nibabel, "save", fail)
    monkeypatch.setattr(meshio, "write", fail)
    monkeypatch.setattr(h5py.File, "create_dataset", fail)
    with pytest.raises(OSError, match="no space left"):
        field.save(path)
    assert path.read_bytes() == b"old"
    assert [p.name for p in path.parent.iterdir()] == [path.name]
