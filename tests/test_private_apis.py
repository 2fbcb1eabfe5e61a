"""What Ray, torch and torchvision do not promise is used in one file each, and may be gone tomorrow."""

import importlib
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lasat_ray.errors import UserError
from lasat_ray.models import private

ROOT = Path(__file__).resolve().parents[1]
PRIVATE = re.compile(
    r"\b(?:ray|torch|torchvision|tensorboardX)(?:\.\w+)*\._(?!_)\w+"
    r"|from (?:ray|torch|torchvision|tensorboardX)[\w.]* import [^#\n]*\b_\w+"
    r"|\bdataset\._\w+|\"_samples\""
)
HOMES = {
    "lasat_ray/models/private.py": "torch",
    "lasat_ray/cluster/session.py": "ray._private",
    "lasat_ray/cluster/authentication.py": "ray._raylet",
    "lasat_ray/data/torchvision_sets.py": "_samples",
}


def test_private_names_are_used_in_their_one_file_alone():
    found = {}
    for folder in ("lasat_ray", "envs", "tuning"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if names := PRIVATE.findall(path.read_text()):
                found[path.relative_to(ROOT).as_posix()] = names
    assert found.keys() == HOMES.keys()
    for file, kind in HOMES.items():
        assert all(kind in name for name in found[file]), file


@pytest.mark.parametrize(
    "line",
    [
        "torch._foreach_add_(a, b)",
        "from torch._utils import f",
        "from torch.utils._pytree import f",
        "from ray.util import _hidden",
        "dataset._samples",
    ],
)
def test_the_search_finds(line):
    assert PRIVATE.search(line)


@pytest.mark.parametrize("gone", [False, True])
def test_torch_without_its_private_functions_computes_the_same(gone, monkeypatch):
    if gone:
        monkeypatch.delattr(torch, "_foreach_copy_")
        monkeypatch.delattr(torch, "_foreach_lerp_")
        monkeypatch.delattr(torch._dynamo, "maybe_mark_dynamic")
    torch.manual_seed(0)
    to, source = [torch.rand(3, 2), torch.rand(4)], [torch.rand(3, 2), torch.rand(4)]
    want = [a + (b - a) * 0.25 for a, b in zip(to, source, strict=True)]
    private.mark_batch_dynamic(source[0])
    private.lerp_all(to, source, 0.25)
    for mine, expected in zip(to, want, strict=True):
        torch.testing.assert_close(mine, expected)
    private.copy_all(to, source)
    assert all(torch.equal(a, b) for a, b in zip(to, source, strict=True))


def test_torch_without_its_parent_of_norms_knows_the_public_ones(monkeypatch):
    monkeypatch.delattr("torch.nn.modules.batchnorm._NormBase")
    try:
        norms = importlib.reload(private).RUNNING_NORMS
        layers = [nn.BatchNorm1d(2), nn.BatchNorm2d(2), nn.InstanceNorm2d(2), nn.SyncBatchNorm(2)]
        assert all(isinstance(layer, norms) for layer in layers)
        assert not isinstance(nn.GroupNorm(1, 2), norms)
    finally:
        monkeypatch.undo()
        importlib.reload(private)


def test_a_torchvision_without_its_list_is_one_line(monkeypatch):
    from lasat_ray.data import torchvision_sets

    monkeypatch.setattr(torchvision_sets, "_fetched", lambda *_: SimpleNamespace())
    request = SimpleNamespace(name="gtsrb", root=Path("nowhere"))
    with pytest.raises(UserError, match="gtsrb: this torchvision lists no files; install"):
        torchvision_sets._gtsrb_samples(request, "train")


def test_a_ray_without_its_modes_is_one_line(monkeypatch):
    from lasat_ray.cluster import authentication

    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.setitem(sys.modules, "ray._raylet", SimpleNamespace())
    with (
        pytest.raises(UserError, match=r"ray: version .* lacks Config.*; set RAY_AUTH_MODE"),
        authentication.authentication(None),
    ):
        raise AssertionError("never entered")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # the remedy
    with authentication.authentication(None):
        pass


def test_a_ray_without_its_switch_starts_no_cluster_that_all_machines_reach(monkeypatch):
    from lasat_ray.cluster import session

    monkeypatch.setitem(sys.modules, "ray._private", SimpleNamespace())
    monkeypatch.delitem(sys.modules, "ray._private.ray_constants", raising=False)
    with pytest.raises(UserError, match=r"ray: version .* loopback .*; install"), session._on_loopback():
        raise AssertionError("never entered")


def test_the_installed_ray_has_what_is_used_of_it():
    """With a Ray newer than that of constraints.txt this fails first, and by name."""
    import ray
    from ray._private import ray_constants
    from ray._raylet import AuthenticationTokenLoader, Config, GcsClient
    from ray.train import FailureConfig, ScalingConfig

    told = f"ray {ray.__version__}"
    assert ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR == "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", told
    assert isinstance(ray_constants.ENABLE_RAY_CLUSTER, bool), told
    assert callable(Config.initialize) and callable(GcsClient), told
    assert isinstance(AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True), bool), told
    # Public, and young: elastic workers, labels, a bound on starts.
    asked = ScalingConfig(num_workers=(1, 2), label_selector={"a": "b"}, elastic_resize_monitor_interval_s=5)
    assert (asked.min_workers, asked.max_workers) == (1, 2), told
    assert FailureConfig(max_failures=3, controller_failure_limit=0).controller_failure_limit == 0, told


def test_private_clusters_listen_on_loopback_by_what_the_installed_ray_reads(monkeypatch):
    """The switch is the one that Ray itself looks at when it chooses a node's address."""
    from ray._private import ray_constants, services

    monkeypatch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", False)
    assert services.get_node_ip_address() == "127.0.0.1"
