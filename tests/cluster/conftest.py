"""One small Ray cluster for all tests of this folder: starting one costs ten seconds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lasat_ray.cluster.session import ray_session


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """A local Ray of this machine's cores, whose workers get 20 s to start."""
    with ray_session(None, start_timeout=60):
        yield
