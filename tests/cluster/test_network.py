"""What of Ray can be reached from elsewhere: nothing that takes jobs, nothing without a token."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import pytest
import ray
from ray._private import ray_constants

from lasat_ray.cluster.session import ray_session


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What ``ray.init`` is called with; no Ray is started."""
    calls: list[dict[str, Any]] = []

    def init(**options: Any) -> None:
        told = {"loopback": not ray_constants.ENABLE_RAY_CLUSTER, "mode": os.environ["RAY_AUTH_MODE"]}
        calls.append({**options, **told})

    monkeypatch.setattr(ray, "init", init)
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
    monkeypatch.setattr("lasat_ray.cluster.session.check_reachable", lambda address: address)
    monkeypatch.setattr("ray._raylet.GcsClient", lambda address: None)
    with ray_session("10.0.0.1:6379", 30.0):
        pass
    assert [options["address"] for options in asked] == ["local", "10.0.0.1:6379"]
    assert [options["loopback"] for options in asked] == [True, False]


@pytest.mark.parametrize(("before", "mode"), [(None, "token"), ("disabled", "disabled")])
def test_a_private_cluster_has_a_token_unless_the_user_says_otherwise(asked, monkeypatch, before, mode):
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    if before:
        monkeypatch.setenv("RAY_AUTH_MODE", before)
    with ray_session(None, 30.0):
        pass
    assert [options["mode"] for options in asked] == [mode]
    assert os.environ.get("RAY_AUTH_MODE") == before


def test_the_package_of_clusters_does_not_import_ray():
    code = "import sys, lasat_ray.cluster, lasat_ray.cluster.local; assert 'ray' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


PRIVATE = """
import sys, ray
from lasat_ray.cluster.session import ray_session
with ray_session(None, 60.0, dashboard=sys.argv[1] == "True"):
    ray.get(ray.remote(lambda: None).options(num_cpus=0).remote())  # a worker's ports are there too
    print(ray.get_runtime_context().gcs_address, flush=True)
    sys.stdin.read()
"""


@contextmanager
def private_cluster(dashboard: bool) -> Iterator[tuple[int, str]]:
    """A process that has a private cluster for the time of the block, and the cluster's address."""
    command = [sys.executable, "-c", PRIVATE, str(dashboard)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:
        assert process.stdout is not None and process.stdin is not None
        try:
            yield process.pid, process.stdout.readline().strip()
        finally:
            process.stdin.close()
            process.wait(60)


@pytest.fixture(scope="module")
def private() -> Iterator[tuple[int, str]]:
    """As for a run with workers."""
    with private_cluster(dashboard=True) as process:
        yield process


def listening(pid: int) -> set[tuple[str, str, int]]:
    """(program, address, port) of each TCP port on which a process, or one that it started, listens."""
    root = psutil.Process(pid)
    names = {process.pid: process.name() for process in [root, *root.children(recursive=True)]}
    return {
        (names[found.pid], found.laddr.ip, found.laddr.port)
        for found in psutil.net_connections(kind="inet")
        if found.pid in names and found.status == psutil.CONN_LISTEN
    }


def look(pid: int) -> set[tuple[str, str, int]]:
    """``listening`` once nothing new has come for three seconds: Ray's agents start late."""
    found, since, deadline = listening(pid), time.monotonic(), time.monotonic() + 60
    while time.monotonic() < min(since + 3, deadline):
        time.sleep(0.2)
        if (now := listening(pid)) != found:
            found, since = now, time.monotonic()
    return found


def assert_on_loopback(found: set[tuple[str, str, int]]) -> None:
    assert {"gcs_server", "raylet"} <= {program for program, _, _ in found}
    assert [entry for entry in found if entry[1] not in ("127.0.0.1", "::1", "::ffff:127.0.0.1")] == []


@pytest.mark.ray
def test_every_port_of_a_private_cluster_listens_on_loopback_alone(private):
    pid, address = private
    found = look(pid)
    assert_on_loopback(found)
    host, _, port = address.rpartition(":")
    assert host == "127.0.0.1" and ("gcs_server", port) in {(name, str(port)) for name, _, port in found}


@pytest.mark.ray
def test_so_does_every_port_of_one_without_dashboard():
    with private_cluster(dashboard=False) as (pid, _):
        assert_on_loopback(look(pid))


ON_LOOPBACK = {
    ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0"
}  # else Ray takes 127.0.0.1 for the machine's address
JOIN = """
import sys
from lasat_ray.cluster.session import ray_session
with ray_session(sys.argv[1], 60.0):
    print("joined")
"""


@pytest.mark.ray
@pytest.mark.parametrize(
    "client", ["ours", "another token", "no token", "no token to offer", "no authentication"]
)
def test_only_who_has_the_token_joins_a_private_cluster(client, private, tmp_path):
    _, address = private
    changed = {
        "ours": {},
        "another token": {"RAY_AUTH_TOKEN": "0" * 64},
        "no token": {"HOME": str(tmp_path)},
        "no token to offer": {"HOME": str(tmp_path), "RAY_AUTH_MODE": "token"},
        "no authentication": {"RAY_AUTH_MODE": "disabled"},
    }[client]
    env = {name: value for name, value in os.environ.items() if name != "RAY_AUTH_MODE"}
    done = subprocess.run(
        [sys.executable, "-c", JOIN, address],
        env={**env, **ON_LOOPBACK, **changed},
        capture_output=True,
        text=True,
        timeout=100,
    )
    if client == "ours":
        assert (done.returncode, done.stdout) == (0, "joined\n"), done.stderr
        return
    assert done.returncode == 1 and done.stdout == ""
    told = f"UserError: --address: '{address}' wants its own token, not ours; set RAY_AUTH_TOKEN to it, or"
    assert done.stderr.splitlines()[-1].endswith(f"{told} copy it to ~/.ray/auth_token")
    assert "gcs_client.cc" not in done.stderr
