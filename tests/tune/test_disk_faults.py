"""Trials and tables of a sweep on disks that refuse: one line with the remedy; the same goes on later."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.support.commands import ROOT

pytestmark = pytest.mark.slow

TRIAL = """
import json, sys
from lasat_ray.tune import trainable
from lasat_ray.tune.trainable import TrialResources, run_job
from lasat_ray.tune.trial import Trial
from tests.support.ray_runs import tiny
from dataclasses import asdict
import os

told = []
trainable.tune.report = told.append
trial = Trial(row="a", config=tiny())
place = TrialResources(out="disk/sweep", cwd=os.getcwd())
job = {"trial": json.dumps(trial.to_json()), "place": asdict(place)}
run_job(job)
outcome = json.loads(told[-1]["outcome"])
print(json.dumps({key: outcome[key] for key in ("status", "error")}))
"""
MOUNT = "mkdir -p disk && mount -t tmpfs -o {} tmpfs disk"
GROWN = "mount -o remount,rw,size=20m,nr_inodes=1000 disk"


def shell(script, folder):
    """A shell as its own master of mounts, so that ``disk`` is of any size and gone afterwards."""
    python = f"{sys.executable} trial.py"
    (folder / "trial.py").write_text(TRIAL)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    words = ["unshare", "-m", "bash", "-c", script.replace("TRIAL", python)]
    return subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, timeout=250)


@pytest.fixture(scope="module", autouse=True)
def own_mounts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mounts")
    if shell(MOUNT.format("size=1m"), folder).returncode:
        pytest.skip("this account may not mount a disk of its own")


FULL = "No space left on device); free space (or inodes) on that disk"


@pytest.mark.parametrize(
    ("options", "then", "told"),
    [
        ("size=20m,nr_inodes=4", "", FULL),
        ("size=64k", "", FULL),
        ("size=20m", "&& mount -o remount,ro disk", "Read-only file system); make that disk writable"),
    ],
)
def test_a_trial_fails_in_one_line_and_the_same_one_goes_on_when_there_is_room(options, then, told, tmp_path):
    done = shell(f"{MOUNT.format(options)} {then} && TRIAL && {GROWN} && TRIAL", tmp_path)
    assert done.returncode == 0, done.stderr
    first, second = map(json.loads, done.stdout.splitlines())
    assert first["status"] == "failed" and told in first["error"] and "disk" in first["error"]
    assert "\n" not in first["error"] and "Error:" not in first["error"]
    assert second == {"status": "finished", "error": None}, second


TABLE = """
import sys
from pathlib import Path
from lasat_ray.cli.command import run_command
from lasat_ray.cli.streams import make_console
from lasat_ray.tune.results import report
from lasat_ray.tune.trial import Trial
from tests.support.ray_runs import tiny
from tests.support.trials import asked_of, finished

def drawn(record):
    return b""

def main():
    trial = Trial(row="the row", config=tiny())
    outcomes = {trial.name: finished()}
    columns = ("clean", "robust")
    report(asked_of("disk"), [trial], outcomes, make_console(), title="T", columns=columns, draw=drawn)
    return 0

sys.exit(run_command(main))
"""


def test_a_table_is_printed_before_it_is_written(tmp_path):
    (tmp_path / "table.py").write_text(TABLE)
    done = shell(f"{MOUNT.format('size=8k,nr_inodes=2')}; {sys.executable} table.py", tmp_path)
    assert done.returncode == 1 and "the row" in done.stdout and "90.0" in done.stdout
    assert done.stderr.count("\n") == 1 and "disk/results.json: cannot be written" in done.stderr
    assert FULL in done.stderr


def test_a_full_stdout_costs_the_printout_and_not_the_tables(tmp_path):
    (tmp_path / "table.py").write_text(TABLE)
    script = (
        f"mkdir disk; {sys.executable} table.py >/dev/full; echo $?; {sys.executable} table.py >&-; echo $?"
    )
    done = shell(script, tmp_path)
    assert done.stdout == "0\n0\n", done.stderr
    assert sorted(path.name for path in (tmp_path / "disk").iterdir()) == [
        f"results.{kind}" for kind in ("csv", "json", "md", "png")
    ]
