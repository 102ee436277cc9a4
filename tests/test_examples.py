"""The examples in public docstrings run, and print what stands there."""

import doctest
import inspect

import house
import pytest

pytestmark = pytest.mark.float32

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def collect():
    """Every public docstring with examples, of all rooms: path -> doctest."""
    parser = doctest.DocTestParser()
    tests = {}
    for room in house.rooms():
        for path, value in house.public(room):
            text = inspect.getdoc(value) or ""
            if ">>>" in text:
                tests[path] = parser.get_doctest(text, {}, path, None, 0)
    return tests


EXAMPLES = collect()


@pytest.mark.parametrize("path", EXAMPLES)
@pytest.mark.slow
def test_the_example_prints_what_it_says(path):
    report = []
    failures, _ = doctest.DocTestRunner(optionflags=FLAGS).run(EXAMPLES[path], out=report.append)
    assert not failures, "".join(report)


def test_every_room_shows_how_it_is_called():
    rooms = {path.split(".")[1] for path in EXAMPLES}
    assert len(EXAMPLES) >= 25
    assert rooms == set(house.rooms()) - {"plot"}  # figures stand in the gallery


def test_examples_say_what_comes_out():
    silent = [path for path, test in EXAMPLES.items() if not any(example.want for example in test.examples)]
    assert not silent
