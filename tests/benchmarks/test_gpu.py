"""The GPU benchmark runs from end to end on a CPU, and keeps what it has when time is up."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gpu import gpu
from lasat_ray.config import SpeedConfig
from lasat_ray.training.round import play_round

ROOT = Path(__file__).resolve().parents[2]


def run(out, *more):
    command = [sys.executable, "-m", "benchmarks.gpu.gpu", "--tiny", "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, "--out", str(out), *more], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(out.read_text())["sections"]


@pytest.mark.slow
def test_all_sections_have_figures_and_results_are_exact(tmp_path):
    sections = run(tmp_path / "gpu.json")
    assert not [name for name, found in sections.items() if "error" in found or "skipped" in found]
    exact = sections["correctness"]
    assert exact["float64_attack_from_cpu"] == 0.0
    assert exact["float64_attack_folded"] < 1e-10 and exact["float64_attack_with_bucket"] < 1e-10
    assert exact["golden_vectors"] < 1e-10
    assert exact["repeated_fp32_run_equal"] and exact["repeated_bf16_run_equal"]
    speeds = [found for name, found in sections.items() if "-at" in name]
    assert len(speeds) >= 12 and all(found["img_per_second"] > 0 < found["tflops"] for found in speeds)
    pgd_at = sections["small_cnn_bn pgd-at fp32"]
    assert pgd_at["passes_per_image"] == 23


def test_a_section_that_fails_is_told_by_the_exit_status(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "run", lambda bench: bench.section("broken", lambda: 1 / 0, needs=-1e9))
    monkeypatch.setattr(
        sys, "argv", ["gpu", "--tiny", "--device", "cpu", "--out", str(tmp_path / "gpu.json")]
    )
    with pytest.raises(SystemExit, match="gpu: failed: broken"):
        gpu.main()
    assert (
        "ZeroDivisionError" in json.loads((tmp_path / "gpu.json").read_text())["sections"]["broken"]["error"]
    )


def test_what_is_timed_is_whole_intervals_after_a_rewarded_round(tmp_path, monkeypatch):
    bench = gpu.Bench(gpu.Options(device="cpu", tiny=True, out=tmp_path / "gpu.json"))
    bench.record["sections"]["matmul"] = {"tflops": 1.0}
    played = []

    def play(env, learner):
        played.append(env.is_reward_round)
        return play_round(env, learner)

    monkeypatch.setattr(gpu, "play_round", play)
    config = gpu.round_config(bench.options, "resnet18-8", "las-at", SpeedConfig(), "fp32")
    found = gpu.throughput(bench, config)
    warm, timed = played[: -found["rounds"]], played[-found["rounds"] :]
    assert any(warm) and found["rounds"] % config.update_interval == 0
    assert sum(timed) == found["rounds"] // config.update_interval


def test_when_time_is_up_the_record_says_what_was_left_out(tmp_path):
    sections = run(tmp_path / "gpu.json", "--budget-seconds", "0")
    assert sections and all("skipped" in found for found in sections.values())


WITHOUT_RAY = """
import importlib, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("ray", "pygments", "markdown_it", "optuna", "plotly"):
            raise ModuleNotFoundError(f"{name} is not on the GPU machine", name=name)

sys.meta_path.insert(0, Missing())
for script in sys.argv[1:]:
    importlib.import_module(script)
"""


def test_gpu_scripts_import_nothing_that_a_machine_without_ray_lacks():
    scripts = ["benchmarks.gpu.gpu", "benchmarks.gpu.reproduce_table1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_RAY, *scripts],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
