"""The cluster files: Ray's own schema, shell syntax, real options, and a token everywhere."""

from __future__ import annotations

import json
import re
import subprocess
from importlib.util import find_spec
from pathlib import Path

import jsonschema
import pytest
import yaml

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


@pytest.mark.parametrize("name", ALL)
def test_the_sweeps_in_the_files_are_ones_that_the_command_takes(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = re.sub(r"\\?\n#? *", " ", (FILES / name).read_text())
    found = re.findall(r"python -m tuning\.sweep_k ([^'#\"\n]*?)(?=['#\"]|  |$| sbatch)", text)
    assert found
    for options in found:
        words = [word for word in options.split() if word != "$@"]
        parse_sweep(words[: words.index("sbatch")] if "sbatch" in words else words, "sweep_k", SweepK, "d")
