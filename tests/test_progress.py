"""What a command says where nobody watches: lines in place of a bar, at least so often."""

import time

import pytest

from jaxm2m import _progress

pytestmark = pytest.mark.host


def wait_for(lines, count, seconds=5.0):
    end = time.monotonic() + seconds
    while len(lines) < count and time.monotonic() < end:
        time.sleep(0.01)


def test_a_silent_stage_is_repeated():
    lines = []
    with _progress.log_lines("efield", lines.append, every=0.05):
        wait_for(lines, 1)
        _progress.tell_stage("the head ...")
        wait_for(lines, 3)
    assert lines[0].endswith("at: efield")
    assert lines[-1].endswith("at: the head ...")
    count = len(lines)
    time.sleep(0.15)
    assert len(lines) == count


def test_a_bar_becomes_lines_with_the_time_that_is_left():
    lines = []
    with (
        _progress.log_lines("place", lines.append, every=0.05),
        _progress.progress_bar(40, "placement", unit="steps") as advance,
    ):
        advance(10, "best 1.2")
        wait_for(lines, 1)
    assert lines[0].startswith("... placement: 10 of 40 steps, about ")
    assert lines[0].endswith("; best 1.2")
    assert " left after " in lines[0]


def test_what_is_said_puts_the_next_line_off():
    lines = []
    with _progress.log_lines("demo", lines.append, every=0.4):
        for _ in range(12):
            _progress.tell_stage("a figure")
            time.sleep(0.05)
        assert not lines


def test_bars_are_silent_outside_of_commands(capsys):
    with _progress.progress_bar(3, "training") as advance:
        advance(3)
    assert capsys.readouterr().err == ""
