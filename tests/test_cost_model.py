"""What a round costs, counted at the convolutions themselves: no time is measured.

Every convolution but the first (its input needs no gradient while training) reports the images that
pass forward, and backward with respect to its input and to its weight. Target and strategy net are
the same ResNet, so a pass is a pass.
"""

import pytest
import torch
from torch._dynamo.testing import CompileCounter
from torch.utils._python_dispatch import TorchDispatchMode

from lasat_ray.learners import make_learner
from lasat_ray.training.round import play_round
from tests.support.helpers import make_context, make_game, small_config

B, CONVS = 8, 19  # a ResNet-18 has 20
REF = 10  # steps of the reference attack
GRID = {"eps": (0.1, 0.2), "num_steps": tuple(float(n) for n in range(3, 15)), "step_size": (0.05,)}


class Passes(TorchDispatchMode):
    """Images through the mean convolution: forward, input gradients, weight gradients."""

    def __init__(self):
        super().__init__()
        self.seen = [0, 0, 0]

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.convolution.default and args[1].shape[1] > 1:
            self.seen[0] += len(args[0])
        if func is torch.ops.aten.convolution_backward.default and args[2].shape[1] > 1:
            mask = args[-1]
            self.seen[1] += len(args[0]) * mask[0]
            self.seen[2] += len(args[0]) * mask[1]
        return func(*args, **(kwargs or {}))

    @property
    def per_net(self):
        assert not any(count % CONVS for count in self.seen)
        return tuple(count // CONVS for count in self.seen)


def make_round(**changes):
    nets = {"model": "resnet18-4", "strategy_model": "resnet18-4", "precision": "fp64"}
    config = small_config(**{"batch_size": B, "reward__ref_num_steps": REF, **nets, **changes})
    env = make_game(config)
    torch.manual_seed(0)
    return env, make_learner(make_context(config, env.space))


def counted(**changes):
    """(passes, attack steps of all images) of a round after the first, which looks for BatchNorms."""
    env, learner = make_round(**changes)
    play_round(env, learner)
    with Passes() as passes:
        report = play_round(env, learner)
    return passes.per_net, int(report.sums["num_steps"])


# method: passes beside the attack's steps (forward for the attack, forward to train, and back)
FAMILIES = {"pgd-at": (0, 1), "trades": (1, 2), "mart": (0, 2), "at-awp": (0, 2), "clean": (0, 1)}
FOLD = pytest.mark.parametrize("fold", [True, False], ids=["folded", "as it is"])


@FOLD
@pytest.mark.parametrize("method", FAMILIES)
def test_a_round_with_a_fixed_attack_costs_what_the_model_says(method, fold):
    attack, trained = FAMILIES[method]
    steps = 0 if method == "clean" else 10
    passes, _ = counted(method=method, strategy="fixed", attack__num_steps=10, speed__fold_batch_norm=fold)
    assert passes == ((attack + steps + trained) * B, (steps + trained) * B, trained * B)


@FOLD
@pytest.mark.parametrize("method", ["pgd-at", "trades", "mart", "at-awp"])
def test_a_learned_strategy_costs_its_own_steps_and_a_look(method, fold):
    attack, trained = FAMILIES[method]
    passes, steps = counted(method=method, update_interval=3, attack__grid=GRID, speed__fold_batch_norm=fold)
    assert 3 * B < steps < 14 * B
    assert passes == (steps + (attack + trained + 1) * B, steps + trained * B, trained * B)


@FOLD
@pytest.mark.parametrize("method", ["pgd-at", "trades", "mart", "at-awp"])
def test_a_rewarded_round_adds_the_reference_attack_two_looks_and_the_policys_step(method, fold):
    """The strategy net learns from the look that acts, and an image of eight tells how far it moved."""
    attack, trained = FAMILIES[method]
    passes, steps = counted(method=method, update_interval=1, attack__grid=GRID, speed__fold_batch_norm=fold)
    forward = steps + (attack + trained + REF + 2 + 1) * B + 1
    assert passes == (forward, steps + (trained + REF + 1) * B, (trained + 1) * B)


@pytest.mark.parametrize("interval", [1, 2, 4])
def test_every_kth_round_is_rewarded_and_no_other_pays_for_it(interval):
    env, learner = make_round(update_interval=interval, attack__grid=GRID)
    for _ in range(interval):  # the first update also takes over statistics for the strategy net
        play_round(env, learner)
    for round in range(interval, 3 * interval):
        due = (round + 1) % interval == 0
        with Passes() as passes:
            steps = int(play_round(env, learner).sums["num_steps"])
        assert passes.per_net[0] == steps + (2 + (REF + 2) * due) * B + due
        assert passes.per_net[2] == (1 + due) * B


def test_a_compiled_run_compiles_three_passes_whatever_leaves_the_batch(monkeypatch):
    """The attack's with gradients, the reward's without, and the training pass."""
    torch._dynamo.reset()
    counter, compile_ = CompileCounter(), torch.compile
    monkeypatch.setattr(torch, "compile", lambda net, backend: compile_(net, backend=counter))
    speed = {"speed__compile": "eager", "speed__bucket": 2}
    env, learner = make_round(update_interval=2, attack__grid=GRID, **speed)
    for _ in range(4):
        play_round(env, learner)
    assert counter.frame_count == 3
