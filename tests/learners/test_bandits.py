"""UCB, Thompson sampling and Exp3 against their textbook formulas."""

import math

import pytest
import torch

from lasat_ray.learners.base import sums_by
from lasat_ray.learners.exp3 import exp3_step
from lasat_ray.learners.ucb import allot, ucb_index
from lasat_ray.rng import RandomKey
from tests.support.helpers import close
from tests.support.toy import rollout_of, toy_learner

F64 = torch.float64


def told(learner, arms, rewards):
    """The learner after these pulls of joint arms."""
    action = learner.action_of(torch.tensor(arms))
    x = torch.zeros(len(arms), 1, 8, 8)
    acted = type("Acted", (), {"index": action, "log_prob": torch.zeros(len(arms))})
    return learner.update(rollout_of(x, acted, torch.tensor(rewards)))


def test_sums_by_place_are_those_of_index_add():
    rng = torch.Generator().manual_seed(0)
    place, value = torch.randint(0, 7, (50,), generator=rng), torch.randn(50, dtype=F64, generator=rng)
    close(sums_by(place, value, 9), torch.zeros(9, dtype=F64).index_add(0, place, value))
    assert sums_by(place[:0], value[:0], 3).tolist() == [0, 0, 0]


@pytest.mark.parametrize("name", ["ucb", "thompson"])
def test_joint_arms_are_counted_and_their_best_mean_told(name):
    learner = toy_learner(name)
    assert learner.sizes == (3, 2, 1)
    arms = torch.arange(6)
    assert torch.equal(learner.arm_of(learner.action_of(arms)), arms)
    report = told(learner, [0, 0, 5, 3], [1.0, 2.0, 4.0, -1.0])
    assert learner.count.tolist() == [2, 0, 0, 1, 0, 1] and learner.total.tolist() == [3, 0, 0, -1, 0, 4]
    assert float(report.scalars["best_arm_mean"]) == 4.0
    mean, deviation = learner.mean_and_deviation()
    close(mean, torch.tensor([1.0, 2.0, 4.0, -1.0], dtype=F64).mean())
    close(deviation, torch.tensor([1.0, 2.0, 4.0, -1.0], dtype=F64).std(correction=0))


def test_the_past_is_discounted():
    learner = toy_learner("ucb", policy__discount=0.5)
    told(learner, [0, 0], [1.0, 3.0])
    told(learner, [1], [5.0])
    assert learner.count.tolist()[:2] == [1.0, 1.0] and learner.total.tolist()[:2] == [2.0, 5.0]


def test_one_pull_at_a_time_is_ucb1():
    """Auer et al. 2002, fig. 1: every arm once, then the largest mean + sqrt(2 ln n / n_j)."""
    rewards = {0: 0.2, 1: 0.5, 2: 0.45}
    count, total = [0.0] * 3, [0.0] * 3
    taken = []
    for _ in range(40):
        mean = [t / c if c else 0.0 for t, c in zip(total, count, strict=True)]
        n = sum(count)
        if min(count) == 0:
            wanted = count.index(0)
        else:
            wanted = max(range(3), key=lambda j: mean[j] + math.sqrt(2 * math.log(n) / count[j]))
        (arm,) = allot(mean, count, [0, 1, 2], 1, 1.0)
        assert arm == wanted
        taken.append(arm)
        count[arm] += 1
        total[arm] += rewards[arm]
    assert taken[:3] == [0, 1, 2] and taken.count(0) < taken.count(1)


def test_images_served_at_once_do_not_all_take_the_same_arm():
    assert sorted(allot([0.0] * 6, [0.0] * 6, [3, 1, 0, 2, 5, 4], 6, 1.0)) == list(range(6))
    many = allot([0.2, 0.0], [10.0, 10.0], [0, 1], 200, 1.0)
    assert many.count(0) > many.count(1) > 0
    assert ucb_index(0.5, 4.0, 100.0, 2.0) == pytest.approx(0.5 + 2 * math.sqrt(2 * math.log(100) / 4))
    assert ucb_index(0.5, 0.0, 100.0, 2.0) == math.inf


def test_thompsons_posterior_is_the_conjugate_one():
    learner = toy_learner("thompson", policy__exploration=2.0)
    told(learner, [0, 0, 5], [1.0, 2.0, 6.0])
    m, s = 3.0, 2 * torch.tensor([1.0, 2.0, 6.0], dtype=F64).std(correction=0)
    mean, deviation = learner.posterior()
    close(mean, torch.tensor([(m + 3) / 3, m, m, m, m, (m + 6) / 2], dtype=F64))
    close(deviation, s / torch.tensor([3.0, 1, 1, 1, 1, 2], dtype=F64).sqrt())
    drawn = learner.act(torch.zeros(4000, 1, 8, 8), torch.arange(4000), RandomKey.of(0, "a")).index
    share = torch.bincount(learner.arm_of(drawn), minlength=6) / 4000
    exact = torch.distributions.Normal(mean, deviation).sample((200_000,)).argmax(1).bincount(minlength=6)
    assert (share - exact / 200_000).abs().max() < 0.04


def test_before_any_reward_thompson_chooses_evenly():
    learner = toy_learner("thompson")
    drawn = learner.act(torch.zeros(6000, 1, 8, 8), torch.arange(6000), RandomKey.of(0, "a")).index
    assert torch.bincount(learner.arm_of(drawn), minlength=6).double().div(1000).sub(1).abs().max() < 0.15


def test_exp3_by_hand():
    """Fig. 1: p = (1 - g) w / sum w + g / K; w_i <- w_i exp(g x / (p_i K)) for the arm that was taken."""
    gamma, w = 0.2, torch.tensor([1.0, 3.0, 2.0], dtype=F64)
    p = (1 - gamma) * w / w.sum() + gamma / 3
    for taken, reward in ((1, 0.7), (0, 0.1)):
        step = exp3_step(w.log(), p, torch.tensor([taken]), torch.tensor([reward], dtype=F64), gamma)
        wanted = w.clone()
        wanted[taken] *= torch.exp(gamma * reward / p[taken] / 3)
        close((w.log() + step).exp(), wanted)
    both = exp3_step(w.log(), p, torch.tensor([1, 0]), torch.tensor([0.7, 0.1], dtype=F64), gamma)
    close(both, torch.tensor([0.1 / p[0], 0.7 / p[1], 0.0], dtype=F64) * gamma / 3)


def test_exp3_draws_from_the_distribution_it_learns_with():
    learner = toy_learner("exp3", policy__min_exploration=0.3)
    learner.log_weights = [
        torch.tensor([0.0, 2.0, 1.0], dtype=F64),
        torch.zeros(2, dtype=F64),
        torch.zeros(1, dtype=F64),
    ]
    w = torch.tensor([0.0, 2.0, 1.0], dtype=F64).exp()
    p = 0.7 * w / w.sum() + 0.1
    close(learner.log_probs()[0][0].exp(), p)
    action = learner.act(torch.zeros(8000, 1, 8, 8), torch.arange(8000), RandomKey.of(0, "a"))
    assert (torch.bincount(action.index[:, 0], minlength=3) / 8000 - p).abs().max() < 0.02
    close(action.log_prob.double(), (p[action.index[:, 0]] * 0.5).log(), atol=1e-6)


def test_exp3_sees_rewards_between_0_and_1():
    learner = toy_learner("exp3")
    scaled = learner._scaled(torch.tensor([100.0, 101.0, 102.0, 900.0], dtype=F64))
    assert (scaled >= 0).all() and (scaled <= 1).all() and scaled[3] > scaled[2] > scaled[0]
    again = learner._scaled(torch.tensor([1e9], dtype=F64))
    assert 0.5 < float(again) <= 1.0
