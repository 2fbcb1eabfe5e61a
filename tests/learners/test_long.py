"""Learners that cannot run away: thousands of updates, with a floor and without, leave logits and gradients
of a sane size."""

import pytest
import torch

from lasat_ray.rng import RandomKey
from lasat_ray.strategy.net import _Held
from tests.support.toy import ADAM, rollout_of, toy_learner

POLICIES = ["reinforce", "a2c", "ppo", "mirror-descent"]
N = 8
GRID = {"eps": (0.1, 0.2, 0.3), "num_steps": (1.0,), "step_size": (0.1,)}


def played(name, floor, shared, updates):
    """(learner, largest gradient norm, images): rewards of much noise, standardized over the batch, as the
    rate objective pays them; option 0 is a little better where the first pixel is bright."""
    learner = toy_learner(
        name,
        **{**ADAM, "policy__lr": 1e-2, "policy__min_exploration": floor, "batch_size": N},
        **{"policy__update_epochs": 2, "policy__minibatches": 1, "policy__baseline": "value"},
        **{"policy__mirror_step": 0.3, "policy__entropy_weight": 0.01, "attack__grid": GRID},
    )
    learner.value_shapes_features = shared
    generator, index, norms = torch.Generator().manual_seed(0), torch.arange(N), []
    for round in range(updates):
        x = torch.rand(N, 1, 8, 8, generator=generator)
        action = learner.act(x, index, RandomKey.of(0, "action", round))
        right = (action.index[:, 0] == 0) == (x[:, 0, 0, 0] > 0.5)
        reward = right.float() + torch.randn(N, generator=generator)
        reward = (reward - reward.mean()) / reward.std()
        norms.append(learner.update(rollout_of(x, action, reward)).scalars["policy_grad_norm"])
    return learner, torch.stack(norms).max(), x


@pytest.mark.parametrize(
    ("shared", "updates"),
    [(True, 150), (False, 150), pytest.param(True, 2000, marks=pytest.mark.slow)],
    ids=["shared features", "separate", "two thousand"],
)
@pytest.mark.parametrize("floor", [0.0, 0.1])
@pytest.mark.parametrize("name", POLICIES)
def test_updates_leave_a_learner_sane(name, floor, shared, updates):
    learner, largest, x = played(name, floor, shared, updates)
    with torch.no_grad():
        hidden = learner.net.hidden(x)
        logits = torch.cat([head(hidden) for head in learner.net.heads], 1)
    assert largest < 50 and logits.abs().max() < 60


def test_at_the_limit_nothing_moves_what_nothing_would_answer():
    """One option far above the others, which are held: raising it further changes no probability, so the
    exact gradient is nothing; where held options are wanted, gradients close the gap and sum to nothing."""
    logits = torch.tensor([[9.0, 0.0, -1.0]], dtype=torch.float64, requires_grad=True)
    for taken, reward in ((0, 1.0), (0, -1.0), (1, 1.0)):
        log_p = _Held.apply(logits, 2.0).log_softmax(1)
        (grad,) = torch.autograd.grad(-reward * log_p[0, taken], logits)
        assert abs(float(grad.sum())) < 1e-12
        if reward > 0 and taken == 0:
            assert grad.abs().max() < 1e-12
        elif taken == 0:
            assert grad[0, 0] > 0 and (grad[0, 1:] < 0).all()
        else:  # the other held option is lowered: its share goes to the largest, which the limit follows
            assert grad[0, 1] < 0 < grad[0, 0] and grad[0, 2] == 0
    free = torch.tensor([[1.0, 0.0, -0.5]], dtype=torch.float64, requires_grad=True)
    held, plain = (
        torch.autograd.grad(z.log_softmax(1)[0, 1], free)[0] for z in (_Held.apply(free, 2.0), free)
    )
    torch.testing.assert_close(held, plain)
