"""Three small runs, made once: two seeds of a learned strategy and a fixed one; none is long."""

import pytest

from lasat_ray.cluster.local import train_here
from lasat_ray.runs.folder import RunFolder
from tests.support.helpers import small_config


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """Run folders by name; ``stopped`` was left in the middle of its second epoch."""
    root = tmp_path_factory.mktemp("reported")
    made = {}
    for name, changes, stop in (
        ("learned-0", {"seed": 0}, None),
        ("learned-1", {"seed": 1}, None),
        ("fixed-0", {"strategy": "fixed"}, None),
        ("stopped", {"strategy": "random"}, 4),
    ):
        config = small_config(**changes)
        folder = RunFolder.create(root / name, config)
        train_here(config, folder, device="cpu", stop_after=stop)
        made[name] = folder.path
    return made
