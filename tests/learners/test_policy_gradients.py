"""Learners with a strategy net against enumeration and hand-written formulas, float64."""

import copy
import dataclasses

import pytest
import torch
from torch import nn

from lasat_ray.learners.mirror_descent import mirror_target
from lasat_ray.learners.ppo import clipped_loss
from lasat_ray.process_group import ProcessGroup
from lasat_ray.rng import RandomKey
from lasat_ray.strategy import StrategySpace
from lasat_ray.strategy.net import divergence, log_prob
from lasat_ray.strategy.statistics import follow, initialise_statistics, observed
from lasat_ray.types import Action, Rollout
from tests.learners.test_reinforce import GRIDS, exact_gradient, expected_update, images, reward_table
from tests.support.helpers import close, seeded_learner, small_config
from tests.support.toy import rollout_of

F64 = torch.float64
GRID = GRIDS["two fields"]
ONE_STEP = {
    **{"precision": "fp64", "policy__lr": 1.0, "policy__grad_clip": 0.0, "policy__value_weight": 0.0},
    **{"policy__update_epochs": 1, "policy__minibatches": 1},
}


def learner_of(name, grid=GRID, **changes):
    """One plain gradient step at rate 1 an update; heads that are not uniform."""
    config = small_config(**{**ONE_STEP, "learner": name, **changes})
    learner = seeded_learner(config, StrategySpace.of(grid, device="cpu", dtype=F64))
    generator = torch.Generator().manual_seed(5)
    for parameter in learner.net.heads.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
    return learner


def acted(learner, x, draw=0):
    return learner.act(x, torch.arange(len(x)), RandomKey.of(draw, "draw"))


@pytest.mark.parametrize("rho", [0.0, 0.3])
@pytest.mark.parametrize("name", ["a2c", "ppo"])
def test_the_expected_first_step_is_the_gradient_of_the_expected_reward(name, rho):
    """Also under a least exploration: the distribution that acts is the one that is differentiated."""
    learner, x = learner_of(name, policy__min_exploration=rho), images(1)
    behaviour(learner)
    exact = exact_gradient(learner, x, reward_table)
    assert sum(g.abs().sum() for g in exact) > 0.1
    for got, want in zip(expected_update(learner, x, reward_table), exact, strict=True):
        close(got, want)


def behaviour(learner):
    """Rollouts of the enumeration carry the probabilities of the weights that it starts from."""
    learner.updates = 1


@pytest.mark.parametrize("rho", [0.0, 0.3])
def test_a_small_mirror_step_is_the_natural_one(rho):
    """To first order in the step, the gradient of E[KL(q || p)] is minus the policy gradient."""
    step = 1e-6
    settings = {"policy__mirror_step": step, "policy__baseline": "none", "policy__min_exploration": rho}
    learner, x = learner_of("mirror-descent", **settings), images(1)
    exact = exact_gradient(learner, x, reward_table)
    for got, want in zip(expected_update(learner, x, reward_table), exact, strict=True):
        close(got / step, want, atol=2e-4)


def test_the_mirror_target_is_what_maximizes_the_penalized_step():
    """step <A, q> - KL(q || p) over the simplex, by a fine search around the closed form."""
    p = torch.tensor([[0.2, 0.5, 0.3]], dtype=F64)
    log_q = mirror_target(p.log(), torch.tensor([1]), torch.tensor([2.0], dtype=F64), 0.1)
    estimate = torch.tensor([0.0, 2.0 / 0.5, 0.0], dtype=F64)
    by_hand = p[0] * torch.exp(0.1 * estimate)
    close(log_q[0].exp(), by_hand / by_hand.sum())

    def gain(q):
        return 0.1 * (q * estimate).sum(-1) - (q * (q / p[0]).log()).sum(-1)

    others = torch.distributions.Dirichlet(torch.ones(3, dtype=F64)).sample((5000,))
    assert (gain(others) <= gain(log_q[0].exp()) + 1e-12).all()


def test_enough_steps_reach_the_mirror_target():
    learner = learner_of("mirror-descent", policy__update_epochs=400, policy__lr=0.5, policy__baseline="none")
    x = images(1)
    with torch.no_grad():
        before = learner.net(x)
    action, reward = torch.tensor([[1, 0, 0]]), torch.tensor([0.7], dtype=F64)
    learner.update(rollout_of(x, Action(index=action, log_prob=log_prob(before, action)), reward))
    for k, (log_p, now) in enumerate(zip(before, learner.net(x), strict=True)):
        close(now.detach(), mirror_target(log_p, action[:, k], reward, 1.0), atol=1e-6)


@pytest.mark.parametrize("ratio", [0.5, 0.79, 0.81, 1.0, 1.19, 1.21, 2.0])
@pytest.mark.parametrize("advantage", [-2.0, 3.0])
def test_the_clipped_objective_by_hand(ratio, advantage):
    r = torch.tensor([ratio], dtype=F64, requires_grad=True)
    loss = clipped_loss(r, torch.tensor([advantage], dtype=F64), 0.2)
    held = min(max(ratio, 0.8), 1.2)
    assert loss.item() == pytest.approx(-min(ratio * advantage, held * advantage))
    (slope,) = torch.autograd.grad(loss.sum(), r)
    stopped = ratio > 1.2 if advantage > 0 else ratio < 0.8
    assert slope.item() == pytest.approx(0.0 if stopped else -advantage)


def test_ppo_by_hand_over_passes_and_minibatches():
    """Two passes of two shuffled minibatches with a value net: the very weights of a plain loop."""
    settings = {"policy__update_epochs": 2, "policy__minibatches": 2, "policy__lr": 1e-3}
    learner = learner_of("ppo", **settings, policy__value_weight=0.5, policy__entropy_weight=0.01)
    x = images(7)
    learner.updates = 1  # at the first update the value net would be moved to the mean reward
    twin, action = copy.deepcopy(learner), acted(learner, x)
    reward = torch.arange(7, dtype=F64)
    learner.update(rollout_of(x, action, reward))
    sgd = torch.optim.SGD(twin.trained.parameters(), lr=1e-3)
    value = twin.value_head(twin.net.hidden(x))[:, 0].detach()
    for epoch in range(2):
        order = RandomKey.of(0, "policy minibatches", 1, epoch).permutation(7)
        for rows in (order[:4], order[4:]):
            logs = twin.net(x[rows])
            ratio = torch.exp(log_prob(logs, action.index[rows]) - action.log_prob[rows])
            gain = (reward - value)[rows]
            surrogate = torch.min(ratio * gain, ratio.clamp(0.8, 1.2) * gain).mean()
            error = (twin.value_head(twin.net.hidden(x[rows]))[:, 0] - reward[rows]) ** 2
            bonus = -sum((p.exp() * p).sum(1) for p in logs).mean()
            sgd.zero_grad()
            (-surrogate + 0.25 * error.mean() - 0.01 * bonus).backward()
            sgd.step()
    for got, want in zip(learner.trained.parameters(), twin.trained.parameters(), strict=True):
        close(got.detach(), want.detach())


def test_ppo_stops_once_it_has_moved_enough():
    passes = {}
    for target_kl in (None, 1e-9):
        learner, x = learner_of("ppo", policy__update_epochs=3, policy__target_kl=target_kl), images(4)
        report = learner.update(rollout_of(x, acted(learner, x), torch.arange(4, dtype=F64)))
        passes[target_kl] = float(report.scalars["policy_epochs"])
    assert passes == {None: 3.0, 1e-9: 1.0}


def gae(reward, value, next_value, ended, discount, decay):
    """Schulman et al. 2016, eq. 16, over one sequence."""
    advantage, out = 0.0, []
    for t in reversed(range(len(reward))):
        alive = 0.0 if ended[t] else 1.0
        delta = reward[t] + discount * alive * next_value[t] - value[t]
        advantage = delta + discount * decay * alive * advantage
        out.append(advantage)
    return torch.tensor(out[::-1], dtype=F64)


@pytest.mark.parametrize(("discount", "decay"), [(0.99, 0.95), (1.0, 1.0), (0.0, 0.5)])
def test_generalized_advantages_of_one_step_episodes_are_r_minus_v(discount, decay):
    learner, x = learner_of("ppo"), images(5)
    reward = torch.tensor([1.0, -2.0, 0.5, 3.0, 0.0], dtype=F64)
    nn.init.normal_(learner.value_head.weight)
    _, value = learner.see(x)
    rollout = rollout_of(x, acted(learner, x), reward)
    wanted = gae(reward.tolist(), value.tolist(), [9.0] * 5, [True] * 5, discount, decay)
    close(learner.advantage(rollout, value), wanted)


def test_a_value_baseline_of_reinforce_leaves_the_features_to_the_policy():
    """With zero advantage the policy's loss has no gradient: only a2c's value error moves features."""
    for name, moves in (("reinforce", False), ("a2c", True)):
        baseline = {"policy__baseline": "value"} if name == "reinforce" else {}
        learner, x = learner_of(name, **{"policy__value_weight": 1.0, **baseline}), images(3)
        nn.init.normal_(learner.value_head.weight)
        learner.updates = 1
        before = copy.deepcopy(learner.net.features.state_dict())
        _, value = learner.see(x)
        learner.config = learner.config.__class__(**{**_fields(learner.config), "entropy_weight": 0.0})
        reward = value.detach() if not moves else value.detach() + 1.0
        learner.update(rollout_of(x, acted(learner, x), reward))
        same = all(torch.equal(before[k], v) for k, v in learner.net.features.state_dict().items())
        assert same != moves


def _fields(config):
    return {name: getattr(config, name) for name in config.__slots__}


def test_a_value_net_starts_at_the_mean_reward():
    learner, x = learner_of("a2c"), images(3)
    learner.update(rollout_of(x, acted(learner, x), torch.tensor([7.0, 8.0, 9.0], dtype=F64)))
    close(learner.see(x)[1].detach(), torch.full((3,), 8.0, dtype=F64))


def test_logits_are_held_where_they_can_come_back():
    """At the limit (10 times likelier by exploration than by itself) an option can only be raised."""
    learner, x = learner_of("reinforce", policy__min_exploration=0.2), images(1)
    head = learner.net.heads[0]
    nn.init.zeros_(head.weight)
    head.bias.data = torch.tensor([0.0, -50.0], dtype=F64)
    p = torch.tensor([1.0, 0.2 / 20], dtype=F64) / (1 + 0.2 / 20)
    close(learner.net(x)[0][0].exp(), 0.8 * p + 0.1)
    for reward, moves in ((1.0, True), (-1.0, False)):
        loss = -reward * learner.net(x)[0][0, 1]
        (grad,) = torch.autograd.grad(loss, head.bias)
        assert (abs(float(grad[1])) > 0.01) == moves


def test_the_greedy_baseline_is_the_reward_of_the_likeliest_strategy():
    learner, x = learner_of("reinforce", policy__baseline="greedy"), images(3)
    greedy = learner.greedy(x)
    best = torch.stack([log_p.argmax(1) for log_p in learner.net(x)], 1)
    assert torch.equal(greedy.index, best)
    rollout = Rollout(
        x=x,
        action=best,
        log_prob=greedy.log_prob,
        reward=torch.tensor([3.0, 2.0, 1.0], dtype=F64),
        global_size=3,
        greedy_reward=torch.tensor([1.0, 2.0, 3.0], dtype=F64),
    )
    close(learner.advantage(rollout, None), torch.tensor([2.0, 0.0, -2.0], dtype=F64))


def test_normalized_advantages():
    learner, x = learner_of("reinforce", policy__normalize_advantage=True), images(4)
    rollout = rollout_of(x, acted(learner, x), torch.tensor([1.0, 2.0, 3.0, 10.0], dtype=F64))
    got = learner.advantage(rollout, None)
    close(got, (rollout.reward - 4.0) / rollout.reward.std(correction=0), atol=1e-7)


@pytest.mark.parametrize(
    ("schedule", "wanted"),
    [
        ("constant", [0.4] * 5),
        ("linear", [0.4, 0.325, 0.25, 0.175, 0.1]),
        ("cosine", [0.4, 0.35607, 0.25, 0.14393, 0.1]),
    ],
)
def test_the_entropy_bonus_follows_its_schedule(schedule, wanted):
    learner = learner_of("reinforce", policy__entropy_weight=0.4, policy__entropy_schedule=schedule)
    final = {"entropy_final": 0.1} if schedule != "constant" else {}
    learner.config = learner.config.__class__(**{**_fields(learner.config), **final})
    learner.total_updates = 5
    got = []
    for n in range(7):
        learner.updates = n
        got.append(learner.entropy_weight())
    assert got == pytest.approx([*wanted, wanted[-1], wanted[-1]], abs=1e-5)


@pytest.mark.parametrize("head", ["categorical", "ordinal"])
def test_the_mixed_distribution_is_a_distribution_and_keeps_its_floor(head):
    grid = {"eps": tuple(n / 10 for n in range(1, 10)), "num_steps": (1.0,), "step_size": (0.1,)}
    learner = learner_of("reinforce", grid, policy__min_exploration=0.18, policy__head=head)
    for parameter in learner.net.heads.parameters():
        nn.init.normal_(parameter, std=30.0)
    for log_p in learner.net(images(5)):
        close(log_p.exp().sum(1), torch.ones(5, dtype=F64))
        assert log_p.exp().min() >= 0.18 / log_p.shape[1] - 1e-12


def test_an_ordinal_head_starts_uniform_and_moves_neighbours_together():
    grid = {"eps": tuple(n / 64 for n in range(1, 65)), "num_steps": (1.0,), "step_size": (0.1,)}
    learner = learner_of("reinforce", grid, policy__head="ordinal", policy__baseline="none")
    for parameter in learner.net.heads.parameters():
        nn.init.zeros_(parameter)
    x = images(1)
    close(learner.net(x)[0].exp(), torch.full((1, 64), 1 / 64, dtype=F64))
    action = torch.tensor([[60, 0, 0]])
    taken = Action(index=action, log_prob=log_prob(learner.net(x), action).detach())
    learner.update(rollout_of(x, taken, torch.tensor([1e-3], dtype=F64)))
    p = learner.net(x)[0][0].exp()
    assert p[63] > p[60] > p[40] > 1 / 64 > p[20]


def test_the_divergence_by_hand():
    p = [torch.tensor([[0.5, 0.5]], dtype=F64).log(), torch.tensor([[0.1, 0.9]], dtype=F64).log()]
    q = [torch.tensor([[0.25, 0.75]], dtype=F64).log(), torch.tensor([[0.1, 0.9]], dtype=F64).log()]
    close(divergence(p, q), torch.tensor([0.14384103622589045], dtype=F64))


# --- BatchNorm in the strategy net ---


class Halves(ProcessGroup):
    """Both halves of a batch have the same moments: a sum over two workers is twice one's own."""

    def sum_in_place(self, tensors):
        for tensor in tensors:
            tensor.mul_(2)


def norm_net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2)
    ).double()


def test_statistics_follow_as_in_train_mode():
    """Of a pass in eval mode; train mode normalizes by the batch, so only the first layer's are its own."""
    x, ours, theirs = images(6), norm_net().eval(), norm_net().train()
    before = [buffer.clone() for buffer in ours.buffers()]
    with observed(ours) as moments:
        ours(x)
    assert all(torch.equal(*pair) for pair in zip(before, ours.buffers(), strict=True))
    second = ours[3](ours[2](ours[1](ours[0](x)))).detach()
    follow(moments, 1.0, ProcessGroup())
    theirs(x)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        got, want = getattr(ours[1], name), getattr(theirs[1], name)
        assert got.dtype == want.dtype
        close(got.double(), want.double(), atol=1e-12)
    by_hand = second.transpose(0, 1).flatten(1)
    close(ours[4].running_mean, 0.1 * by_hand.mean(1))
    close(ours[4].running_var, 0.9 + 0.1 * by_hand.var(1))


def test_first_statistics_are_taken_over_layer_by_layer():
    x, net = images(6), norm_net()
    initialise_statistics(net, x, 1.0, ProcessGroup())
    out = net(x).transpose(0, 1).flatten(1)
    close(out.mean(1).detach(), torch.zeros(2, dtype=F64), atol=1e-12)
    close(out.var(1).detach(), torch.ones(2, dtype=F64), atol=1e-3)  # BatchNorm's eps
    assert not net.training


def test_statistics_are_of_the_global_batch():
    x, whole, shard = images(4), norm_net(), norm_net()
    initialise_statistics(whole, torch.cat([x, x]), 1.0, ProcessGroup())
    initialise_statistics(shard, x, 0.5, Halves())
    for net, seen, share, group in (
        (whole, torch.cat([x, x]), 1.0, ProcessGroup()),
        (shard, x, 0.5, Halves()),
    ):
        with observed(net) as moments:
            net(2 * seen)
        follow(moments, share, group)
    for one, other in zip(whole.buffers(), shard.buffers(), strict=True):
        close(one.double(), other.double())


@pytest.mark.parametrize("settings", [{}, {"policy__baseline": "value"}], ids=["mean", "value"])
@pytest.mark.parametrize("name", ["reinforce", "a2c", "ppo", "mirror-descent"])
def test_learning_from_the_look_that_acts_changes_no_bit(name, settings):
    kept = learner_of(name, strategy_model="small_cnn_bn", policy__lr=0.05, **settings)
    fresh, x, index = copy.deepcopy(kept), images(20), torch.arange(20)
    for round in range(3):
        given, key = (x, index, RandomKey.of(round, "draw")), torch.arange(20, dtype=F64)
        one, other = kept.act_to_learn(*given), fresh.act(*given)
        assert torch.equal(one.index, other.index) and torch.equal(one.log_prob, other.log_prob)
        assert not one.log_prob.requires_grad
        told, told_fresh = kept.update(rollout_of(x, one, key)), fresh.update(rollout_of(x, other, key))
        assert told.scalars.keys() == told_fresh.scalars.keys()
        assert all(torch.equal(value, told_fresh.scalars[key]) for key, value in told.scalars.items())
    for key, value in kept.net.state_dict().items():
        assert torch.equal(value, fresh.net.state_dict()[key]), key


def test_a_memory_of_the_acting_pass_serves_any_copy_of_the_images():
    """It travels with the action: nothing depends on the rollout holding the very same tensor."""
    kept = learner_of("reinforce")
    fresh, x, index = copy.deepcopy(kept), images(4), torch.arange(4)
    kept.updates = fresh.updates = 1
    reward = torch.arange(4, dtype=F64)
    remembered = kept.act_to_learn(x, index, RandomKey.of(0, "draw"))
    assert remembered.memory is not None
    for learner, action in ((kept, remembered), (fresh, dataclasses.replace(remembered, memory=None))):
        learner.update(rollout_of(x.clone(), action, reward))
    assert all(map(torch.equal, kept.net.state_dict().values(), fresh.net.state_dict().values()))


def test_the_divergence_told_is_that_of_every_eighth_image():
    learner, x = learner_of("reinforce", policy__lr=0.1), images(20)
    action = acted(learner, x)
    with torch.no_grad():
        before = learner.net(x)
    told = learner.update(rollout_of(x, action, torch.arange(20, dtype=F64))).scalars["policy_kl"]
    with torch.no_grad():
        each = divergence(before, learner.net(x))
    close(told, each[[0, 8, 16]].mean())
    assert told > 0


@pytest.mark.parametrize("name", ["reinforce", "a2c", "ppo", "mirror-descent"])
def test_what_is_differentiated_is_what_was_sampled_with_batch_norm_too(name):
    """Round after round the log-probabilities that an update starts from are those of ``act``."""
    learner, x = learner_of(name, strategy_model="small_cnn_bn", policy__lr=0.05), images(6)
    seen = []
    learn = learner.learn
    learner.learn = lambda rollout, output: seen.append(learn(rollout, output)) or seen[-1]
    initialise_statistics(learner.net, x, 1.0, ProcessGroup())
    learner.updates = 1
    for round in range(3):
        action = acted(learner, x, round)
        learner.update(rollout_of(x, action, torch.arange(6, dtype=F64)))
        close(log_prob(seen[-1][0], action.index), action.log_prob)
        assert not learner.net.training
    buffers = dict(learner.net.named_buffers())
    assert any("running_var" in name for name in buffers)
