"""docs/methods.md names every method, its tables are what the records say, its example trains."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from examples.own_method import METHOD
from lasat_ray.config import LossConfig
from lasat_ray.methods import METHODS
from lasat_ray.process_group import ProcessGroup
from lasat_ray.runs.folder import RunFolder
from lasat_ray.training.context import RunContext
from lasat_ray.training.loop import Trainer
from tests.support.helpers import CPU, close, inputs_of, small_config, strategy_of

ROOT = Path(__file__).parents[2]


def test_every_method_is_described() -> None:
    text = (ROOT / "docs" / "methods.md").read_text()
    described = set(re.findall(r"`([\w-]+)`", " ".join(re.findall(r"\*\*(.+?)\*\*", text))))
    assert described == set(METHODS)


def test_the_example_is_a_method_like_ours(tmp_path: Path) -> None:
    adv, clean = torch.randn(2, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y, ones = torch.tensor([0, 1, 4]), torch.ones(3, dtype=torch.float64)
    inputs = inputs_of(
        y, strategy_of(ones, ones.long(), ones), LossConfig(trades_beta=2.0), adv=adv, clean=clean
    )
    by_hand = torch.nn.functional.cross_entropy(adv, y, reduction="none") + 2 * ((clean - adv) ** 2).mean(1)
    close(METHOD.loss(inputs), by_hand)
    config = small_config(method="examples.own_method:METHOD", epochs=1)
    folder = RunFolder.create(tmp_path / "run", config)
    summary = Trainer(config, RunContext(group=ProcessGroup(), device=CPU, folder=folder)).run()
    assert summary["method"] == "examples.own_method:METHOD" and summary["rounds"] == 3
