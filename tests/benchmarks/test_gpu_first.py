"""The first minutes on a GPU, tried without one: on a processor, and on a card that pretends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import first_checks, first_contest, gpu
from benchmarks.gpu.gpu_bench import Bench, Options
from lasat_ray.process_group import to_host
from tests.support.pretended_card import CardTensor
from tests.support.pretended_gpu import pretended_gpu

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu" / "gpu_first.sh"


def first(
    out: Path, *words: str, more: str, python: str = sys.executable
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHON": python, "MORE": more, "SCALE": "5"}
    command = ["bash", str(SCRIPT), str(out), *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=880)


@pytest.fixture
def card_python(tmp_path: Path) -> str:
    """An interpreter whose programs find a GPU that pretends."""
    file = tmp_path / "python"
    file.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tests.support.run_pretended "$@"\n')
    file.chmod(0o755)
    return str(file)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("device", ["cpu", "a card that pretends"])
def test_the_whole_script(tmp_path: Path, card_python: str, device: str):
    on_card = device != "cpu"
    if on_card:
        done = first(tmp_path, more="--tiny", python=card_python)
    else:
        done = first(tmp_path, more="--tiny --device cpu")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    names = ("checks", "gpu", "contest")
    records = {name: json.loads((tmp_path / f"{name}.json").read_text()) for name in names}
    assert all(("device" in record) == on_card for record in records.values())
    for name, record in records.items():
        assert record["packages"]["torch"] and record["sections"], name
        assert not [key for key, found in record["sections"].items() if {"error", "skipped"} & found.keys()]
    checks = records["checks"]["sections"]
    watched = [name for name in checks if name.startswith("waits: ")]
    assert len(watched) == 8 and all(f"as the CPU: {name[7:]}" in checks for name in watched)
    assert all(checks[name]["watched"] == on_card for name in watched)
    assert all(checks[f"as the CPU: {name[7:]}"]["largest_difference"] < 1e-9 for name in watched)
    assert all(checks[f"resumed: {precision}"]["equal"] for precision in ("fp32", "bf16"))
    assert checks["trace: LAS-AT k=40"]["top"] and not checks["trace: PGD-AT"]["kernels_seen"]
    contest = records["contest"]["sections"]
    for row in first_contest.ROWS:
        assert 1 < contest[f"train {row}"]["train_seconds"] < 4, "each has two seconds"
        assert "robust_acc_pgd2" in contest[f"train {row}"] and "apgd-ce" in contest[f"attack {row}"]


def test_what_fails_is_told_by_the_status_and_does_not_stop_the_rest(tmp_path):
    """Without a GPU every program ends at once, and the script goes on to the next."""
    done = first(tmp_path, "a", more="")
    assert done.returncode == 1
    assert all(f"== {name}: FAILED" in done.stdout for name in ("checks", "gpu"))
    assert "contest" not in done.stdout
    done = first(tmp_path, "c", more="")
    assert done.returncode == 2 and "PART 'c' is unknown" in done.stderr


PARTS = {
    "checks": (first_checks, ("waits", "equals_cpu", "resumes", "traced")),
    "gpu": (gpu, ("matmul_rate", "correctness", "host_syncs", "throughput")),
    "contest": (first_contest, ("kept_as_arrays", "trained", "attacked")),
}


@pytest.mark.parametrize(
    ("part", "planted"), [(part, name) for part, (_, names) in PARTS.items() for name in names]
)
def test_a_section_that_fails_leaves_the_others_and_sets_the_status(tmp_path, monkeypatch, part, planted):
    """Every kind of section in turn is made to fail; the others do nothing."""
    program, names = PARTS[part]
    tiny = planted != "kept_as_arrays"  # the one section that digits need not
    kind = first_contest.ContestOptions if part == "contest" else Options
    options = kind(device="cpu", tiny=tiny, out=tmp_path / "a.json", dataset=None if tiny else "digits")
    bench = Bench(options)
    begun, failed = [], 0

    def section_of(name):
        def work(*args):
            nonlocal failed
            begun.append(name)
            if options.out.exists():
                assert len(json.loads(options.out.read_text())["sections"]) == len(begun) - 1, (
                    "written at once"
                )
            if name == planted:
                failed += 1
                raise RuntimeError("planted")
            return {"n_train": 1, "tflops": 1.0}

        return work

    for name in names:
        monkeypatch.setattr(program, name, section_of(name))
    program.run(bench, options, tmp_path) if part == "contest" else program.run(bench)
    sections = json.loads(options.out.read_text())["sections"]
    assert [found["error"] for found in sections.values() if "error" in found] == failed * [
        "RuntimeError: planted"
    ]
    assert failed and len(sections) == len(begun)
    if planted not in ("kept_as_arrays", "trained"):  # without images, or a net, nothing can follow
        assert set(begun) >= set(names) - {"kept_as_arrays"}
    with pytest.raises(SystemExit, match="failed: "):
        bench.end(part)


def test_time_that_is_up_is_told_section_by_section(tmp_path):
    bench = Bench(Options(device="cpu", tiny=True, out=tmp_path / "a.json", budget_seconds=0))
    first_checks.run(bench)
    sections = json.loads((tmp_path / "a.json").read_text())["sections"]
    assert len(sections) == 8 + 8 + 2 + 2 and all("skipped" in found for found in sections.values())
    bench.end("checks")


@pytest.fixture
def bench(tmp_path):
    with pretended_gpu():
        yield Bench(Options(tiny=True, out=tmp_path / "a.json"))


CASES = first_checks.configurations(Options(tiny=True))


def test_a_wait_that_nobody_meant_is_told_with_its_place(bench, monkeypatch):
    play = first_checks.play_round

    def waits(env, learner):
        report = play(env, learner)
        report.sums["num_steps"].item()
        return report

    monkeypatch.setattr(first_checks, "play_round", waits)
    with pytest.raises(RuntimeError, match=r"synchronizing CUDA operation \(item\); places: .*\.py:\d+"):
        first_checks.waits(bench, CASES["PGD-AT"])
    assert torch.zeros(1, device="cuda").item() == 0, "the watch has ended"


def test_a_wait_on_purpose_is_for_an_event_and_brings_the_numbers():
    with pretended_gpu() as gpu:
        card = torch.arange(3, device="cuda")
        torch.cuda.set_sync_debug_mode("error")
        with gpu.counting() as counts:
            there = to_host(card)
        assert [kind for kind, _ in counts.waits] == ["event"]
        assert not isinstance(there, CardTensor) and there.tolist() == [0, 1, 2]
        with pytest.raises(RuntimeError, match="synchronizing"):
            card.cpu()
    assert to_host(torch.ones(2)).tolist() == [1, 1]


def test_weights_that_differ_from_the_cpus_fail_the_section(bench, monkeypatch):
    monkeypatch.setattr(first_checks, "TOLERANCE", -1.0)
    with pytest.raises(RuntimeError, match="differs from the CPU by"):
        first_checks.equals_cpu(bench, CASES["PGD-AT"])
