"""Run as a program, `python _c3d_process.py in.c3d out.npz`: what ezc3d reads of the analog channels.

A process of its own, because ezc3d is C++ that ends the interpreter on damaged files.
"""

import sys


def main(path: str, out: str) -> None:
    """Write samples, rate, names and units."""
    import ezc3d
    import numpy as np

    content = ezc3d.c3d(path)
    analog = content["parameters"]["ANALOG"]
    values = np.asarray(content["data"]["analogs"], np.float64)
    np.savez(
        out,
        values=values.reshape(values.shape[-2:]).T,
        rate=float(content["header"]["analogs"]["frame_rate"]),
        labels=np.array([str(name) for name in analog["LABELS"]["value"]], str),
        units=np.array([str(unit) for unit in analog.get("UNITS", {}).get("value") or [""]], str),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
