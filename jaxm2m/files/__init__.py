"""What every writer and reader needs once: whole files, one writer, runs in parts, fingerprints, bounded readers."""

from jaxm2m.files._atomic import atomic
from jaxm2m.files._cache import cache_folder
from jaxm2m.files._fingerprint import fingerprint
from jaxm2m.files._hdf5 import Hdf5, open_hdf5, plain
from jaxm2m.files._inflate import inflate
from jaxm2m.files._json import parse_json, read_json
from jaxm2m.files._lock import lock
from jaxm2m.files._nifti import check_nifti_size, nifti_affine, nifti_unit, read_nifti
from jaxm2m.files._npy import read_npy
from jaxm2m.files._parts import Parts, check_output, parts, stored
from jaxm2m.files._settings import Settings, differences, parse_settings, read_settings, setting

__all__ = [
    "Hdf5",
    "Parts",
    "Settings",
    "atomic",
    "cache_folder",
    "check_nifti_size",
    "check_output",
    "differences",
    "fingerprint",
    "inflate",
    "lock",
    "nifti_affine",
    "nifti_unit",
    "open_hdf5",
    "parse_json",
    "parse_settings",
    "parts",
    "plain",
    "read_json",
    "read_nifti",
    "read_npy",
    "read_settings",
    "setting",
    "stored",
]
