"""Run as a program, `python _c3d_process.py in.c3d out.npz`: what ezc3d reads of the analog channels.

A process of its own, because ezc3d is C++ that ends the interpreter on damaged files.
"""

import sys


def main(path: str, out: str) -> None:
    """Write samples, rate, names and units, the channels of force plates, and events (s from the first sample)."""
    import ezc3d
    import numpy as np

    content = ezc3d.c3d(path)
    analog = content["parameters"]["ANALOG"]
    values = np.asarray(content["data"]["analogs"], np.float64)
    plates = content["parameters"].get("FORCE_PLATFORM", {}).get("CHANNEL", {}).get("value", [])
    event = content["parameters"].get("EVENT", {})
    labels = [str(label) for label in event.get("LABELS", {}).get("value") or []]
    sides = [str(side) for side in event.get("CONTEXTS", {}).get("value") or [""] * len(labels)]
    minutes = np.asarray(event.get("TIMES", {}).get("value") or np.zeros((2, 0)), np.float64).reshape(2, -1)
    # times count from the first frame of the trial, of which the file may have been cut
    points = content["header"].get("points", {})
    begin = float(points.get("first_frame", 0)) / (float(points.get("frame_rate", 0)) or 1.0)
    count = min(len(labels), len(sides), minutes.shape[1])
    np.savez(
        out,
        values=values.reshape(values.shape[-2:]).T,
        rate=float(content["header"]["analogs"]["frame_rate"]),
        labels=np.array([str(name) for name in analog["LABELS"]["value"]], str),
        units=np.array([str(unit) for unit in analog.get("UNITS", {}).get("value") or [""]], str),
        plates=np.asarray(plates, np.float64).ravel().astype(int) - 1,  # they count from one
        events=np.array([f"{sides[i]} {labels[i]}".strip() for i in range(count)], str),
        onsets=(60 * minutes[0] + minutes[1])[:count] - begin,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
