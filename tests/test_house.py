"""The house keeps its rules: names, closed doors, no import circles, docstrings of one form, types."""

import house
import pytest

pytestmark = pytest.mark.host

# public parameters that take what only the caller knows; at most 60 in all
UNTYPED = 60


@pytest.mark.parametrize("room", house.rooms())
def test_public_docstrings_are_of_one_form(room):
    assert house.docstring_faults(room) == []


@pytest.mark.parametrize("room", [*house.rooms(), "cli"])
def test_names_are_the_fields_own(room):
    assert house.name_faults(room) == []


def test_private_modules_use_the_same_names():
    assert house.name_faults() == []


def test_no_room_opens_another_rooms_private_doors():
    assert house.closed_doors() == []


def test_no_import_circles():
    assert house.circles() == []


def test_few_public_parameters_are_without_a_type():
    untyped = [row for room in house.rooms() for row in house.untyped(room)]
    assert len(untyped) <= UNTYPED, untyped


def test_the_rules_find_what_breaks_them(tmp_path, monkeypatch):
    """A check that cannot fail is none."""
    package = tmp_path / "jaxm2m"
    for room in ("head", "coil"):
        (package / room).mkdir(parents=True)
    (package / "head" / "_a.py").write_text("from jaxm2m.head import _b\n\ndef drawn(found):\n    return found\n")
    (package / "head" / "_b.py").write_text("from jaxm2m.head import _a\nX = {'a key of many words it is': 1}\n")
    (package / "coil" / "_c.py").write_text("from jaxm2m.head import _a\nimport jaxm2m as jm\njm.head._a.drawn\n")
    for folder in ("benchmarks", "notebooks"):
        (tmp_path / folder).mkdir()
    (tmp_path / "benchmarks" / "d.py").write_text("from jaxm2m import _check\n")
    monkeypatch.setattr(house, "ROOT", tmp_path)
    monkeypatch.setattr(house, "PACKAGE", package)
    names = "\n".join(house.name_faults())
    for part in ("found -> ", "drawn() is a bare participle", "is a sentence"):
        assert part in names
    doors = [row.split(": ")[1] for row in house.closed_doors()]
    assert doors == ["jaxm2m.head._a", "jaxm2m.head._a", "jaxm2m._check"]
    assert house.circles() == [["jaxm2m.head._a", "jaxm2m.head._b"]]
