"""One small Ray for the tests of this folder that run trials in this process's cluster."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lasat_ray.cluster.session import ray_session


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """The cluster of tests/cluster where that is up, else one of our own."""
    with ray_session(None, start_timeout=60, dashboard=False):
        yield
