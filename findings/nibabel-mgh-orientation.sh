#!/usr/bin/env bash
# nibabel fills in the orientation of a FreeSurfer volume that has none, and then reports that the file has one.
#
# Versions: nibabel 5.3.2, NumPy 2.2.
# Common guess: header["goodRASFlag"] of a loaded .mgh is what the file holds, so that a reader can ask whether the
#     voxels have an orientation before it trusts the affine.
# Behaviour: where the file's flag is 0, the format's default (coronal, 1 mm, centred) is written into the header, and the
#     flag is set to 1. To know, one has to read bytes 28 and 29 of the file.
# Seen: "flag in the file: 0, flag after loading: 1", with an affine that is not the one the volume was saved with.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet nibabel==5.3.2 "numpy==2.2.*"
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import nibabel
import numpy as np

affine = np.array([[2.0, 0, 0, -10], [0, 2, 0, -20], [0, 0, 2, -30], [0, 0, 0, 1]])
nibabel.save(nibabel.freesurfer.MGHImage(np.zeros((4, 5, 6), np.int32), affine), "whole.mgh")
data = bytearray(open("whole.mgh", "rb").read())
data[28:30] = b"\0\0"
open("without.mgh", "wb").write(data)
image = nibabel.load("without.mgh")
in_file = int.from_bytes(open("without.mgh", "rb").read()[28:30], "big")
flag = int(image.header["goodRASFlag"])
print("nibabel", nibabel.__version__, "NumPy", np.__version__)
print(f"flag in the file: {in_file}, flag after loading: {flag}")
print(image.affine)
raise SystemExit(not (in_file == 0 and flag == 1 and not np.allclose(image.affine, affine)))
PYTHON
