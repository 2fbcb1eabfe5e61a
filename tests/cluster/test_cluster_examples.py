"""The cluster files: Ray's own schema, shell syntax, real options, and a token everywhere."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import jsonschema
import pytest
import yaml

from lasat_ray.cli.run_options import check_run, parse_train
from lasat_ray.tune.options import parse_sweep
from lasat_ray.tune.sweep_k import SweepK

FILES = Path(__file__).parents[2] / "examples" / "cluster"
ALL = ("ray-cluster.yaml", "kuberay-rayjob.yaml", "slurm.sh")


def test_the_cluster_file_follows_rays_schema():
    spec = find_spec("ray")
    assert spec is not None and spec.origin is not None
    schema = json.loads((Path(spec.origin).parent / "autoscaler" / "ray-schema.json").read_text())
    jsonschema.validate(yaml.safe_load((FILES / "ray-cluster.yaml").read_text()), schema)
    broken = {**yaml.safe_load((FILES / "ray-cluster.yaml").read_text()), "max_workers": "two"}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, schema)


def test_the_job_has_what_kuberay_asks_for():
    """No schema of KubeRay is at hand: its required fields, as its API reference names them."""
    job = yaml.safe_load((FILES / "kuberay-rayjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"} and cluster["rayVersion"] == "2.60.0"
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        assert "rayStartParams" in group
        (container,) = group["template"]["spec"]["containers"]
        assert {"name", "image", "resources", "volumeMounts"} <= set(container)
        mounts = {mount["name"] for mount in container["volumeMounts"]}
        assert mounts == {volume["name"] for volume in group["template"]["spec"]["volumes"]}
    assert all({"groupName", "replicas", "minReplicas", "maxReplicas"} <= set(g) for g in groups[1:])
    done = subprocess.run(["sh", "-nc", job["spec"]["entrypoint"]], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert job["spec"]["backoffLimit"] and "--resume-or-start" in job["spec"]["entrypoint"]


def test_the_slurm_script_is_a_shell_script_and_says_how_it_is_used():
    script = FILES / "slurm.sh"
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    done = subprocess.run(["bash", str(script)], capture_output=True, text=True)
    assert done.returncode == 2 and "usage: sbatch" in done.stderr


@pytest.mark.parametrize("name", ALL)
def test_no_cluster_is_started_without_a_token(name):
    text = (FILES / name).read_text()
    assert "RAY_AUTH_MODE=token" in text or "mode: token" in text
    assert "disabled" not in text


def commands_in(name: str, module: str) -> list[list[str]]:
    """The options of every command of this module in a file, comments and line breaks aside."""
    text = re.sub(r"^# *", "", (FILES / name).read_text(), flags=re.M)
    text = re.sub(r"\\\n *|\n +(?=--)", " ", text)
    return [found.split() for found in re.findall(rf"python -m {module} ([^'\"\n&]*)", text)]


@pytest.mark.parametrize("name", ALL)
def test_the_sweeps_in_the_files_are_ones_that_the_command_takes(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = commands_in(name, r"(?:tuning|lasat_ray\.tune)\.sweep_k")
    assert found
    for words in found:
        asked = parse_sweep(words, "sweep_k", SweepK, "d")
        assert asked.run.resume_or_start, "a job system may repeat it"


@pytest.mark.parametrize("name", ["kuberay-rayjob.yaml", "slurm.sh"])
def test_the_trainings_in_the_files_are_ones_that_the_command_takes(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (words,) = commands_in(name, r"lasat_ray\.train")
    config, options = parse_train(words)
    check_run(config, options)
    assert options.resume_or_start and options.num_workers >= 2 and options.device == "cuda"


FAKES = {
    # Options as the script gives them, then the command.
    "srun": 'while [[ $1 == -* ]]; do [[ $1 == -w ]] && shift; shift; done\nexec "$@"',
    "scontrol": 'if [[ $1 == show ]]; then echo node1; else echo "$@" >>"$REQUEUED"; fi',
    "ray": "exit 0",
    "hostname": "echo 127.0.0.1",
}
LONG = (
    "--epochs 20 --batch-size 32 --data.max-train 64 --data.max-test 32 --strategy fixed --attack.num-steps 1"
)
LONG += " --model mlp --evaluation.val-num-steps 1 --evaluation.test-num-steps 1 --resume-or-start --out run"


def test_before_its_time_limit_the_slurm_job_saves_and_goes_back_into_the_queue(tmp_path):
    """On a SLURM that pretends: the job that comes back ends the run, whose rounds stand once each."""
    (tmp_path / "bin").mkdir()
    for name, code in FAKES.items():
        (tmp_path / "bin" / name).write_text(f"#!/usr/bin/env bash\n{code}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    env = {**os.environ, "PYTHONPATH": str(FILES.parents[1]), "OMP_NUM_THREADS": "1"}
    env |= {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "REQUEUED": str(tmp_path / "requeued")}
    env |= {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node1"}
    job = ["bash", str(FILES / "slurm.sh"), sys.executable, "-m", "lasat_ray.train", *LONG.split()]
    first = subprocess.Popen(job, cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "checkpoints" / "last.safetensors").exists():
        assert first.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    first.send_signal(signal.SIGUSR1)
    _, errors = first.communicate(timeout=120)
    assert first.returncode == 143 and (tmp_path / "requeued").read_text() == "requeue 7\n", errors
    assert "stopped by SIGTERM" in errors and not (tmp_path / "run" / "summary.json").exists()
    again = subprocess.run(job, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0 and (tmp_path / "run" / "summary.json").is_file(), again.stderr
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    rounds = [record["round"] for record in lines if record["kind"] == "round"]
    assert rounds == list(range(len(rounds))) and len(rounds) >= 20
    assert not list(tmp_path.glob(".ray-token*"))
