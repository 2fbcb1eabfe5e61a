"""The default run on four workers: what a newcomer sees first."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.ray
@pytest.mark.timeout(600)  # two minutes and a half on two slow cores alone
def test_four_workers_finish_in_time_and_tell_what_came_out(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lasat_ray.train", "--num-workers", "4"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=480,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "Ray's noise reached the terminal"
    (folder,) = (tmp_path / "runs").iterdir()
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["train_seconds"] < 300, "131 s on two slow cores; other machines are slower still"
    assert summary["num_workers"] == 4
    assert summary["clean_acc"] > 0.98
    assert 0.68 < summary["robust_acc_pgd50"] <= summary["robust_acc_pgd10"] + 0.02
    assert summary["passes_per_image"] < 650, "PGD-AT of as many rounds takes 1,600 and more"
    for told in ("Test set", "passes", "% saved", "Strategies chosen", "img/s", "Run folder", "Next"):
        assert told in done.stdout
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rounds = [r for r in records if r["kind"] == "round"]
    assert [r["round"] for r in rounds] == list(range(summary["rounds"]))
    assert list((folder / "tensorboard").iterdir())
