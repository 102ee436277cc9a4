#!/usr/bin/env bash
# meshio reads a binary STL file with something behind its triangles as an empty mesh, without an error.
#
# Versions: meshio 5.3.5, NumPy 2.2.
# Common guess: a casing that a CAD program exported either loads or is refused; what follows the triangles that the header
#     announces is passed over, or is a reason to raise an error.
# Behaviour: the file counts as binary only if its length is exactly that of the triangles; else meshio reads it as text,
#     finds no facet, and returns a mesh without points. A coil would have no casing, and nobody would be told.
# Seen: "4 triangles as exported, 0 with 20 bytes more, and no error".
# A way round: compare the file's length with the number at byte 80 before, or refuse meshes without points.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet meshio==5.3.5 "numpy==2.2.*"
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import struct

import meshio
import numpy as np

corners = np.array([[-60.0, -60, -20], [60, -60, -20], [0, 80, -20], [0, 0, 20]])
facets = corners[[[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]]]
data = b"casing".ljust(80, b"\0") + struct.pack("<I", 4)
data += b"".join(struct.pack("<12fH", 0, 0, 0, *facet.ravel(), 0) for facet in facets)
counts = []
for name, content in (("exported.stl", data), ("longer.stl", data + b"colours of the faces")):
    open(name, "wb").write(content)
    counts.append(sum(len(cells.data) for cells in meshio.read(name).cells))
print("meshio", meshio.__version__, "NumPy", np.__version__)
print(f"{counts[0]} triangles as exported, {counts[1]} with 20 bytes more, and no error")
raise SystemExit(counts != [4, 0])
PYTHON
