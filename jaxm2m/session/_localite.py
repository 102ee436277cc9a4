"""Localite TMS Navigator: TriggerMarkers (stimuli) and InstrumentMarkers (targets) in XML."""

import math
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

import defusedxml.ElementTree
import numpy as np
from defusedxml.common import DefusedXmlException

from jaxm2m.session._rigid import make_rigid
from jaxm2m.session._session import Session

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

# Localite: x into the head, y towards the handle. The new x, y, z are its z, -y, x
_TO_POSE = np.array([[0.0, 0, 1, 0], [0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]])

_UNITS = {"response": {"uv": 1.0, "mv": 1e3, "v": 1e6}, "valueA": {"a/us": 1e6, "a/s": 1.0}, "amplitudeA": {"%": 1.0}}
_ROOTS = {"TriggerMarkerList": "TriggerMarker", "InstrumentMarkerList": "InstrumentMarker"}


def load_localite(data: bytes, path: Path) -> Session:
    """Parse the bytes of the XML file `path`. See `jaxm2m.session.load`."""
    try:
        root = defusedxml.ElementTree.fromstring(data, forbid_dtd=True)
    except DefusedXmlException as error:
        raise ValueError(
            f"path: {path} defines its own XML entities ({type(error).__name__}); it is not a Localite file."
        ) from None
    except (ParseError, ValueError, LookupError) as error:
        raise ValueError(
            f"path: {path} is not well-formed XML ({error}); it was cut off or edited, export it again."
        ) from None
    if root.tag not in _ROOTS:
        raise ValueError(
            f"path: {path} is a {root.tag}; load a TriggerMarkers_Coil*.xml (one a coil) or InstrumentMarker*.xml."
        )
    space = root.get("coordinateSpace", "none")
    if space not in ("RAS", "LPS"):
        raise ValueError(f"path: {path} has the coordinate space {space!r}; it must be RAS or LPS.")
    markers = root.findall(_ROOTS[root.tag])
    kind = "sample" if root.tag == "TriggerMarkerList" else "target"

    poses = make_rigid(
        np.array([_read_matrix(m, i, path) for i, m in enumerate(markers)]).reshape(-1, 4, 4),
        lambda i: f"path: {path}, {_ROOTS[root.tag]} {i + 1}",
    )
    poses = (_LPS_TO_RAS if space == "LPS" else np.eye(4)) @ poses @ _TO_POSE

    factors = _read_factors(root, path)
    responses = {
        key: np.array([_read_response(m, i, key, path) for i, m in enumerate(markers)]) * factors[key] for key in _UNITS
    }
    channels = ("1",) if np.isfinite(responses["response"]).any() else ()
    n = len(markers)
    return Session(
        poses=poses,
        space="subject",
        source_space=space,
        names=tuple(_read_name(m) for m in markers),
        kind=(kind,) * n,
        target=("",) * n,
        time=np.array([_to_float(m.get("recordingTime", "NaN"), i, path) for i, m in enumerate(markers)]) * 1e-3,
        intensity=responses["amplitudeA"],
        didt=responses["valueA"],
        channels=channels,
        meps=responses["response"][:, None][:, : len(channels)],
        mep_latency=np.full((n, len(channels)), np.nan),
        emg=np.empty((n, len(channels), 0)),
    )


def _read_matrix(marker: Element, i: int, path: Path) -> np.ndarray:
    element = marker.find(".//Matrix4D")
    if element is None:
        raise ValueError(f"path: {path}, {marker.tag} {i + 1}: no Matrix4D; export it again.")
    entries = [element.get(f"data{j}{k}") for j in range(4) for k in range(4)]
    if None in entries:
        raise ValueError(f"path: {path}, {marker.tag} {i + 1}: its Matrix4D is incomplete; export it again.")
    matrix = np.array([_to_float(str(e), i, path) for e in entries]).reshape(4, 4)
    # the navigator writes the identity where it did not see the coil
    return np.full((4, 4), np.nan) if np.array_equal(matrix, np.eye(4)) else matrix


def _read_name(marker: Element) -> str:
    inner = marker.find("Marker")
    return (marker if inner is None else inner).get("description") or ""


def _read_factors(root: Element, path: Path) -> dict[str, float]:
    """From the units that the file declares to uV, A/s and %."""
    factors = {key: next(iter(units.values())) for key, units in _UNITS.items()}
    for description in root.iter("responseDescription"):
        key, unit = description.get("id", ""), description.get("unit")
        if key in _UNITS and unit is not None:
            if unit.lower().replace("µ", "u") not in _UNITS[key]:
                raise ValueError(f"path: {path} gives {key!r} in {unit!r}; it must be one of {', '.join(_UNITS[key])}.")
            factors[key] = _UNITS[key][unit.lower().replace("µ", "u")]
    return factors


def _read_response(marker: Element, i: int, key: str, path: Path) -> float:
    for value in marker.iterfind("ResponseValues/Value"):
        if value.get("key") == key:
            return _to_float(value.get("response", "NaN"), i, path)
    return math.nan


def _to_float(text: str, i: int, path: Path) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"path: {path}, marker {i + 1}: {text[:20]!r} is not a number; export it again.") from None
