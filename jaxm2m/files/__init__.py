"""What every writer and reader needs once: whole files, one writer, runs in parts, fingerprints, bounded readers."""

from jaxm2m._cache import cache_folder
from jaxm2m.files._atomic import atomic
from jaxm2m.files._chunks import compress_chunk, create_chunked, write_chunks
from jaxm2m.files._fingerprint import fingerprint
from jaxm2m.files._hdf5 import Hdf5, decode_text, open_hdf5
from jaxm2m.files._inflate import inflate
from jaxm2m.files._json import parse_json, read_json
from jaxm2m.files._kept import load_or_make
from jaxm2m.files._lock import lock
from jaxm2m.files._mgh import read_mgh
from jaxm2m.files._nifti import check_nifti_size, describe_disagreement, nifti_affine, nifti_unit, read_nifti
from jaxm2m.files._npy import read_npy
from jaxm2m.files._resumable import Parts, check_output, count_stored, open_parts
from jaxm2m.files._settings import Settings, describe_differences, make_setting, parse_settings, read_settings

__all__ = [
    "Hdf5",
    "Parts",
    "Settings",
    "atomic",
    "cache_folder",
    "check_nifti_size",
    "check_output",
    "compress_chunk",
    "count_stored",
    "create_chunked",
    "decode_text",
    "describe_differences",
    "describe_disagreement",
    "fingerprint",
    "inflate",
    "load_or_make",
    "lock",
    "make_setting",
    "nifti_affine",
    "nifti_unit",
    "open_hdf5",
    "open_parts",
    "parse_json",
    "parse_settings",
    "read_json",
    "read_mgh",
    "read_nifti",
    "read_npy",
    "read_settings",
    "write_chunks",
]
