"""What of Ray can be reached from elsewhere: nothing that takes jobs, nothing without a token."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import ray

from lasat_ray.cluster.session import ray_session


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What ``ray.init`` is called with; no Ray is started."""
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(ray, "init", lambda **options: calls.append(options))
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    return calls


@pytest.mark.parametrize("dashboard", [True, False])
def test_a_private_cluster_has_its_job_server_on_loopback_or_not_at_all(asked, dashboard):
    with ray_session(None, 30.0, dashboard=dashboard):
        pass
    (options,) = asked
    assert options["address"] == "local" and options["dashboard_host"] == "127.0.0.1"
    assert options["include_dashboard"] is dashboard


def test_a_cluster_is_joined_only_where_its_address_is_given(asked, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "ray://stranger:10001")
    with ray_session(None, 30.0):
        pass
    monkeypatch.setattr("lasat_ray.cluster.session.check_reachable", lambda address: None)
    with ray_session("10.0.0.1:6379", 30.0):
        pass
    assert [options["address"] for options in asked] == ["local", "10.0.0.1:6379"]


@pytest.mark.parametrize(("before", "after"), [(None, "token"), ("disabled", "disabled")])
def test_the_token_is_asked_for_unless_the_user_says_otherwise(before, after):
    env = {name: value for name, value in os.environ.items() if name != "RAY_AUTH_MODE"}
    if before:
        env["RAY_AUTH_MODE"] = before
    code = "import os, sys, lasat_ray.cluster; assert 'ray' not in sys.modules; "
    code += "print(os.environ['RAY_AUTH_MODE'])"
    told = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == after
