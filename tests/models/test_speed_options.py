"""No option of --speed.* changes results: the published code's numbers, whole runs, and resumed ones.

Two workers against one: the games of tests/test_process_group.py. Counts: tests/test_cost_model.py.
"""

import functools

import pytest
import torch

from lasat_ray.attacks import attack_batch
from lasat_ray.config import SpeedConfig
from lasat_ray.models import AttackView
from lasat_ray.process_group import ProcessGroup
from lasat_ray.runs.folder import RunFolder
from lasat_ray.training.context import RunContext
from lasat_ray.training.inputs import load_config_dataset
from lasat_ray.training.loop import Trainer
from tests.support.golden_nets import load_tiny
from tests.support.helpers import CPU, close, golden, make_batch, small_config, strategy_of

PLAIN = {"fold_batch_norm": False}
OPTIONS = {
    "folded": {"fold_batch_norm": True},
    "channels last": {**PLAIN, "channels_last": True},
    "bucket": {**PLAIN, "bucket": 4},
    "compiled": {**PLAIN, "compile": "eager", "bucket": 4},
    "all": {"fold_batch_norm": True, "channels_last": True, "compile": "eager", "bucket": 4},
}


@functools.cache
def dataset():
    return load_config_dataset(small_config())


class Run:
    """A run with these options, in one go or several; six rounds, every second one rewarded."""

    def __init__(self, path, speed):
        nets = {"model": "small_cnn_bn", "strategy_model": "small_cnn_bn", "precision": "fp64"}
        settings = {f"speed__{name}": value for name, value in speed.items()}
        self.config = small_config(update_interval=2, **nets, **settings)
        self.folder = RunFolder.create(path, self.config)

    def go(self, stop_after=None):
        """The weights of both nets and the summary."""
        trainer = Trainer(
            self.config, RunContext(group=ProcessGroup(), device=CPU, folder=self.folder), dataset()
        )
        summary = trainer.run(stop_after)
        nets = {"target": trainer.env.net, "strategy": trainer.learner.net}
        weights = {f"{of} {k}": v.clone() for of, net in nets.items() for k, v in net.state_dict().items()}
        accuracies = {name: summary[name] for name in summary if "acc" in name}
        return weights, accuracies


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return functools.cache(lambda name: Run(tmp_path_factory.mktemp("run") / "run", speed_of(name)).go())


def speed_of(name):
    return PLAIN if name == "off" else OPTIONS[name]


@pytest.mark.parametrize("name", OPTIONS)
def test_a_run_with_the_option_ends_where_one_without_does(name, whole):
    (weights, accuracies), (others, told) = whole(name), whole("off")
    assert weights.keys() == others.keys() and accuracies == told
    for key, value in weights.items():
        torch.testing.assert_close(value, others[key], rtol=0, atol=1e-9, msg=lambda m, k=key: f"{k}: {m}")


@pytest.mark.parametrize("name", OPTIONS)
def test_a_stopped_run_with_the_option_ends_bit_for_bit_the_same(name, whole, tmp_path):
    """In mid-epoch, between a rewarded round and the next."""
    run = Run(tmp_path / "run", OPTIONS[name])
    run.go(stop_after=2)
    weights, accuracies = run.go()
    others, told = whole(name)
    assert accuracies == told
    assert not [key for key, value in weights.items() if not torch.equal(value, others[key])]


@pytest.mark.parametrize("name", OPTIONS)
def test_attacks_with_the_option_are_the_published_ones(name):
    case, speed = golden("las_attack"), SpeedConfig(**OPTIONS[name])
    net = load_tiny({key: case[key].numpy() for key in case if key.startswith("net.")}, "net.")
    batch = make_batch(case["x"], case["y"])
    strategy = strategy_of(case["epsilon_255"].double() / 255, case["iters"], case["step_255"].double() / 255)
    view = AttackView(speed)(net, batch.x)
    x_adv = attack_batch(view, batch, strategy, None, loss="ce", start_kind="zero", bucket=speed.bucket)
    close(x_adv, case["x_adv_zero"])
