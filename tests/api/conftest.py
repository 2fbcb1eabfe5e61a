"""Small digits as a user of the API holds them, and one run on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lasat_ray
from lasat_ray.data.digits import _table

QUICK = {
    "epochs": 1,
    "batch_size": 64,
    "strategy": "fixed",
    "attack": {"num_steps": 2},
    "evaluation": {"val_num_steps": 2, "test_num_steps": (2,)},
}
"""Settings under which a run takes a second."""


class Net(nn.Module):
    """Flat pixels to ten classes, or as many as there are."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


@pytest.fixture(scope="session")
def arrays() -> tuple[np.ndarray, np.ndarray]:
    """x uint8 [N,8,8], y [N] of 300 digits."""
    pixel_ND, label_N = _table()
    x = np.round(pixel_ND[:300] / 16 * 255).astype(np.uint8).reshape(-1, 8, 8)
    return x, label_N[:300].astype(np.int64)


@pytest.fixture(scope="session")
def run(arrays, tmp_path_factory) -> lasat_ray.api.results.TrainResult:  # type: ignore[name-defined]
    """A run of a module on arrays."""
    out = tmp_path_factory.mktemp("api") / "run"
    torch.manual_seed(0)
    return lasat_ray.train("digits", data=arrays, net=Net(), out=out, progress=False, **QUICK)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path
