"""Workers lie where they were asked to, or the wish is refused at once in one line."""

from __future__ import annotations

from typing import Any

import pytest
import ray
import ray.train.torch
import torch

import lasat_ray.cluster.ray_train as ray_train
import lasat_ray.cluster.scaling as scaling_module
from lasat_ray.cli.placement import check_placement, labels_of
from lasat_ray.cli.run_options import RunOptions
from lasat_ray.cluster.gauges import Gauges
from lasat_ray.cluster.placement import Placement, check_placed, matches
from lasat_ray.cluster.scaling import scaling_of
from lasat_ray.config.json_io import config_to_json
from lasat_ray.errors import UsageError
from tests.support.ray_runs import tiny


def test_labels_are_read_as_ray_selects_by_them():
    words = ("region=eu", "disk=!slow", "zone=in(a,b)", "example.com/tier=!in(spot, cheap)")
    labels = labels_of(words)
    assert labels == dict(word.split("=", 1) for word in words)
    from ray._private.label_utils import validate_label_selector

    assert validate_label_selector(labels) is None


@pytest.mark.parametrize(
    ("labels", "selector", "fits"),
    [
        ({"region": "eu"}, {"region": "eu"}, True),
        ({"region": "us"}, {"region": "eu"}, False),
        ({}, {"region": "eu"}, False),
        ({}, {"region": "!eu"}, True),
        ({"zone": "b"}, {"zone": "in(a, b)"}, True),
        ({"zone": "b"}, {"zone": "!in(a, b)"}, False),
        ({"zone": "c", "region": "eu"}, {"zone": "!in(a,b)", "region": "eu"}, True),
    ],
)
def test_a_machine_fits_by_all_of_its_labels(labels, selector, fits):
    assert matches(labels, selector) is fits


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"node_labels": ("eu",)}, "--node-labels: 'eu' is no label; write KEY=VALUE"),
        ({"node_labels": ("disk=-fast",)}, "--node-labels: 'disk=-fast' is no label"),
        ({"node_labels": ("a=in()",)}, "--node-labels: 'a=in()' is no label"),
        ({"node_labels": ("a=b", "a=c")}, "--node-labels: 'a' stands twice; join its values"),
        (
            {"num_workers": 0, "node_labels": ("a=b",)},
            "--node-labels: 'a=b' has no effect without Ray workers",
        ),
        (
            {"num_workers": 0, "placement": "spread"},
            "--placement: 'spread' has no effect without Ray workers",
        ),
        ({"num_workers": 0, "accelerator_type": "H100"}, "--accelerator-type: 'H100' has no effect without"),
        (
            {"accelerator_type": "H100", "device": "cpu"},
            "--accelerator-type: 'H100' has no effect with --device",
        ),
        ({"gpus_per_worker": 0.5}, "--gpus-per-worker: 0.5 lets 2 workers share a GPU, where NCCL wants one"),
        ({"gpus_per_worker": 2.0}, "--gpus-per-worker: 2 is out of range"),
        ({"gpus_per_worker": float("nan")}, "--gpus-per-worker: nan is out of range"),
    ],
)
def test_wishes_that_no_cluster_can_meet_are_one_line(options, told):
    with pytest.raises(UsageError) as caught:
        check_placement(RunOptions(**{"num_workers": 2, **options}))
    assert str(caught.value).startswith(told) and "\n" not in str(caught.value)


def test_one_worker_may_have_a_share_of_a_gpu():
    check_placement(RunOptions(num_workers=1, gpus_per_worker=0.25, accelerator_type="L4"))


def node(cpus: float, gpu: str | None = None, alive: bool = True, **labels: str) -> dict[str, Any]:
    resources = {"CPU": cpus, **({"GPU": 1.0, f"accelerator_type:{gpu}": 1.0} if gpu else {})}
    return {"Alive": alive, "Resources": resources, "Labels": labels}


NODES = [node(4, disk="slow"), node(4, "H100", disk="fast"), node(4, "L4"), node(64, "B200", alive=False)]
CPU, GPU = {"CPU": 1.0}, {"CPU": 1.0, "GPU": 1.0}


@pytest.mark.parametrize(
    ("workers", "each", "wish"),
    [
        (12, CPU, Placement()),
        (4, CPU, Placement(node_labels={"disk": "fast"})),
        (8, CPU, Placement(node_labels={"disk": "!slow"})),
        (1, GPU, Placement(accelerator_type="L4")),
        (4, CPU, Placement(spread="strict-pack")),
        (3, CPU, Placement(spread="strict-spread")),
    ],
)
def test_what_fits_is_let_through(workers, each, wish):
    check_placed(workers, each, wish, NODES)


@pytest.mark.parametrize(
    ("workers", "each", "wish", "told"),
    [
        (
            13,
            CPU,
            Placement(),
            "--num-workers: 13 workers of 1 CPU do not fit on the machines asked for, 12 do",
        ),
        (5, CPU, Placement(node_labels={"disk": "fast"}), "--num-workers: 5 workers of 1 CPU do not fit"),
        (
            1,
            CPU,
            Placement(node_labels={"disk": "tape"}),
            "--node-labels: 'disk=tape' fits none of the 3 machines",
        ),
        (
            1,
            GPU,
            Placement(accelerator_type="B200"),
            "--accelerator-type: no machine of this cluster has 'B200' ",
        ),
        (2, GPU, Placement(accelerator_type="H100"), "--num-workers: 2 workers of 1 CPU, 1 GPU do not fit"),
        (
            5,
            CPU,
            Placement(spread="strict-pack"),
            "--placement: 5 workers of 1 CPU do not fit on one machine, 4 do",
        ),
        (4, CPU, Placement(spread="strict-spread"), "--placement: 4 workers of 1 CPU do not fit on as many"),
    ],
)
def test_what_can_never_fit_is_one_line(workers, each, wish, told):
    with pytest.raises(UsageError) as caught:
        check_placed(workers, each, wish, NODES)
    assert str(caught.value).startswith(told) and "\n" not in str(caught.value)


def test_the_wishes_reach_ray_train(monkeypatch):
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 12.0, "GPU": 2.0})
    monkeypatch.setattr(ray, "nodes", lambda: NODES)
    monkeypatch.setattr(scaling_module, "check_free", lambda *_: None)
    wish = Placement(accelerator_type="H100", node_labels={"disk": "fast"}, spread="strict-spread")
    share = {"cpus_per_worker": 1.0, "gpus_per_worker": 0.5}
    scaling = scaling_of(1, None, device="auto", placement=wish, **share)
    assert scaling.use_gpu and scaling.resources_per_worker == {"CPU": 1.0, "GPU": 0.5}
    assert (scaling.accelerator_type, scaling.label_selector) == ("H100", {"disk": "fast"})
    assert scaling.placement_strategy == "STRICT_SPREAD"
    with pytest.raises(UsageError, match="2 workers share a GPU, where NCCL wants one for each"):
        scaling_of(2, None, device="cuda", placement=Placement(), **share)


def test_a_worker_tells_the_cluster_how_the_run_goes(monkeypatch, tmp_path):
    places: list[Any] = []

    class Context:
        def get_world_rank(self) -> int:
            return 0

        def get_world_size(self) -> int:
            return 2

        def get_local_world_size(self) -> int:
            return 2

    class Trainer:
        rounds_per_epoch = 3

        def __init__(self, config: Any, place: Any) -> None:
            places.append(place)

        def run(self, stop: int | None) -> dict[str, Any]:
            return {}

    monkeypatch.setattr(ray.train, "get_context", Context)
    monkeypatch.setattr(ray.train.torch, "get_device", lambda: torch.device("cpu"))
    monkeypatch.setattr(ray_train, "Trainer", Trainer)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    job = {
        "cwd": "",
        "folder": str(tmp_path),
        "hang_timeout": 60.0,
        "config": config_to_json(tiny()),
        "nets": {},
        "modules": [],
    }
    ray_train.worker_loop({**job, "stop_epoch": None})
    (place,) = places
    assert any(isinstance(part, Gauges) for part in place.listener.args)
