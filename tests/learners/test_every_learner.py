"""What every learner does, Stable-Baselines3's too: it learns, resumes to the bit, keeps its floor."""

import importlib.util
import sys

import pytest
import torch

from lasat_ray.errors import UsageError
from lasat_ray.learners import LEARNERS, SB3_LEARNERS, find_learner
from lasat_ray.rng import RandomKey
from lasat_ray.runs.checkpoint import load_checkpoint, save_checkpoint
from tests.runs.test_checkpoint import same
from tests.support.toy import GRID, SETTINGS, Brightness, play, rollout_of, state_of, toy_learner

HAS_SB3 = importlib.util.find_spec("stable_baselines3") is not None
sb3 = [
    pytest.param(name, marks=pytest.mark.skipif(not HAS_SB3, reason="needs [sb3]")) for name in SB3_LEARNERS
]
ALL = [*LEARNERS, *sb3]
POLICIES = ["reinforce", "a2c", "ppo", "mirror-descent"]
INDEX = torch.arange(64)


def test_every_learner_has_its_settings_here():
    assert set(SETTINGS) == {*LEARNERS, *SB3_LEARNERS}


@pytest.mark.parametrize("name", [*POLICIES, *sb3])
def test_a_learner_that_sees_the_image_beats_every_constant(name):
    """The best constant earns 1, the best policy 2."""
    game = Brightness(1)
    learner = toy_learner(name)
    play(learner, game, 80)
    x, bright = game.images(64)
    action = learner.act(x, INDEX, RandomKey.of(1, "after"))
    assert (game.reward(bright, action.index) - 10).mean() > 1.8


@pytest.mark.parametrize("name", ["ucb", "thompson", "exp3"])
def test_a_learner_that_does_not_finds_the_best_constant(name):
    """Uniform choice earns 5/6; exp3 goes on exploring a twentieth of the time."""
    earned = play(toy_learner(name), Brightness(1), 60, blind=True)
    assert earned[0] < 1.2 and earned[-10:].mean() > 1.85


@pytest.mark.parametrize("baseline", ["none", "mean", "leave-one-out", "running", "value"])
def test_every_baseline_learns(baseline):
    least = 1.0 if baseline == "none" else 1.3  # rewards around 10 leave a gradient of mostly noise
    earned = play(toy_learner("reinforce", policy__baseline=baseline), Brightness(2), 80)
    assert earned[-10:].mean() > least > earned[:5].mean()


@pytest.mark.parametrize("name", ALL)
def test_a_learner_resumes_bit_for_bit_through_a_file(name, tmp_path):
    """Actions, probabilities and state of three more rounds, optimizer and counters included."""
    learner, game = toy_learner(name), Brightness(3)
    play(learner, game, 3)
    save_checkpoint(tmp_path / "state", {"learner": learner.state_dict()})
    twin = toy_learner(name, seed=5)
    twin.load_state_dict(load_checkpoint(tmp_path / "state")["learner"])
    twin.seed = 0  # the name of its random numbers is the run's, not the state's
    if name == "ucb":
        twin.order = learner.order
    games = [Brightness(4), Brightness(4)]
    ends = [play(one, each, 3, first=3) for one, each in zip((learner, twin), games, strict=True)]
    assert torch.equal(*ends)
    assert same(learner.state_dict(), twin.state_dict())


@pytest.mark.parametrize("name", [name for name in ALL if name != "curriculum"])
def test_acting_draws_by_the_image_and_changes_nothing(name):
    learner, game = toy_learner(name), Brightness(5)
    play(learner, game, 2)
    state, (x, _) = state_of(learner), game.images(64)
    first, again = (learner.act(x, INDEX, RandomKey.of(2, "a")) for _ in range(2))
    assert torch.equal(first.index, again.index) and torch.equal(first.log_prob, again.log_prob)
    assert same(state, state_of(learner))
    assert first.index.shape == (64, 3) and first.index.dtype == torch.int64
    part = learner.act(x[10:20], INDEX[10:20], RandomKey.of(2, "a"))
    assert part.index.shape == (10, 3)
    if name != "ucb":  # it serves places of the batch, not images
        assert torch.equal(part.index, first.index[10:20])


@pytest.mark.parametrize("name", [*POLICIES, "exp3"])
def test_the_floor_holds_after_a_thousand_updates_against_it(name):
    """Option 0 of each head is all that pays. Exploration of 0.12 over 3 and 2 options."""
    once = {"policy__update_epochs": 1, "policy__minibatches": 1, "policy__lr": 0.1, "batch_size": 16}
    learner = toy_learner(name, policy__min_exploration=0.12, **once)
    (x, _), index = Brightness(6).images(16), torch.arange(16)
    for round in range(1000 if name in ("reinforce", "exp3") else 100):
        action = learner.act(x, index, RandomKey.of(0, "action", round))
        learner.update(rollout_of(x, action, -action.index.sum(1).float()))
    log_probs = learner.log_probs() if name == "exp3" else learner.net(x)
    eps, steps, only = (log_p.exp() for log_p in log_probs)
    assert eps.min() >= 0.04 - 1e-6 and steps.min() >= 0.06 - 1e-6
    torch.testing.assert_close(only, torch.ones_like(only))
    assert eps[:, 0].mean() > 0.85 and steps[:, 0].mean() > 0.85
    drawn = torch.stack([learner.act(x, index, RandomKey.of(1, "a", n)).index for n in range(100)])
    assert 0.02 < (drawn[:, :, 0] == 2).double().mean() < 0.08


def test_a_policy_with_a_floor_comes_back_when_the_rewards_turn():
    """And one without it does not: nothing but the once best option is ever drawn."""
    came_back = {}
    for rho in (0.0, 0.2):
        learner = toy_learner("reinforce", policy__min_exploration=rho, policy__lr=0.03)
        x, _ = Brightness(7).images(64)
        for round in range(150):
            action = learner.act(x, INDEX, RandomKey.of(0, "action", round))
            sign = -1.0 if round < 50 else 1.0
            learner.update(rollout_of(x, action, sign * action.index.sum(1).float()))
        came_back[rho] = float(learner.act(x, INDEX, RandomKey.of(1, "a")).index[:, 0].float().mean())
    assert came_back[0.2] > 1.6 and came_back[0.0] < 0.4


@pytest.mark.parametrize("name", [*POLICIES, *sb3, "exp3"])
def test_entropies_and_the_step_of_the_policy_are_told(name):
    learner, game = toy_learner(name), Brightness(8)
    x, bright = game.images(64)
    action = learner.act(x, INDEX, RandomKey.of(0, "action"))
    report = learner.update(rollout_of(x, action, game.reward(bright, action.index)))
    heads = [report.per_image[f"policy_entropy_{field}"] for field in GRID]
    expected = [torch.tensor(size, dtype=h.dtype).log() for size, h in zip((3, 2, 1), heads, strict=True)]
    for head, value in zip(heads, expected, strict=True):
        torch.testing.assert_close(head, value.expand(64), atol=1e-4 if ":" not in name else 0.1, rtol=0)
    torch.testing.assert_close(report.per_image["policy_entropy"], torch.stack(heads).sum(0))
    assert 0 < {**report.per_image, **report.scalars}["policy_kl"].mean() < 1


def test_an_unknown_sb3_algorithm_and_a_missing_extra_are_one_line(monkeypatch):
    with pytest.raises(UsageError, match=r"--learner: 'sb3:DQN' is unknown; choose one of: sb3:A2C, sb3:PPO"):
        find_learner("sb3:DQN")
    monkeypatch.setitem(sys.modules, "stable_baselines3", None)
    monkeypatch.delitem(sys.modules, "lasat_ray.learners.sb3", raising=False)
    with pytest.raises(
        UsageError, match=r"'sb3:PPO' needs stable-baselines3 .*pip install '\.\[sb3\]' in a clone"
    ):
        find_learner("sb3:PPO")
