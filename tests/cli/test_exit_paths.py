"""How a command ends: whatever user code raises and whatever becomes of its printout."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lasat_ray import train
from lasat_ray.cli.command import run_command
from tests.support.commands import MODULES

ROOT = Path(__file__).parents[2]
TINY = (
    "--recipe digits --epochs 1 --batch-size 32 --data.max-train 64 --data.max-test 32"
    " --strategy fixed --attack.num-steps 1"
)
TINY += " --evaluation.val-num-steps 1 --evaluation.test-num-steps 1"


def shell(command, tmp_path, **environment):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    command = command.replace("TRAIN", f"{sys.executable} -m lasat_ray.train {TINY}")
    return subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=280
    )


@pytest.mark.parametrize(
    ("redirect", "environment"),
    [
        (">/dev/full", {}),
        (">&- 2>&- <&-", {}),
        (">out.txt 2>/dev/full", {"PYTHONIOENCODING": "ascii"}),  # each of its own stream
        ("| head -c 1", {}),
    ],
)
def test_a_finished_run_has_its_files_and_status_0(redirect, environment, tmp_path):
    done = shell(f"set -o pipefail; TRAIN --out 'run[a/b]c[/b]' {redirect}", tmp_path, **environment)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run[a" / "b]c[" / "b]" / "summary.json").is_file()
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


@pytest.mark.parametrize("module", MODULES)
def test_the_help_of_every_command_ends_well_whatever_becomes_of_it(module, tmp_path):
    ask = f"{sys.executable} -m {module} --help"
    for redirect in (">&- 2>&- <&-", "| head -c 1"):
        done = shell(f"set -o pipefail; {ask} {redirect}", tmp_path, PYTHONIOENCODING="ascii")
        assert (done.returncode, done.stderr) == (0, ""), redirect
    full = shell(f"{ask} >/dev/full", tmp_path)
    assert full.stderr.count("\n") == 1 and "stdout cannot be written (No space left" in full.stderr


def test_a_printout_that_is_the_whole_product_counts(tmp_path):
    done = shell("TRAIN --dry-run >/dev/full", tmp_path)
    assert done.returncode == 1 and "stdout cannot be written (No space left" in done.stderr
    assert len(done.stderr.splitlines()) == 1


EXITS = ["import sys\nsys.exit(0)\n", "raise SystemExit\n", "class Odd(BaseException): pass\nraise Odd\n"]


@pytest.mark.parametrize("field", ["model", "learner", "method"])
@pytest.mark.parametrize("code", EXITS)
def test_a_plug_in_that_leaves_when_imported_is_named(field, code, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    name = f"leaves_{field}_{EXITS.index(code)}"
    (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.setattr(sys, "argv", ["lasat", f"--{field}", f"{name}:Thing", "--out", "run"])
    assert train.main() in (1, 2)
    told = capsys.readouterr().err
    assert f"--{field}: " in told and name in told and told.count("\n") == 1
    assert not (tmp_path / "run").exists()


CALLS = """
import sys
from lasat_ray.learners import LEARNERS
def net(*, num_classes, image_shape):
    sys.exit(0)
class Learner:
    def __init__(self, context):
        self.inner = LEARNERS["random"](context)
    def act(self, x, index, key):
        sys.exit(0)
    def update(self, rollout): ...
    def state_dict(self): return {}
    def load_state_dict(self, state): ...
"""


@pytest.mark.parametrize(("field", "name"), [("model", "net"), ("learner", "Learner")])
def test_a_plug_in_that_leaves_when_called_is_named(field, name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / f"calls_{field}.py").write_text(CALLS)
    args = [*TINY.replace("--strategy fixed", "").split(), f"--{field}", f"calls_{field}:{name}"]
    monkeypatch.setattr(sys, "argv", ["lasat", *args, "--out", "run"])
    assert train.main() == 1
    told = capsys.readouterr().err
    assert f"calls_{field}" in told and "SystemExit" in told and "bug of ours" not in told
    assert not (tmp_path / "run").exists(), "no round was recorded"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(24, "Too many open files", "x.npz"), "x.npz: Too many open files; raise the limit"),
        (OSError(28, "No space left on device"), "a file: No space left on device; free space"),
        (MemoryError(), "memory: not enough is free"),
        (
            ImportError("libtorch_cpu.so: failed to map segment from shared object"),
            "memory: not enough is free (ImportError: libtorch_cpu.so",
        ),
        (SystemError("unable to mmap 8 bytes: Cannot allocate memory (12)"), "memory: not enough is free"),
        (SystemExit(0), "SystemExit: 0"),
    ],
)
def test_what_the_machine_refuses_is_one_line(error, told, capsys):
    def fail():
        raise error

    fail.__code__ = fail.__code__.replace(co_filename="<of no file>")
    assert run_command(fail, debug=False) == 1
    shown = capsys.readouterr().err
    assert told in shown and shown.count("\n") == 1


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGHUP, 143)])
def test_a_signal_while_it_trains_is_one_line_that_says_how_to_go_on(number, status, tmp_path):
    args = TINY.replace("--epochs 1", "--epochs 900").split()
    process = subprocess.Popen(
        [sys.executable, "-m", "lasat_ray.train", *args, "--out", "run"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        # Under nohup or in a shell's background these signals are ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 200
    while not (tmp_path / "run" / "checkpoints" / "last.safetensors").exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.1)
    process.send_signal(number)
    told = process.communicate(timeout=250)[1]
    assert process.returncode == status
    assert "continue with --resume run" in told and told.count("\n") == 1
