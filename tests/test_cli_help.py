"""What `--help` and `doctor` tell a newcomer: the line of the science, an example of each command, the next step."""

import re
import shlex

import pytest
import typer
from typer.testing import CliRunner

from jaxm2m import cli
from jaxm2m.cli import _doctor

pytestmark = pytest.mark.host

TREE = typer.main.get_command(cli.app)


def leaves(name, command):
    """Each command that does something: (its words, click's command)."""
    children = getattr(command, "commands", {})
    for key, child in children.items():
        yield from leaves(f"{name} {key}", child)
    if not children:
        yield name, command


def test_commands_stand_in_the_order_of_the_line():
    output = CliRunner().invoke(cli.app, ["--help"], env={"COLUMNS": "120"}).output
    panels = ("Begin here", "Field of a coil", "Placement", "Muscles", "Design", "EMG")
    places = [output.index(f"─ {panel}") for panel in panels]
    assert places == sorted(places)
    commands = ("demo", "doctor", "efield", "basis", "place", "live", "muscle", "design", "emg")
    places = [output.index(f"│ {command} ") for command in commands]
    assert places == sorted(places)
    assert set(commands) == set(TREE.commands)


@pytest.mark.parametrize(
    ("name", "command"), list(leaves("jaxm2m", TREE)), ids=lambda x: x if isinstance(x, str) else ""
)
def test_each_command_has_an_example_that_parses(name, command):
    match = re.search(r"Example: `(.+?)`", command.help, re.DOTALL)
    assert match, f"{name}: no example"
    words = shlex.split(match[1])
    assert words[: len(name.split())] == name.split()
    # parses and converts every option, and calls nothing
    with command.make_context(name, words[len(name.split()) :]) as context:
        sources = {context.get_parameter_source(parameter).name for parameter in context.params}
        assert "COMMANDLINE" in sources or name == "jaxm2m doctor"


def test_an_example_that_is_wrong_would_be_noticed():
    for wrong, said in (("--heads atlas", "No such option"), ("--out b.h5", "Missing option")):
        result = CliRunner().invoke(cli.app, ["basis", "build", *wrong.split()])
        assert result.exit_code == 2
        assert said in result.output


LINES = {"packages": "jax 0.10.1", "sums": "right", "[atlas]": "mne 1.9"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "jaxm2m demo --quick"),
        ({"[atlas]": "not installed (mne)"}, 'python -m pip install "jaxm2m[atlas]"'),
        ({"sums": "WRONG in compiled programs"}, '"jax!=0.10.2"'),
        ({"packages": "jax MISSING", "sums": "WRONG"}, "python -m pip install --upgrade"),
    ],
)
def test_doctor_ends_with_what_to_do_next(monkeypatch, changes, said):
    monkeypatch.setattr(_doctor, "report", lambda: LINES | changes)
    last = CliRunner().invoke(cli.app, ["doctor"]).output.strip().splitlines()[-1]
    assert last.startswith("Next: ")
    assert said in last
