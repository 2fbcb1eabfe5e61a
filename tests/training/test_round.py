"""The order of a round, and what it costs: forward and backward passes counted image by image."""

import copy

import pytest
import torch

from lasat_ray.learners import make_learner
from lasat_ray.rng import RandomKey
from lasat_ray.training.round import play_round
from lasat_ray.types import Action, LearnerReport
from tests.support.helpers import Counted, close, make_context, make_game, small_config

B = 16


def make_round(**changes):
    config = small_config(**{"batch_size": B, "precision": "fp64", **changes})
    env = make_game(config)
    torch.manual_seed(0)
    return env, make_learner(make_context(config, env.space))


class Spy:
    """A learner that writes down what it is asked, and takes options by a fixed rule."""

    def __init__(self, env):
        self.env, self.calls, self.streams, self.rollouts = env, [], [], []

    def act(self, x, index, key):
        self.calls.append("act")
        self.streams.append(key)
        shift = len(self.streams)
        action = torch.stack([(index + shift) % size for size in self.env.space.sizes], 1)
        return Action(index=action, log_prob=torch.full((len(x),), float(shift), dtype=torch.float64))

    def update(self, rollout):
        self.calls.append(f"update in round {self.env.round}")
        self.rollouts.append(rollout)
        return LearnerReport(scalars={"learned": torch.tensor(1.0)})


def test_with_the_real_lookahead_the_paid_action_is_the_trained_one():
    env, _ = make_round(update_interval=2)
    spy, twin = Spy(env), copy.deepcopy(env)
    reports = [play_round(env, spy) for _ in range(4)]
    assert spy.calls == ["act", "act", "update in round 2", "act", "act", "update in round 4"]
    assert spy.streams == [RandomKey.of(0, "action", round) for round in range(4)]
    for n, round in enumerate((1, 3)):
        while twin.round < round:
            twin.step(Spy(twin).act(twin.batch.x, twin.batch.index + twin.round, None).index)
        batch = twin.batch
        action = Spy(twin).act(batch.x, batch.index + round, None).index
        _, reward, _, _, _ = twin.step(action)
        rollout = spy.rollouts[n]
        assert torch.equal(rollout.action, action) and torch.equal(rollout.x, batch.x)
        assert rollout.global_size == B and (rollout.log_prob == round + 1).all()
        close(rollout.reward, reward)
    assert [report.round for report in reports] == [0, 1, 2, 3]
    assert ["learned" in report.scalars for report in reports] == [False, True, False, True]
    assert ["reward" in report.sums for report in reports] == [False, True, False, True]


def test_with_a_copy_the_rehearsed_action_is_paid_and_a_fresh_one_trains():
    env, _ = make_round(update_interval=2, reward__lookahead="copy", attack__start="zero")
    spy, twin = Spy(env), copy.deepcopy(env)
    play_round(env, spy)
    play_round(env, spy)
    assert spy.calls == ["act", "act", "update in round 1", "act"]
    assert spy.streams[1] == RandomKey.of(0, "action", 1)
    assert spy.streams[2] == RandomKey.of(0, "action after rehearsal", 1)
    index = twin.batch.index
    twin.step(torch.stack([(index + 1) % size for size in twin.space.sizes], 1))
    index = twin.batch.index
    rewarded, trained = (torch.stack([(index + n) % size for size in twin.space.sizes], 1) for n in (2, 3))
    assert torch.equal(spy.rollouts[0].action, rewarded) and (spy.rollouts[0].log_prob == 2).all()
    close(spy.rollouts[0].reward, twin.evaluate_on_copy(rewarded).rewarded.reward)
    twin.step(trained)
    for ours, theirs in zip(env.net.parameters(), twin.net.parameters(), strict=True):
        close(ours.detach(), theirs.detach(), atol=1e-14)


def test_the_report_sums_what_the_round_did():
    env, learner = make_round()
    batch, twin = env.batch, copy.deepcopy(env)
    action = learner.act(batch.x, batch.index, RandomKey.of(0, "action", 0))
    _, reward, _, _, info = twin.step(action.index)
    report = play_round(env, learner)
    close(report.sums["reward"], reward.sum())
    for name in ("l1", "l2", "l3", "loss", "eps", "num_steps", "step_size", "adv_correct", "ref_correct"):
        close(report.sums[name], info[name].double().sum())
    close(report.scalars["grad_norm"], info["grad_norm"])
    assert torch.equal(report.option_counts, env.space.counts(action.index))
    assert report.global_size == B and {"policy_entropy"} <= set(report.sums)
    assert {"policy_grad_norm"} <= set(report.scalars)
    assert all(value.dim() == 0 for value in (*report.sums.values(), *report.scalars.values()))


# --- cost, in forward passes F of one image: an input gradient 1, a weight gradient 2 ---


def counted_round(**changes):
    """One round's (target cost, strategy cost, sum of the images' attack steps)."""
    env, learner = make_round(**changes)
    env.target.net = Counted(env.target.net)
    features = Counted(learner.net.features) if hasattr(learner, "net") else None
    if features is not None:
        learner.net.features = features
    before = copy.deepcopy(env.batch)
    report = play_round(env, learner)
    steps = int(report.sums["num_steps"])
    assert before.x.shape[0] == B
    return env.target.net, features, steps


def test_pgd_at_costs_23_passes_an_image():
    target, _, steps = counted_round(strategy="fixed", attack__num_steps=10)
    assert steps == 10 * B
    assert (target.forwards, target.input_backwards, target.weight_backwards) == (11 * B, 10 * B, B)
    assert target.cost == (10 * 2 + 3) * B


def test_plain_training_costs_3():
    target, _, _ = counted_round(method="clean", strategy="fixed")
    assert target.cost == 3 * B


def test_trades_attacks_with_one_more_and_trains_on_two():
    target, _, _ = counted_round(method="trades", strategy="fixed", attack__num_steps=10)
    assert target.cost == (1 + 10 * 2 + 2 * 3) * B


GRID = {"eps": (0.1, 0.2), "num_steps": tuple(float(n) for n in range(3, 15)), "step_size": (0.05,)}


def test_a_las_round_without_reward_costs_its_own_steps_and_a_look_of_the_strategy_net():
    target, strategy, steps = counted_round(update_interval=2, attack__grid=GRID)
    assert 3 * B < steps < 14 * B
    assert target.cost == 2 * steps + 3 * B
    assert strategy.cost == B


@pytest.mark.parametrize("restarts", [1, 2])
def test_a_las_round_with_reward_adds_the_reference_attack_two_looks_and_the_policys_step(restarts):
    target, strategy, steps = counted_round(
        attack__grid=GRID, reward__ref_num_steps=10, reward__ref_restarts=restarts
    )
    # Several restarts are compared by one more pass each.
    reference = restarts * 10 * 2 + (restarts if restarts > 1 else 0)
    assert target.cost == 2 * steps + 3 * B + (reference + 2) * B
    assert strategy.cost == 3 * B + B / 8  # the last tells how far the update moved the policy


def test_influence_adds_two_backward_passes_and_one_pass_in_forward_mode():
    """L2 and L3 are looked at once, by the reward and its gradient alike. The pass in forward mode
    counts as one here; it carries a tangent beside the value."""
    credit = {"reward__credit": "influence", "reward__standardize": True}
    target, _, steps = counted_round(attack__grid=GRID, reward__ref_num_steps=10, **credit)
    assert target.cost == 2 * steps + 3 * B + (10 * 2 + 2) * B + (2 * 2 + 1) * B


def test_the_steps_of_the_published_grid_average_8_5():
    """2 * 8.5 + 3 + 1 = 21 passes an image: fewer than PGD-AT's 23."""
    env, learner = make_round(strategy="random", attack__grid=GRID)
    index = torch.arange(6000)
    action = learner.act(env.batch.x[:1].expand(6000, -1, -1, -1), index, RandomKey.of(0, "a"))
    mean = float(env.space.decode(action.index).num_steps.double().mean())
    assert abs(mean - 8.5) < 4 * (143 / 12 / 6000) ** 0.5
