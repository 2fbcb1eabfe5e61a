"""Commands load PyTorch inside their boundary: what gives out on the way is one line of every command."""

import errno
import os
import signal
import subprocess
import sys
import time

import pytest

from lasat_ray.__main__ import GROUPS
from lasat_ray.cli.command import run_command
from tests.support.commands import MODULES, ROOT, SCRIPTS

ENV = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
HEAVY = ("torch", "numpy", "ray", "pyarrow", "sklearn", "PIL", "matplotlib")
TRAINS = {"lasat_ray.train", *(name for name in MODULES if ".tune." in name)}


def words_of(module):
    """Arguments with which a command goes on to load what it works with."""
    return ["--dry-run"] if module in TRAINS else ["nowhere", "0"]


def test_the_list_of_commands_names_every_script():
    assert sorted(name for names in GROUPS.values() for name in names) == list(MODULES)
    assert all(place.endswith(":main") for place in SCRIPTS.values())


@pytest.mark.parametrize("module", [*MODULES, "lasat_ray.__main__"])
def test_a_command_is_imported_without_anything_large(module):
    code = f"import sys, {module}; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], env=ENV, capture_output=True, text=True, timeout=200)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize("module", MODULES)
def test_memory_that_gives_out_while_pytorch_is_loaded_is_one_line(module, tmp_path):
    shell = 'ulimit -v 400000; exec "$@"'  # less than PyTorch's largest library
    command = [sys.executable, "-m", module, *words_of(module)]
    done = subprocess.run(
        ["bash", "-c", shell, "bash", *command],
        cwd=tmp_path,
        env=ENV,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("lasat-ray: error: memory: not enough is free (")
    assert done.stderr.endswith("; raise the limit ulimit -v, which is 400000\n")
    assert done.stderr.count("\n") == 1 and not list(tmp_path.iterdir())


SLOW = """
import sys, time
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print("loading", flush=True)
            time.sleep(200)
sys.meta_path.insert(0, Slow())
import runpy
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""


HANGS_UP = (signal.SIGHUP, "stopped by SIGHUP")


@pytest.mark.parametrize(
    ("module", "number", "words"),
    [*((module, *HANGS_UP) for module in MODULES), ("lasat_ray.train", signal.SIGINT, "interrupted")],
)
def test_a_signal_while_pytorch_is_loaded_is_one_line(module, number, words, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, module, *words_of(module)],
        cwd=tmp_path,
        env=ENV,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Under nohup or in a shell's background these signals are ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    )
    assert "loading\n" in iter(process.stdout.readline, "")
    time.sleep(0.1)
    process.send_signal(number)
    told = process.communicate(timeout=60)[1]
    assert (process.returncode, told) == (128 + number, f"lasat-ray: error: {words}\n")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("can't start new thread"), "end other programs, or give this container more memory"),
        (RuntimeError("Resource temporarily unavailable"), "use fewer or smaller images"),
        (ImportError("x.so: failed to map segment from shared object"), "end other programs, or give this"),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "memory: Resource temporarily"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "memory: Cannot allocate memory; free memory"),
    ],
)
def test_threads_and_processes_without_room_are_the_machine_s(error, told, capsys):
    def fail():
        raise error

    fail.__code__ = fail.__code__.replace(co_filename="<of no file>")
    assert run_command(fail, debug=False) == 1
    shown = capsys.readouterr().err
    assert "lasat-ray: error: memory: " in shown and told in shown and shown.count("\n") == 1
