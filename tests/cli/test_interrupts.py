"""Ctrl-C again and again: one line and status 130 wherever the later ones arrive."""

import signal
import subprocess
import sys
import time

import pytest

from lasat_ray.cli import interrupts

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


@pytest.mark.parametrize("gap_s", [0.0, 0.0007, 0.004])
def test_ctrl_c_held_down_ends_a_command_as_one_does(gap_s):
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout.readline() == "ready\n"
    until = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < until:
        process.send_signal(signal.SIGINT)
        time.sleep(gap_s)
    out, told = process.communicate(timeout=30)
    assert (process.returncode, out, told) == (130, "cleaned\n", "lasat-ray: error: interrupted\n")


@pytest.mark.usefixtures("python_s_handler")
def test_after_its_patience_it_hears_again(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(interrupts.time, "monotonic", lambda: now[0])
    with interrupts.interrupted_once():
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
            now[0] += interrupts.PATIENCE_S
            signal.raise_signal(signal.SIGINT)  # too soon after the last
            now[0] += 1.0


@pytest.mark.usefixtures("python_s_handler")
def test_without_a_signal_the_handler_is_python_s_again():
    with interrupts.interrupted_once():
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupts.interrupted_once():
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
