"""Small valid files of every kind that the package reads."""

import base64
import json
import zlib
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import scipy.io
from mesh_cases import binary_22, layered

import jaxm2m as jm
from jaxm2m import emg, files, muscle, session
from jaxm2m._pytree import StaticMetadata
from jaxm2m.efield import Basis, Region
from jaxm2m.efield._expansion import Expansion
from jaxm2m.emg.lfads._trainable import SequentialVAE
from jaxm2m.head import Surface
from jaxm2m.population import _run


def _frame(seed: int) -> np.ndarray:
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q[:, 0] *= np.sign(np.linalg.det(q))
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = q, (10.0 * seed, 20, 30)
    return pose


POSES = np.stack([_frame(k) for k in (1, 2, 3)])
AFFINE = np.array([[-3.0, 0, 0, 18], [0, 3, 0, -18], [0, 0, 3, -18], [0, 0, 0, 1]])


def labels() -> np.ndarray:
    """Cubes in cubes: 1 scalp ... 5 white."""
    out = np.zeros((13, 13, 13), np.uint8)
    for k in range(5):
        out[k + 1 : 12 - k, k + 1 : 12 - k, k + 1 : 12 - k] = k + 1
    return out


def nifti(path: Path, values: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    image = nibabel.Nifti1Image(values, affine)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)


def folder(path: Path) -> None:
    """A SimNIBS folder of a label volume with its transforms; `path` is one of these."""
    folder = path.parent.parent
    (folder / "toMNI").mkdir(exist_ok=True)
    nifti(folder / "final_tissues.nii.gz", labels())
    grid = np.stack(np.meshgrid(*[np.arange(5.0)] * 3, indexing="ij"), -1).astype(np.float32)
    for stem in ("Conform2MNI_nonl", "MNI2Conform_nonl"):
        nifti(folder / "toMNI" / f"{stem}.nii.gz", grid, np.diag([9.0, 9, 9, 1]))
    (folder / "toMNI" / "MNI2conform_12DOF.txt").write_text("1 0 0 5\n0 1 0 6\n0 0 1 7\n0 0 0 1\n")


def ccd(path: Path) -> None:
    rows = "-0.02 0.0 -0.005 0.0 0.0 -1e-4\n0.02 0.0 -0.005 0.0 0.0 1e-4\n0.02 0.01 -0.005 0.0 0.0 1e-4\n"
    header = "# Little version 1.0;dIdtmax=100.0;coilname=Little;brand=None;x=-10,10;y=-10,10;z=-10,10;stimulator=S"
    path.write_text(f"{header}\n3\n# centers and moments\n{rows}")


def casing(path: Path, binary: bool = True) -> None:
    """A tetrahedron round the dipoles of `ccd`, which lies beside it."""
    ccd(path.with_name("coil.ccd"))
    corners = np.array([[-60.0, -60, -20], [60, -60, -20], [0, 80, -20], [0, 0, 20]])
    triangles = corners[[[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]]]
    if binary:
        facets = np.zeros(4, [("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
        facets["corners"] = triangles
        path.write_bytes(b"solid casing".ljust(80) + np.uint32(4).tobytes() + facets.tobytes())
        return
    lines = ["solid casing"]
    for facet in triangles:
        corners_of = [f"vertex {x} {y} {z}" for x, y, z in facet]
        lines += ["facet normal 0 0 1", "outer loop", *corners_of, "endloop", "endfacet"]
    path.write_text("\n".join([*lines, "endsolid casing", ""]))


def simnibs(path: Path, compressed: bool = False) -> None:
    """A session of one TMS list with two positions."""
    positions = np.zeros((1, 2), [(key, object) for key in ("type", "name", "matsimnibs", "didt")])
    for i, entry in enumerate(positions[0]):
        entry["type"], entry["name"], entry["didt"] = "POSITION", f"p{i}", 1e6
        entry["matsimnibs"] = np.eye(4) + 10.0 * (i + 1) * np.eye(4, k=3)
    lists = np.empty((1, 1), object)
    lists[0, 0] = {"type": "TMSLIST", "pos": positions}
    scipy.io.savemat(path, {"type": "SESSION", "poslist": lists}, do_compression=compressed)


def _pack(array: Any, dtype: Any = float) -> str:
    return base64.b64encode(zlib.compress(np.ascontiguousarray(array, dtype).tobytes())).decode()


def tcd(path: Path) -> None:
    loop = np.array([[x, y, -5.0] for x, y in ((0, 0), (20, 0), (20, 20), (0, 20))])
    grid = np.random.default_rng(0).normal(size=(4, 4, 4, 3))
    corners = np.array([[x, y, z] for x in (-30.0, 30) for y in (-30.0, 30) for z in (-9.0, 0)])
    faces = [[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1], [2, 3, 7], [2, 7, 6], [0, 2, 6]]
    faces += [[0, 6, 4], [1, 5, 7], [1, 7, 3]]
    content = {
        "name": "Little",
        "brand": "B",
        "limits": [[-300.0, 300.0]] * 3,
        "resolution": [1.0, 1.0, 1.0],
        "coilCasing": 0,
        "coilModels": [{"points": corners.tolist(), "faces": faces}, {"points": _pack(corners), "faces": _pack(faces)}],
        "deformRangeList": [{"initial": 2.0, "range": [0, 5]}],
        "deformList": [
            {"type": "x", "deformRange": 0},
            {"type": "rot2p", "initial": 10.0, "point1": [0, 0, 0], "point2": [0, 0, 1]},
        ],
        "stimulatorList": [{"name": "S", "maxdIdt": 1.2e8}, {"name": "T"}],
        "coilElementList": [
            {"type": 1, "stimulator": 0, "points": loop.tolist(), "values": (loop * 0 + 1e-4).tolist()},
            {"type": 2, "stimulator": 1, "points": _pack(loop), "values": _pack(np.roll(loop, -1, 0) - loop)}
            | {"deformations": [0, 1], "elementCasing": 1},
            {"type": 3, "data": _pack(grid), "shape": [4, 4, 4], "affine": np.diag([9.0, 9, 9, 1]).tolist()},
        ],
    }
    path.write_text(json.dumps(content))


def coil_grid(path: Path) -> None:
    nifti(path, np.random.default_rng(0).normal(size=(5, 5, 5, 3)).astype(np.float32), np.diag([9.0, 9, 9, 1]))


def brainsight(path: Path) -> None:
    place = ["Loc. X", "Loc. Y", "Loc. Z", *(f"m{j}n{i}" for j in range(3) for i in range(3))]
    cells = ["\t".join(f"{v:.4f}" for v in pose[:3, [3, 0, 1, 2]].T.ravel()) for pose in POSES]
    extra = [
        "Stim. Power A",
        "Date",
        "Time",
        "EMG Res.",
        "EMG Window Start",
        "EMG Peak-to-peak 1",
        "EMG Latency 1",
        "EMG Data 1",
    ]
    lines = [
        "# Version: 14",
        "# Coordinate system: NIfTI:Aligned",
        "# Units: millimetres, degrees, milliseconds, and microvolts",
        "# " + "\t".join(["Target Name", *place]),
        f"T0\t{cells[0]}",
        "# " + "\t".join(["Sample Name", "Session Name", "Assoc. Target", *place, *extra]),
        f"S0\tDoe Jane\tT0\t{cells[1]}\t55\t2021-06-25\t23:59:59.500\t0.5\t-5\t100.5\t22.1\t1;2;3;4",
        f"S1\tDoe Jane\tT0\t{cells[2]}\t55\t2021-06-26\t00:00:01.000\t0.5\t-5\t90.5\t22.1\t1;2;3;5",
        f"S2\tDoe Jane\t(null)\t{chr(9).join(['(null)'] * 12)}" + "\t(null)" * 8,
        "# Session Landmark Name\tSession Name\tLoc. X\tLoc. Y\tLoc. Z",
        "Nasion\tDoe Jane\t1\t2\t3",
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def brainsight_corner(path: Path) -> None:
    brainsight(path)
    path.write_text(path.read_text().replace("NIfTI:Aligned", "Brainsight"))
    nifti(path.with_name("image.nii"), np.zeros((40, 40, 40), np.uint8))


def aligned_image(path: Path) -> None:
    image = nibabel.Nifti1Image(np.zeros((40, 40, 40), np.uint8), AFFINE)
    image.set_sform(AFFINE, code=2)
    image.set_qform(AFFINE, code=1)
    nibabel.save(image, path)
    brainsight(path.with_name("export.txt"))


def matrix4d(matrix: np.ndarray) -> str:
    return "<Matrix4D " + " ".join(f'data{i}{j}="{float(matrix[i, j])!r}"' for i in range(4) for j in range(4)) + "/>"


def triggers(path: Path) -> None:
    lines = ['<?xml version="1.0" encoding="UTF-8"?>']
    lines += ['<TriggerMarkerList coordinateSpace="LPS" startTime="15:28:23.660" patient="Doe Jane">']
    lines += ["<!-- Doe Jane 2021-06-25 -->"]
    lines += ['<ResponseParameters><responseDescription id="response" unit="uV"/>']
    lines += ['<responseDescription id="valueA" unit="A/us"/></ResponseParameters>']
    for i, pose in enumerate(POSES):
        lines += [f'<TriggerMarker description="a" recordingTime="{100 * i}" set="true"><ResponseValues>']
        lines += [f'<Value key="{k}" response="{60 + i}"/>' for k in ("valueA", "response", "amplitudeA")]
        lines += [f"</ResponseValues>{matrix4d(pose)}</TriggerMarker>"]
    path.write_text("\n".join([*lines, "</TriggerMarkerList>"]))


def targets(path: Path) -> None:
    jm.session.save_targets(path, POSES, names=["a", "b", "c"], space="subject")


def npy(path: Path) -> None:
    np.save(path, POSES)


def emg_samples() -> np.ndarray:
    return np.random.default_rng(0).gamma(2.0, 0.1, (60, 3)).round(4)


def recording() -> session.Recording:
    """Three channels, two trials."""
    return session.load_emg(emg_samples().reshape(2, 30, 3), 500.0, channels=("FDI", "ADM", "APB"), unit="uV")


def mat5(path: Path, compressed: bool = False) -> None:
    names = np.array(["FDI", "ADM", "APB"], object)
    content = {"rec": {"data": emg_samples(), "fs": 500.0, "labels": names, "unit": "uV"}, "other": np.zeros(2)}
    scipy.io.savemat(path, content, do_compression=compressed)


def mat73(path: Path) -> None:
    with h5py.File(path, "w", userblock_size=512) as file:
        data = file.create_dataset("rec/emg", data=emg_samples().T)
        data.attrs["MATLAB_class"] = np.bytes_("double")
        file["rec/fs"] = np.array([[500.0]])
        cells = []
        for i, name in enumerate(("FDI", "ADM", "APB")):
            words = file.create_dataset(f"#refs#/{i}", data=np.array([[ord(c)] for c in name], np.uint16))
            words.attrs["MATLAB_class"] = np.bytes_("char")
            cells.append([words.ref])
        names = file.create_dataset("rec/labels", data=np.array(cells, dtype=h5py.ref_dtype))
        names.attrs["MATLAB_class"] = np.bytes_("cell")


def csv(path: Path, delimiter: str = ",") -> None:
    rows = [delimiter.join(("time", "trial", "FDI", "ADM"))]
    for i, (a, b, _) in enumerate(emg_samples()):
        rows.append(delimiter.join((f"{i / 500:.3f}", str(i // 30), f"{a}", f"{b}")))
    path.write_text("\n".join(rows) + "\n")


def edf(path: Path) -> None:
    """EDF of two channels and two records."""

    def words(*values: Any, width: int) -> bytes:
        return b"".join(str(v).encode().ljust(width)[:width] for v in values)

    head = (
        words("0", width=8) + words("X X X X", "Startdate X X X X", width=80) + words("01.01.20", "00.00.00", width=8)
    )
    head += words(768, width=8) + words("", width=44) + words(2, 1, width=8) + words(2, width=4)
    head += words("EMG FDI", "EMG ADM", width=16) + words("", "", width=80) + words("uV", "uV", width=8)
    head += words(-1000, -1000, width=8) + words(1000, 1000, width=8) + words(-32768, -32768, width=8)
    head += words(32767, 32767, width=8) + words("", "", width=80) + words(50, 50, width=8) + words("", "", width=32)
    values = np.random.default_rng(0).integers(-999, 999, (2, 2, 50)).astype("<i2")
    path.write_bytes(head + values.tobytes())


def brainvision(path: Path) -> None:
    stem = path.stem
    path.write_text(
        "Brain Vision Data Exchange Header File Version 1.0\n\n[Common Infos]\n"
        f"DataFile={stem}.eeg\nMarkerFile={stem}.vmrk\nDataFormat=BINARY\nDataOrientation=MULTIPLEXED\n"
        "NumberOfChannels=2\nSamplingInterval=2000\n\n[Binary Infos]\nBinaryFormat=INT_16\n\n"
        "[Channel Infos]\nCh1=FDI,,0.1,uV\nCh2=ADM,,0.1,uV\n"
    )
    path.with_suffix(".vmrk").write_text(
        "Brain Vision Data Exchange Marker File, Version 1.0\n\n[Common Infos]\n"
        f"DataFile={stem}.eeg\n\n[Marker Infos]\nMk1=New Segment,,1,1,0,20200101000000000000\nMk2=Stimulus,S1,20,1,0\n"
    )
    path.with_suffix(".eeg").write_bytes(np.arange(120, dtype="<i2").tobytes())


def sidecar(path: Path) -> None:
    edf(path.with_name("sub-1_emg.edf"))
    path.write_text("name\ttype\tunits\nEMG FDI\tEMG\tuV\nEMG ADM\tMISC\tuV\n")


def nwb(path: Path) -> None:
    from datetime import UTC, datetime

    import pynwb

    content = pynwb.NWBFile("made", "1", datetime(2020, 1, 1, tzinfo=UTC))
    group = content.create_electrode_group("muscles", "", "leg", content.create_device("amplifier"))
    for name in ("FDI", "ADM", "APB"):
        content.add_electrode(location=name, group=group)
    region = content.create_electrode_table_region([2, 0, 1], "emg")
    series = pynwb.ecephys.ElectricalSeries("EMG", emg_samples(), region, starting_time=1.0, rate=500.0)
    content.add_acquisition(series)
    times = np.arange(60) / 500
    content.add_acquisition(pynwb.TimeSeries("force", data=emg_samples()[:, 0], unit="N", timestamps=times))
    content.add_trial(start_time=1.01, stop_time=1.05)
    with pynwb.NWBHDF5IO(path, "w") as out:
        out.write(content)


def c3d(path: Path) -> None:
    import ezc3d

    content = ezc3d.c3d()
    content["parameters"]["POINT"]["RATE"]["value"] = [100]
    content["parameters"]["POINT"]["LABELS"]["value"] = []
    content["data"]["points"] = np.zeros((4, 0, 6))
    content["parameters"]["ANALOG"]["RATE"]["value"] = [1000]
    content["parameters"]["ANALOG"]["LABELS"]["value"] = ["FDI", "ADM", "APB"]
    content["data"]["analogs"] = emg_samples().T[None]
    content.write(str(path))


def rectified(path: Path) -> None:
    emg.preprocess(recording(), rectified=True, screen=None, clip=None, to=500.0).save(path)


def activation(path: Path) -> None:
    x = emg_samples()
    emg.Activation(x, x[:, :2], x[:, :1], 500.0, ("FDI", "ADM", "APB"), np.array([[0, 30], [30, 60]])).save(path)


def meps() -> muscle.Meps:
    """Six stimuli, two muscles, one flagged."""
    values = np.arange(12.0).reshape(6, 2) * 50
    reasons = np.full((6, 2), "", "U30")
    reasons[1, 0] = "background: 31.2 uV RMS"
    return muscle.Meps(values, values * 0 + 0.02, reasons, ("FDI", "ADM"))


def comparison(path: Path) -> None:
    import pandas as pd

    x = np.arange(12.0).reshape(6, 2)
    table = pd.DataFrame([{"variant": v, "fold": f, "held-out score": 0.1} for v in "ab" for f in range(3)])
    fold = np.arange(6) % 3
    muscle.Comparison(("a", "b"), ("FDI", "ADM"), x, np.stack([x, x]), np.ones((3, 2)), fold, fold[:3], table).save(
        path
    )


def fields(path: Path) -> None:
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        data = rng.normal(size=(6, 3, 3, 3, 3)).astype(np.float32)
        file.create_dataset("e", data=data, chunks=(1, 3, 3, 3, 3), compression="gzip")
        file["poses"], file["didt"], file["affine"] = (
            np.tile(POSES, (2, 1, 1)),
            np.full(6, 1e6),
            np.diag([2.0, 2, 2, 1]),
        )
        file.attrs["space"] = "MNI152"


def basis(path: Path) -> None:
    rng = np.random.default_rng(0)

    def some(*shape: int) -> np.ndarray:
        return rng.normal(size=shape)

    solver = Expansion(some(2, 4, 3), some(3, 3), some(2, 3), some(3), some(2, 9), some(6, 9), np.float64(0.01))
    scalp = Surface(some(5, 5, 5), np.eye(4), np.array([[0.0] * 3, [4.0] * 3]))
    accuracy = json.dumps([{"coil": "c", "error": 0.1, "estimate": 0.2}])
    settings = {"head": files.make_setting("h", 1)}
    metadata = {"tissues": ("white", "grey"), "space": "subject", "accuracy": accuracy, "settings": settings}
    metadata["grid"] = {"affine": np.eye(4).tolist(), "shape": [2, 2, 2]}
    active, tissue = np.array([0, 1, 2, 5]), np.array([0, 1, 1, 0])
    Basis(solver, Region(scalp, some(8, 3), active, tissue, StaticMetadata(metadata))).save(path)


SETTINGS = {"precision": files.make_setting("float32")}


def record(path: Path) -> None:
    sizes = emg.LFADSConfig(3, generator=8, controller=6, ci_encoder=5, ic_encoder=6, ic_dim=3, co_dim=1, fac_dim=3)
    metadata = {"channels": ["FDI", "ADM", "APB"], "sfreq": 500.0, "window": 30, "overlap": 10, "preset": "small"}
    trainable = SequentialVAE(sizes, offset=(0.1, 0.2, 0.3), margin=6)
    record = {
        "format": 1,
        "settings": SETTINGS | _run.model_settings(trainable),
        "config": {"model": dict(trainable.settings), "hyper": ["learning_rate"], "members": 2, "notes": metadata},
        "plan": {"chunk": 1},
        "sessions": [{"versions": {}, "devices": []}],
        "stopped": "unfinished",
    }
    path.write_text(json.dumps(record))


def history(path: Path) -> None:
    row = {"generation": 0, "step": 10, "member": 0, "score": 0.5, "loss": None, "parent": 0}
    path.write_text("".join(json.dumps(row | {"member": i}) + "\n" for i in range(3)))


def unfinished(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    record = {"settings": {"a": files.make_setting("b")}, "batch": 1, "part": 2, "total": 6}
    path.write_text(json.dumps(record))
    with h5py.File(path.parent / "000000.h5", "w") as file:
        file["e"] = np.zeros(3)


def model(path: Path) -> None:
    import shutil

    import jax

    from jaxm2m.muscle.networks import _inputs
    from jaxm2m.muscle.networks._networks import NetworkConfig
    from jaxm2m.muscle.networks._training import MuscleMapper

    shutil.rmtree(path.parent, ignore_errors=True)
    sizes = NetworkConfig(shape=(2, 2, 2), filters=(2,), pools=0, kernel=1, hidden=(4,))
    mapper = MuscleMapper(sizes, 2, 1)
    params = jax.vmap(mapper.init)(jax.random.split(jax.random.key(0), 1))
    reduce = _inputs.Reduction((4, 4, 4), (2, 2, 2), 2)
    rate = jm.cortex.FiringRate(jm.cortex.threshold(60.0, "V/m"))
    model = muscle.Model(
        params,
        np.ones(2, np.float32),
        rate,
        None,
        np.diag(np.float32([2, 2, 2, 1])),
        reduce,
        mapper,
        "combined",
        ("FDI", "ADM"),
        1,
    )
    model.save(path.parent)


def points(path: Path) -> None:
    path.write_text("x,y,z\n1,2,3\n# a comment\n4,5,6\n")


def decoded(path: Path) -> None:
    path.write_text("knee,hip\n" + "".join(f"{i},{-i}\n" for i in range(5)))


def tensors() -> bytes:
    nodes, elements, tags = layered(2)
    values = np.tile(np.eye(3).ravel() * 0.3, (len(elements), 1))
    return binary_22(nodes, elements, tags, data=[("conductivity tensors", values)])
