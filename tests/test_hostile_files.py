"""Exports, poses, coils, runs and models that are damaged or hostile; nothing in any file is evaluated."""

import ast
import base64
import json
import os
import re
import struct
import zlib
from pathlib import Path

import fuzz_files as made
import jax
import nibabel
import numpy as np
import pytest
from fuzz_cases import read_mask
from fuzz_verdict import defect, peak

import jaxm2m as jm
from jaxm2m import files, population, session
from jaxm2m.population import _chunking, _directory

pytestmark = [
    pytest.mark.host,
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"),
]


def test_nothing_is_unpickled_or_evaluated():
    forbidden = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml"}
    for file in Path(jm.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names = {str(node.module).partition(".")[0]}
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                names = {node.func.id} & {"eval", "exec", "compile", "__import__"}
                assert not names, f"{file}:{node.lineno}"
                continue
            elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert isinstance(node.value, ast.Constant)
                assert node.value.value is False
                continue
            else:
                continue
            assert not names & forbidden, f"{file}:{node.lineno}"


class Bomb:
    """Goes off where it is unpickled."""

    def __reduce__(self):
        return (os.mkdir, (os.path.abspath("gone-off"),))


def test_objects_stay_shut(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "poses.npy"
    np.save(path, np.array([Bomb()], object), allow_pickle=True)
    for read in (session.load_poses, files.read_npy):
        with pytest.raises(ValueError, match=r"poses\.npy is not a whole \.npy file of numbers"):
            read(path)
    assert not (tmp_path / "gone-off").exists()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("Version: 14", "Version: " + "9" * 5000, "has version 99999999999999999999 of the format"),
        ("Version: 14", "Version: ²", "has version ² of the format"),
        ("EMG Data 1", "EMG Data " + "1" * 5000, None),
        ("\t0.5\t", "\tinf\t", "needs one positive 'EMG Res.'"),
        ("00:00:01.000", "00:00:01.000+02:00", None),
        ("\t55\t", "\tDoe Jane\t", "'Stim. Power A' holds something else"),
        ("\t55\t", "\t2021-06-25\t", "'Stim. Power A' holds something else"),
        ("\t55\t", "\t55,5\t", "'Stim. Power A' holds '55,5'"),
    ],
)
def test_brainsight_text_that_nobody_expects(tmp_path, old, new, words):
    path = tmp_path / "export.txt"
    made.brainsight(path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    if words is None:
        session.load(path)
        return
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        session.load(path)
    assert not defect(caught.value, path)


def test_brainsight_waveforms_fill_no_table_that_they_do_not_fill(tmp_path):
    path = tmp_path / "export.txt"
    made.brainsight(path)
    lines = path.read_text().splitlines()
    row = next(line for line in lines if line.startswith("S1"))
    lines[lines.index(row)] = row.replace("1;2;3;5", "1;" * 300_000 + "1")
    path.write_text("\n".join([*lines[:8], *[row] * 2000, *lines[8:]]))
    with pytest.raises(ValueError, match=r"export\.txt has EMG of up to 300001 values in few of its 20\d\d rows"):
        session.load(path)


def test_image_with_a_header_that_nibabel_refuses(tmp_path):
    path = tmp_path / "image.nii"
    made.aligned_image(path)
    data = bytearray(path.read_bytes())
    data[123] = 240  # units of no name
    path.write_bytes(data)
    session.load(path.with_name("export.txt"), path)
    assert files.read_nifti(path)[0].shape == (40, 40, 40)
    struct.pack_into("<f", data, 256, 1e20)  # quatern_b
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"image: .*image\.nii has a broken qform"):
        session.load(path.with_name("export.txt"), path)


def test_mask_that_lies_beyond_all_integers(tmp_path):
    path = tmp_path / "mask.nii"
    affine = made.AFFINE.copy()
    affine[:3, 3] = 1e25, -1e25, 1e30
    made.nifti(path, made.labels(), affine)
    with pytest.raises(ValueError, match=r"--mask: .*mask\.nii has no voxel above 0\.5 at the fields' points"):
        read_mask(path)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.json", b"[" + b"9" * 5000 + b"]", "is not JSON (a number without end)"),
        ("a.json", b"[" * 100_000, "is not JSON (nested too deep)"),
        ("a.npy", b"\x93NUMPY\x01\x00\x10\x00{'descr': '<f8', ", "is not a whole .npy file"),
        ("a.npy", b"\x93NUMPY\x01\x00\x76\x00" + b"(" * 0x76, "is not a whole .npy file"),
        ("a.csv", b" ".join([b"1e200"] * 16), "axes are unit vectors"),
    ],
)
def test_poses_that_no_parser_likes(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        session.load_poses(path)
    assert not defect(caught.value, path)


def test_xml_entities_are_not_expanded(tmp_path):
    path = tmp_path / "t.xml"
    laughs = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 10))
    for prolog in (
        f'<!DOCTYPE a [<!ENTITY l0 "ha">{laughs}]>',
        '<!DOCTYPE a [<!ENTITY l9 SYSTEM "file:///etc/passwd">]>',
    ):
        path.write_text(
            f'<?xml version="1.0"?>{prolog}<TriggerMarkerList coordinateSpace="RAS">&l9;</TriggerMarkerList>'
        )
        before = peak(reset=True)
        with pytest.raises(ValueError, match=r"t\.xml defines its own XML entities"):
            session.load(path)
        assert peak() - before < 50


def changed(path, change):
    made.tcd(path)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["coilElementList"][0].update(points=[[10**400, 0, 0]] * 4), "is not a regular array of numbers"),
        (lambda c: c["coilElementList"][0].update(points=[[1e200, 0, 0]] * 4), "m from the origin; lengths in a coil"),
        (lambda c: c["coilElementList"][1].update(deformations=3), "`deformations` is int"),
        (lambda c: c["coilElementList"][2].update(affine=np.diag([1e6, 1, 1, 1]).tolist()), "m from the origin"),
        (lambda c: c["coilModels"][0].update(faces=[[0, 1, 7]] * 90_000), "a casing of 90000 triangles of up to"),
        (lambda c: c["coilModels"][0]["points"].append([0, 0, 1e9]), "m from the origin"),
        (lambda c: c["stimulatorList"][0].update(maxdIdt=10**400), "expected a positive number"),
        (lambda c: c["deformList"][1].update(initial=10**400), "has no initial setting"),
    ],
)
def test_tcd_that_reaches_too_far(tmp_path, change, words):
    path = changed(tmp_path / "coil.tcd", change)
    with pytest.raises(ValueError, match=words) as caught:
        jm.coil.load(path)
    assert not defect(caught.value, path)


def test_coil_too_strong_for_single_precision(tmp_path):
    strong = [[0, 0, 1e200]] * 4
    path = changed(tmp_path / "coil.tcd", lambda c: c["coilElementList"][0].update(values=strong))
    if jax.config.jax_enable_x64:
        pytest.skip("float64 holds it")
    with pytest.raises(ValueError, match=r"coil\.tcd: holds numbers that are too large for float32"):
        jm.coil.load(path)


def test_tcd_bomb(tmp_path):
    bomb = base64.b64encode(zlib.compress(bytes(200 << 20), 9)).decode()
    path = changed(tmp_path / "coil.tcd", lambda c: c["coilElementList"][0].update(points=bomb))
    before = peak(reset=True)
    with pytest.raises(ValueError, match=r"coil\.tcd: coilElementList\[0\]: `points`: more than 48,000,000 bytes"):
        jm.coil.load(path)
    assert peak() - before < 200


def test_coil_grid_far_away_or_not_a_number(tmp_path):
    path = tmp_path / "coil.nii.gz"
    values = np.random.default_rng(0).normal(size=(5, 5, 5, 3))
    for affine in (np.diag([1e5, 9, 9, 1]), np.diag([9.0, 9, 9, 1]) + 1e7 * np.eye(4, k=3)):
        nibabel.save(nibabel.Nifti1Image(values, affine), path)
        with pytest.raises(ValueError, match=r"coil\.nii\.gz: the grid: reaches .* m from the origin"):
            jm.coil.load(path)
    values[0] = np.nan
    nibabel.save(nibabel.Nifti1Image(values, np.diag([9.0, 9, 9, 1])), path)
    with pytest.raises(ValueError, match=r"coil\.nii\.gz: 75 values of A are NaN"):
        jm.coil.load(path)
    path = tmp_path / "coil.ccd"
    made.ccd(path)
    path.write_text(path.read_text().replace("0.02 0.01", "1e307 0.01"))
    with pytest.raises(ValueError, match=r"coil\.ccd: a dipole lies 1e\+307 m from the origin"):
        jm.coil.load(path)


def test_unfinished_run_of_a_million_million_items(tmp_path):
    path = tmp_path / "x.h5.parts" / "run.json"
    made.unfinished(path)
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"total": 10**15, "part": 1}))
    assert files.count_stored(tmp_path / "x.h5") == 0
    path.write_text(json.dumps(record | {"total": float("inf")}))
    assert files.count_stored(tmp_path / "x.h5") == 0


@pytest.mark.parametrize(
    "change",
    [
        {"settings": {"model": 3}},
        {"settings": {"model": {"value": 3}}},
        {"settings": {"model": {"is": 3}}},
        {"sessions": [3]},
        {"stopped": None},
        {"config": {"model": {}, "hyper": ["a"], "members": 10**400}},
        {"config": {"model": {}, "hyper": [3], "members": 2, "notes": {}}},
        {"config": {"model": {}, "hyper": [], "members": True, "notes": {}}},
    ],
)
def test_run_that_is_not_what_it_says(tmp_path, change):
    path = tmp_path / "run.json"
    made.record(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=r"directory: .*run\.json is damaged"):
        population.read_config(tmp_path)


def test_history_damaged_in_its_middle_is_not_cut_in_silence(tmp_path):
    path = tmp_path / "history.jsonl"
    made.history(path)
    whole = path.read_text()
    assert len(_directory.read_history(tmp_path)) == 3
    path.write_text(whole[:-20])  # a kill
    assert len(_directory.read_history(tmp_path)) == 2
    for line in ("{", "[1]", '{"generation": "a"}', "\xff"):
        path.write_text(f"{line}\n{whole}", encoding="latin-1")
        with pytest.raises(ValueError, match=r"history\.jsonl, line 1,? is"):
            _directory.read_history(tmp_path)


def test_plans_and_locks_of_any_content(tmp_path):
    for text in ("[" * 100_000, "{}", '{"a": {"chunk": -3}}', "\x00"):
        (tmp_path / "plans.json").write_text(text)
        assert isinstance(_chunking._read_plans(tmp_path / "plans.json"), dict)
        assert files._lock._describe_holder(text) == "another process"
    assert files._lock._describe_holder('{"pid": 1e999, "host": "a"}') == "another process"


def test_checkpoint_of_another_shape_is_refused_before_it_is_made_room_for(tmp_path):
    def restored(like):
        with population.Checkpoints(tmp_path / "c", read_only=True) as checkpoints:
            checkpoints.restore(0, {"a": like})

    with population.Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(0, {"a": np.zeros(3)}, 0.0)
    before = peak(reset=True)
    with pytest.raises(ValueError, match=r"checkpoint .*c/0 holds float64\[3\] as \['a'\], this version needs"):
        restored(np.broadcast_to(np.float64(0), (1 << 40,)))
    assert peak() - before < 100
    for file in (tmp_path / "c" / "0").rglob("*"):
        if file.is_file():
            file.write_bytes(b"noise")
    with pytest.raises(ValueError, match=r"directory: .*/c(/0)? cannot be read"):
        restored(np.zeros(3))
