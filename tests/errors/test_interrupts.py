"""Signals, again and again: one line and the status of the first wherever the later ones arrive."""

import os
import signal
import subprocess
import sys
import time

import pytest

from lasat_ray.errors import interrupts

COMMAND = """
import contextlib, os, signal, sys, time
from lasat_ray.cli.command import run_command

@contextlib.contextmanager
def cleaned_up():
    try:
        yield
    finally:
        for _ in range(400):
            time.sleep(0.001)
        os.write(1, b"cleaned\\n")

def main():
    with cleaned_up():
        os.write(1, b"ready\\n")
        time.sleep(300)
    return 0

sys.exit(run_command(main))
"""


@pytest.fixture
def python_s_handler():
    """Where the tests run in a shell's background, SIGINT is ignored before they start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("number", "words"), [(signal.SIGTERM, "stopped by SIGTERM"), (signal.SIGINT, "interrupted")]
)
@pytest.mark.parametrize("gap_s", [0.0, 0.0007, 0.004])
def test_a_signal_again_and_again_ends_a_command_as_one_does(gap_s, number, words):
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    )
    assert process.stdout.readline() == "ready\n"
    until = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < until:
        process.send_signal(number)
        time.sleep(gap_s)
    out, told = process.communicate(timeout=30)
    assert (process.returncode, out) == (128 + number, "cleaned\n")
    assert told == f"lasat-ray: error: {words}\n"


@pytest.mark.usefixtures("python_s_handler")
def test_after_its_patience_it_hears_again(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(interrupts.time, "monotonic", lambda: now[0])
    with interrupts.ended_by_signals():
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
            now[0] += interrupts.PATIENCE_S
            signal.raise_signal(signal.SIGINT)  # too soon after the last
            now[0] += 1.0


@pytest.mark.usefixtures("python_s_handler")
def test_without_a_signal_the_handler_is_python_s_again():
    with interrupts.ended_by_signals():
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupts.ended_by_signals():
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.fixture
def sigterm_ends():
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("python_s_handler", "sigterm_ends")
def test_handlers_that_a_library_sets_give_way():
    """Ray sets one that leaves by SystemExit."""
    with interrupts.ended_by_signals():
        with interrupts.signals_kept():
            signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        assert str(interrupts.interrupted()) == "stopped by SIGTERM"
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def started():
        with interrupts.signals_kept():
            signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))
            signal.raise_signal(signal.SIGTERM)

    with interrupts.ended_by_signals(), pytest.raises(KeyboardInterrupt):
        started()
    assert interrupts.interrupted().status == 143


@pytest.mark.usefixtures("sigterm_ends")
def test_a_forked_child_dies_of_sigterm_as_ever():
    with interrupts.ended_by_signals():
        child = os.fork()
        if not child:
            signal.raise_signal(signal.SIGTERM)
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
