"""One page that holds the scene, the kept poses and the recorded session, and needs neither Python nor a network."""

import base64
import gzip
from html import escape
from typing import Any

import numpy as np

from jaxm2m.placement import Explorer, PoseReport
from jaxm2m.plot._live import _page
from jaxm2m.plot._live._answer import CONTROLS, make_answer
from jaxm2m.plot._live._recording import Recording
from jaxm2m.plot._live._wire import pack

_LEVELS = 65535
_TRAITS = (
    *CONTROLS, "component", "limit", "kept", "ranges", "muscles", "n_stimulus", "request",
)  # fmt: skip


def write_page(view: Any, explorer: Explorer, recording: Recording | None) -> str:
    """Write the page of a widget."""

    def store(report: PoseReport, **more: Any) -> dict[str, Any]:
        return {"answer": {**make_answer(report, more.pop("message", "")), **more}, "field": _quantise_fields(report)}

    start = explorer.report(view.controls)
    kept = []
    for entry in view.kept:
        report = explorer.report_pose(np.reshape(entry["pose"], (4, 4)), entry["controls"]["didt"])
        kept.append({**store(report), "controls": entry["controls"]})
    session = []
    for i in range(0 if recording is None else len(recording)):
        stimulus = recording.look_up(i)  # type: ignore[union-attr]
        didt = view.didt if stimulus.didt is None else stimulus.didt
        meps = [stimulus.meps.get(name) for name in view.muscles]
        session.append(store(explorer.report_pose(stimulus.pose, didt), recorded=meps))
    state = {name: getattr(view, name) for name in _TRAITS}
    state |= {
        "stimulus": 0, "formats": {}, "has_loop": False, "offline": True, "meshes": _quantise_meshes(view.meshes),
        "stored": {"start": {**store(start), "controls": view.controls._asdict()}, "kept": kept, "session": session},
    }  # fmt: skip
    content = base64.b64encode(gzip.compress(pack(state), 6)).decode()
    return _PAGE.format(
        style=_page.read_style(),
        program=_page.read_program("saved.js").replace("</", "<\\/"),
        state=content,
        note=escape("A saved scene: drag to turn it, wheel to zoom. Moving the coil needs Python and jaxm2m."),
    )


def _quantise_meshes(meshes: dict[str, Any]) -> dict[str, Any]:
    """Vertices in steps of a 65535th of their box, two thousandths of a mm of a head."""
    out = dict(meshes)
    for name in ("scalp", "cortex", "casing"):
        mesh = meshes[name]
        if mesh is None:
            continue
        vertices = np.frombuffer(mesh["vertices"], "<f4").reshape(-1, 3).astype(np.float64)
        low = vertices.min(0)
        step = max(float((vertices - low).max()) / _LEVELS, 1e-9)
        steps = np.rint((vertices - low) / step).astype("<u2")
        out[name] = {**mesh, "vertices": {"low": low.tolist(), "step": step, "steps": steps.tobytes()}}
    return out


def _quantise_fields(report: PoseReport) -> dict[str, Any]:
    """Colours need 8 bits."""
    covered = bool(np.isfinite(report.mean))
    stored: dict[str, Any] = {"covered": covered}
    for name, kind, most in (("magnitude", np.uint8, 255), ("normal", np.int8, 127)):
        values = np.nan_to_num(np.asarray(getattr(report, name), np.float64))
        largest = float(np.abs(values).max(initial=0.0)) or 1.0
        stored[name] = {"largest": largest, "steps": np.rint(values / largest * most).astype(kind).tobytes()}
    return stored


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline'; \
style-src 'unsafe-inline'; img-src data: blob:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>jaxm2m: a coil over a head</title>
<style>
html, body {{ margin: 0; height: 100%; background: white; }}
#live {{ height: calc(100vh - 26px); }}
#live .jaxm2m-live {{ height: 100%; }}
#note {{ font: 12px/26px system-ui, sans-serif; color: #6b6b6b; margin: 0 12px; height: 26px; }}
{style}
#live .jaxm2m-live {{ height: 100%; }}
</style>
</head>
<body>
<div id="live"></div>
<p id="note">{note}</p>
<script type="text/plain" id="state">{state}</script>
<script type="module">
{program}
</script>
</body>
</html>
"""
