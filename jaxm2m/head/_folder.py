"""A SimNIBS folder (`m2m_...`): which file in it is the head."""

from pathlib import Path

_LABELS = "final_tissues.nii.gz"


def find_head(folder: Path) -> Path:
    """The mesh of a SimNIBS folder, else its label volume.

    The mesh of `m2m_x` is `x.msh`, in the folder or (as older versions left it) beside it; or else the only `.msh` in
    the folder.

    Raises
    ------
    ValueError
        Several meshes, or neither mesh nor label volume.
    """
    name = folder.resolve().name
    mesh = f"{name.removeprefix('m2m_')}.msh"
    if (folder / mesh).is_file():
        return folder / mesh
    meshes = sorted(folder.glob("*.msh"))
    if len(meshes) > 1:
        raise ValueError(
            f"path: {folder} holds {len(meshes)} meshes ({', '.join(p.name for p in meshes[:4])}); pass the path of "
            "one."
        )
    if meshes:
        return meshes[0]
    if name.startswith("m2m_") and (folder.resolve().parent / mesh).is_file():
        return folder.resolve().parent / mesh
    if (folder / _LABELS).is_file():
        return folder / _LABELS
    raise ValueError(
        f"path: {folder} is a folder with neither a mesh (.msh) nor {_LABELS}; pass a SimNIBS folder (m2m_...), or the "
        "path of a label volume or mesh."
    )
