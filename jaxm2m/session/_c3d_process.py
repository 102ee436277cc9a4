"""Run as a program, `python _c3d_process.py in.c3d out.npz`: what ezc3d reads of the analog channels.

A process of its own, because ezc3d is C++ that ends the interpreter on damaged files.
"""

import sys

import ezc3d
import numpy as np

content = ezc3d.c3d(sys.argv[1])
analog = content["parameters"]["ANALOG"]
values = np.asarray(content["data"]["analogs"], np.float64)
np.savez(
    sys.argv[2],
    values=values.reshape(values.shape[-2:]).T,
    rate=float(content["header"]["analogs"]["frame_rate"]),
    labels=np.array([str(name) for name in analog["LABELS"]["value"]], str),
    units=np.array([str(unit) for unit in analog.get("UNITS", {}).get("value") or [""]], str),
)
