"""The policy gradient is exact: golden vectors, enumerated bandits, and a bandit it must solve."""

import copy
import itertools

import pytest
import torch
import torch.nn.functional as F

from lasat_ray.learners.baselines import batch_baseline
from lasat_ray.learners.reinforce import reinforce_loss
from lasat_ray.process_group import ProcessGroup
from lasat_ray.rng import RandomKey
from lasat_ray.strategy import StrategySpace
from lasat_ray.strategy.net import entropy, log_prob
from lasat_ray.types import Rollout
from tests.support.helpers import close, golden, seeded_learner, small_config

F64 = torch.float64
HEADS = ("method", "epsilon", "iters", "step", "beta")


@pytest.mark.parametrize("name", ["las_policy_loss", "las_policy_loss_trades"])
@pytest.mark.parametrize("kind", ["scalar", "persample"])
def test_loss_and_gradients_are_the_published_codes(name, kind):
    """Their "method" head has a single option: its log-probability is 0 and it learns nothing."""
    case = golden(name)
    heads = [head for head in HEADS if f"logits.{head}" in case]
    logits = [case[f"logits.{head}"].requires_grad_(True) for head in heads]
    log_probs = [F.log_softmax(z, 1) for z in logits]
    action = torch.stack([case[f"action.{head}"] for head in heads], 1)
    for head, log_p, k in zip(heads, log_probs, range(9), strict=False):
        close(log_p[torch.arange(8), action[:, k]], case[f"logp.{head}"])
    joint = log_prob(log_probs, action)
    close(joint, case["logp_joint"])
    reward = torch.as_tensor(case[f"reward_{kind}"], dtype=F64).expand(8)
    loss = reinforce_loss(joint, reward, 0.0, 8)
    close(loss, case[f"loss_{kind}"])
    for head, grad in zip(heads, torch.autograd.grad(loss, logits), strict=True):
        close(grad, case[f"grad_{kind}.{head}"])
    if kind == "persample":
        close(-loss, case["paper_objective"])


GRIDS = {
    "one field, two options": {"eps": (0.1, 0.2), "num_steps": (2.0,), "step_size": (0.1,)},
    "two fields": {"eps": (0.1, 0.2), "num_steps": (2.0, 3.0), "step_size": (0.1,)},
}


def make_learner(grid, **changes):
    """A float64 learner that steps plain SGD at rate 1, with heads that are not uniform."""
    plain = {"policy__lr": 1.0, "policy__grad_clip": 0.0, "policy__baseline": "none", "precision": "fp64"}
    config = small_config(**{**plain, **changes})
    learner = seeded_learner(config, StrategySpace.of(grid, device="cpu", dtype=F64))
    generator = torch.Generator().manual_seed(5)
    for head in learner.net.heads:
        torch.nn.init.normal_(head.weight, std=0.3, generator=generator)
    return learner


def images(count, seed=0):
    return torch.rand(count, 1, 8, 8, dtype=F64, generator=torch.Generator().manual_seed(seed))


def rollout_of(x, action, reward, log_probs):
    return Rollout(
        x=x,
        action=action,
        log_prob=log_prob(log_probs, action).detach(),
        reward=reward,
        global_size=len(x),
    )


def expected_update(learner, x, reward_of):
    """E[weights after - weights before] over every joint action, by enumeration."""
    options = [range(head.out_features) for head in learner.net.heads]
    before = copy.deepcopy(learner.state_dict())
    with torch.no_grad():
        log_probs = learner.net(x)
    expected = [torch.zeros_like(p) for p in learner.net.parameters()]
    total = 0.0
    for joint in itertools.product(itertools.product(*options), repeat=len(x)):
        action = torch.tensor(joint)
        reward = torch.stack([reward_of(n, action[n]) for n in range(len(x))])
        probability = log_prob(log_probs, action).sum().exp()
        total += float(probability)
        learner.load_state_dict(copy.deepcopy(before))
        learner.update(rollout_of(x, action, reward, log_probs))
        for sum_, (name, parameter) in zip(expected, learner.net.named_parameters(), strict=True):
            sum_ += probability * (parameter.detach() - before["net"][name])
    learner.load_state_dict(before)
    assert total == pytest.approx(1.0, abs=1e-12)
    return expected


def exact_gradient(learner, x, reward_of):
    """d/d theta of the mean expected reward, by autograd through the probabilities."""
    options = [range(head.out_features) for head in learner.net.heads]
    log_probs = learner.net(x)
    value = torch.zeros((), dtype=F64)
    for joint in itertools.product(*options):
        action = torch.tensor(joint).expand(len(x), -1)
        reward = torch.stack([reward_of(n, action[n]) for n in range(len(x))])
        value = value + (log_prob(log_probs, action).exp() * reward).sum() / len(x)
    return torch.autograd.grad(value, list(learner.net.parameters()))


def reward_table(n, action):
    """Arbitrary, with a mean far from zero, and different for each image."""
    return torch.tensor(2.0 + n + 3.0 * float(action[0]) * (1 - 2 * n) - 0.7 * float(action[1]), dtype=F64)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_the_expected_update_is_the_gradient_of_the_expected_reward(grid):
    learner, x = make_learner(grid), images(1)
    exact = exact_gradient(learner, x, reward_table)
    assert sum(g.abs().sum() for g in exact) > 0.1
    for got, want in zip(expected_update(learner, x, reward_table), exact, strict=True):
        close(got, want)


@pytest.mark.parametrize(("baseline", "factor"), [("none", 1.0), ("leave-one-out", 1.0), ("mean", 0.5)])
@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_baselines_on_two_images(grid, baseline, factor):
    """Leave-one-out is unbiased; the plain mean holds each image's own reward, a share of 1/N."""
    learner, x = make_learner(grid, policy__baseline=baseline), images(2)
    exact = exact_gradient(learner, x, reward_table)
    for got, want in zip(expected_update(learner, x, reward_table), exact, strict=True):
        close(got, factor * want)


def test_a_baseline_calms_the_gradient():
    """What it is for: with rewards far from zero the updates spread far less."""
    spread = {}
    for baseline in ("none", "mean", "leave-one-out"):
        learner, x = make_learner(GRIDS["two fields"], policy__baseline=baseline), images(8)
        before = copy.deepcopy(learner.state_dict())
        heads = []
        for draw in range(20):
            learner.load_state_dict(copy.deepcopy(before))
            action = learner.act(x, torch.arange(8), RandomKey.of(draw, "draw"))
            reward = 10.0 + action.index[:, 0].double()
            rollout = Rollout(
                x=x, action=action.index, log_prob=action.log_prob, reward=reward, global_size=8
            )
            learner.update(rollout)
            heads.append(learner.net.heads[0].bias.detach().clone())
        spread[baseline] = float(torch.stack(heads).std(0).mean())
    assert spread["mean"] < 0.2 * spread["none"] and spread["leave-one-out"] < 0.2 * spread["none"]


def test_baselines_by_hand():
    reward = torch.tensor([1.0, 2.0, 6.0], dtype=F64)
    close(batch_baseline("mean", reward, 3, ProcessGroup()), torch.tensor(3.0, dtype=F64))
    close(
        batch_baseline("leave-one-out", reward, 3, ProcessGroup()), torch.tensor([4.0, 3.5, 1.5], dtype=F64)
    )
    assert batch_baseline("none", reward, 3, ProcessGroup()) == 0.0
    close(batch_baseline("leave-one-out", reward[:1], 1, ProcessGroup()), torch.zeros(1, dtype=F64))


def update_once(learner, x, rewards, action=None):
    action = torch.zeros(len(x), 3, dtype=torch.int64) if action is None else action
    with torch.no_grad():
        log_probs = learner.net(x)
    return learner.update(rollout_of(x, action, torch.as_tensor(rewards, dtype=F64), log_probs))


def test_the_running_baseline_averages_rounds_and_survives_a_restart():
    learner, x = make_learner(GRIDS["two fields"], policy__baseline="running"), images(2)
    start = copy.deepcopy(learner.state_dict()["net"])
    update_once(learner, x, [1.0, 3.0])
    assert float(learner.running.mean) == pytest.approx(2.0)
    moved = learner.state_dict()["net"]
    # The first baseline is the first mean, so the two advantages are -1 and 1.
    twin = make_learner(GRIDS["two fields"], policy__baseline="mean")
    twin.net.load_state_dict(start)
    update_once(twin, x, [1.0, 3.0])
    assert all(torch.equal(moved[name], value) for name, value in twin.net.state_dict().items())
    update_once(learner, x, [4.0, 8.0])
    assert float(learner.running.mean) == pytest.approx(0.9 * 2.0 + 0.1 * 6.0)
    again = make_learner(GRIDS["two fields"], policy__baseline="running")
    again.load_state_dict(copy.deepcopy(learner.state_dict()))
    for one in (learner, again):
        update_once(one, x, [0.0, 1.0])
    assert again.running.mean == learner.running.mean
    assert all(
        torch.equal(a, b)
        for a, b in zip(again.net.state_dict().values(), learner.net.state_dict().values(), strict=True)
    )


def test_the_running_baseline_is_the_average_before_the_round():
    learner, x = make_learner(GRIDS["two fields"], policy__baseline="running"), images(2)
    learner.running.mean = torch.tensor(5.0, dtype=F64)
    twin = make_learner(GRIDS["two fields"])
    update_once(learner, x, [6.0, 8.0])
    update_once(twin, x, [1.0, 3.0])  # no baseline: the advantages themselves
    for a, b in zip(learner.net.parameters(), twin.net.parameters(), strict=True):
        close(a.detach(), b.detach(), atol=1e-14)


@pytest.mark.parametrize("clip", [0.0, 0.01, 1e6])
def test_the_gradient_is_clipped_to_its_norm(clip):
    learner, x = make_learner(GRIDS["two fields"], policy__grad_clip=clip), images(3)
    before = [p.detach().clone() for p in learner.net.parameters()]
    report = update_once(learner, x, [5.0, -3.0, 9.0])
    moves = [p.detach() - b for p, b in zip(learner.net.parameters(), before, strict=True)]
    norm = float(torch.cat([m.flatten() for m in moves]).norm())
    full = float(report.scalars["policy_grad_norm"])
    assert full > 0.1
    assert norm == pytest.approx(0.01 if clip == 0.01 else full, rel=1e-4)


def test_the_entropy_bonus_flattens_the_policy():
    learner, x = make_learner(GRIDS["two fields"], policy__entropy_weight=1.0, policy__lr=1e-3), images(4)
    with torch.no_grad():
        before = entropy(learner.net(x))
    report = update_once(learner, x, [0.0] * 4)
    close(report.per_image["policy_entropy"], before, atol=1e-12)
    with torch.no_grad():
        assert entropy(learner.net(x)).mean() > before.mean() + 1e-5


def test_acting_does_not_change_the_learner():
    learner, x = make_learner(GRIDS["two fields"]), images(4)
    state = copy.deepcopy(learner.state_dict())
    action = learner.act(x, torch.arange(4), RandomKey.of(0, "a"))
    assert action.index.shape == (4, 3) and action.log_prob.shape == (4,)
    assert all(torch.equal(learner.net.state_dict()[k], v) for k, v in state["net"].items())


@pytest.mark.parametrize(
    "policy",
    [
        {"policy__optimizer": "adam", "policy__momentum": 0.0, "policy__weight_decay": 0.1},
        {"policy__optimizer": "sgd", "policy__momentum": 0.9, "policy__weight_decay": 0.01},
    ],
    ids=["adam", "sgd"],
)
def test_the_state_round_trips_and_the_optimizers_memory_with_it(policy):
    x = images(3)
    learner = make_learner(GRIDS["two fields"], **policy)
    update_once(learner, x, [1.0, 2.0, 0.0])
    state = copy.deepcopy(learner.state_dict())
    update_once(learner, x, [0.0, 2.0, 5.0])
    twin = make_learner(GRIDS["two fields"], **policy)
    twin.load_state_dict(state)
    update_once(twin, x, [0.0, 2.0, 5.0])
    for a, b in zip(learner.net.parameters(), twin.net.parameters(), strict=True):
        assert torch.equal(a, b)


class Brightness:
    """A toy game whose best strategy depends on the image: is its left half, is its top bright?"""

    GRID = {"eps": (0.1, 0.2, 0.3), "num_steps": (1.0, 2.0), "step_size": (0.1,)}  # noqa: RUF012

    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)

    def images(self, count):
        x = 0.5 * torch.rand(count, 1, 8, 8, generator=self.generator)
        bright = torch.rand(count, 2, generator=self.generator) < 0.5
        x[:, :, :, :4] += 0.5 * bright[:, 0, None, None, None]
        x[:, :, :4, 4:] += 0.5 * bright[:, 1, None, None, None]
        return x, bright

    @staticmethod
    def reward(bright, action):
        """At most 2; 5 of 6 by luck alone."""
        best_eps, best_steps = 2 * bright[:, 0].long(), bright[:, 1].long()
        return 10.0 + (action[:, 0] == best_eps).float() + (action[:, 1] == best_steps).float()


@pytest.mark.parametrize("baseline", ["mean", "running"])
def test_the_toy_game_is_solved(baseline):
    config = small_config(policy__optimizer="adam", policy__lr=1e-3, policy__baseline=baseline)
    space = StrategySpace.of(Brightness.GRID, device="cpu", dtype=torch.float32)
    learner, game = seeded_learner(config, space), Brightness(1)
    index = torch.arange(64)
    for round in range(100):
        x, bright = game.images(64)
        action = learner.act(x, index, RandomKey.of(0, "action", round))
        reward = game.reward(bright, action.index)
        learner.update(
            Rollout(x=x, action=action.index, log_prob=action.log_prob, reward=reward, global_size=64)
        )
    x, bright = game.images(512)
    action = learner.act(x, torch.arange(512), RandomKey.of(1, "action"))
    assert (game.reward(bright, action.index) - 10).mean() > 0.95 * 2
