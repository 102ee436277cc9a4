"""Localite TMS Navigator: TriggerMarkers (stimuli) and InstrumentMarkers (targets) in XML."""

import math
import warnings
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

_VOLTS = {"uv": 1.0, "mv": 1e3, "v": 1e6}
_UNITS = {
    "response": _VOLTS,
    "mepAmplitude": _VOLTS,
    "valueA": {"a/us": 1e6, "a/s": 1.0},
    "amplitudeA": {"%": 1.0},
}
# what the format calls the spaces of a session that it can hold, with axes to the right, anterior and superior
SPACE_NAMES = {"subject": "RAS", "MNI152": "MNI"}
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
    if space not in ("RAS", "LPS", "MNI"):
        raise ValueError(
            f"path: {path} has the coordinate space {space!r}, which is not known; export it in RAS, LPS or MNI."
        )
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
    # newer versions write the amplitude under a key of its own
    amplitude = next((key for key in ("response", "mepAmplitude") if np.isfinite(responses[key]).any()), None)
    channels = () if amplitude is None else ("1",)
    _tell_unread(markers, amplitude, path)
    n = len(markers)
    return Session(
        poses=poses,
        space="MNI152" if space == "MNI" else "subject",
        source_space=space,
        names=tuple(_read_name(m) for m in markers),
        kind=(kind,) * n,
        target=("",) * n,
        time=np.array([_to_float(m.get("recordingTime", "NaN"), i, path) for i, m in enumerate(markers)]) * 1e-3,
        intensity=responses["amplitudeA"],
        didt=responses["valueA"],
        channels=channels,
        meps=responses[amplitude or "response"][:, None][:, : len(channels)],
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


def _tell_unread(markers: list[Element], amplitude: str | None, path: Path) -> None:
    """Warn of values that nothing here takes."""
    taken = {"valueA", "amplitudeA", amplitude or "response"}
    unread = {}
    for marker in markers:
        for value in marker.iterfind("ResponseValues/Value"):
            key, number = value.get("key", ""), value.get("response", "NaN")
            if key not in taken and number.lower() != "nan":
                unread[key] = number
    if unread:
        named = ", ".join(f"{key} ({number})" for key, number in sorted(unread.items())[:8])
        warnings.warn(f"path: {path} also holds values that are not read, such as {named}.", stacklevel=4)


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
