"""One small finished run for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from lasat_ray.cluster.local import train_here
from lasat_ray.runs.folder import RunFolder
from tests.support.helpers import small_config


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run folder; tests work on copies."""
    config = small_config(model="tiny_cnn", strategy_model="tiny_cnn", epochs=1)
    folder = RunFolder.create(tmp_path_factory.mktemp("trained") / "run", config)
    train_here(config, folder, device="cpu")
    return folder.path
