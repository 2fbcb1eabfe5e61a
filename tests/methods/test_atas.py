"""The step sizes of ATAS against the authors' formula written out, and the table that they come from."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from lasat_ray.attacks.ball import start
from lasat_ray.config import LossConfig
from lasat_ray.env.build import build_round
from lasat_ray.errors import UsageError
from lasat_ray.learners import LEARNERS
from lasat_ray.methods import METHODS
from lasat_ray.methods.atas import step_sizes, warmup
from lasat_ray.models import eval_mode
from lasat_ray.process_group import ProcessGroup
from lasat_ray.recipes import get_recipe
from lasat_ray.rng import RandomKey
from lasat_ray.training.round import play_round
from lasat_ray.validation import check
from tests.support.helpers import CPU, changed, close, make_images, small_config

F64 = torch.float64
EPS, LARGEST, C = 0.2, 0.4, 0.02


def theirs(norm, before, c=C, largest=LARGEST, low=0.1, high=0.35, beta=0.5):
    """As ``get_adv_adaptive_step_size``; its 2 * 8/255 is the largest step."""
    v = norm**2 * (1 - beta) + before * beta
    return v, torch.clamp(1 / (1 + torch.sqrt(v) / c) * largest, low, high)


def test_the_formula_with_the_published_constants():
    v = torch.logspace(-8, 0, 40, dtype=F64)
    published = torch.clamp(1 / (1 + v.sqrt() / 0.01) * 2 * 8 / 255, 4 / 255, 14 / 255)
    close(step_sizes(v, torch.full_like(v, 16 / 255), LossConfig()), published)
    assert warmup(LossConfig(), 30) == 5 and warmup(LossConfig(), 12) == 2
    assert warmup(LossConfig(atas_warmup=0), 30) == 0


def a_game(**changes):
    config = small_config(
        **{
            **{"method": "atas-steps", "precision": "fp64", "batch_size": 16, "strategy": "fixed"},
            **{"epochs": 3, "model": "small_cnn_bn", "attack__eps": EPS, "attack__step_size": LARGEST},
            **{"attack__num_steps": 1, **changes},
        }
    )
    config = changed(config, {"loss.atas_c": C, "loss.atas_range": (0.25, 0.875), "loss.atas_warmup": 1})
    return build_round(config, make_images(48), 4, group=ProcessGroup(), device=CPU)


@pytest.mark.parametrize("num_steps", [1, 3])
def test_attacks_are_as_long_as_gradients_were_small(num_steps):
    env, learner = a_game(attack__num_steps=num_steps)
    kept = torch.zeros(48, dtype=F64)
    for round in range(9):
        x, y, index = env.batch.x, env.batch.y, env.batch.index
        delta = start("uniform", x, torch.full((16,), EPS, dtype=F64), index, key_of(env))
        for step in range(num_steps):
            delta = delta.detach().requires_grad_(True)
            with eval_mode(env.net):
                loss = F.cross_entropy(env.net(x + delta), y)  # the mean over the batch, as theirs
            (grad,) = torch.autograd.grad(loss, delta)
            if round < 3:
                size = torch.full((16,), EPS, dtype=F64)
            elif step == 0:
                kept[index], size = theirs(grad.flatten(1).norm(dim=1), kept[index])
            moved = delta.detach() + size.view(-1, 1, 1, 1) * grad.sign()
            delta = torch.clamp(torch.clamp(moved, -EPS, EPS), -x, 1 - x)
        found = env.attack(env.space.decode(torch.zeros(16, 3, dtype=torch.int64)))
        close(found, x + delta)
        play_round(env, learner)
        if round >= 3:
            table = env.target.remembered(env.round)["squared_norm"]
            close(table, kept[: len(table)], atol=1e-12)
    assert (kept > 0).all()
    sizes = step_sizes(kept, torch.full_like(kept, LARGEST), env.config.loss)
    assert len(sizes.unique()) > 10


def key_of(env):
    return RandomKey.of(env.seed, "attack start", env.round, 0)


def test_an_image_that_was_never_attacked_has_an_average_of_nothing():
    env, learner = a_game()
    for _ in range(6):
        play_round(env, learner)
    memory = {"squared_norm": torch.tensor([4.0, 9.0], dtype=F64)}
    strategy = env.space.decode(torch.zeros(3, 3, dtype=torch.int64))
    batch = dataclasses.replace(env.batch, index=torch.tensor([1, 40, 0]))
    context = dataclasses.replace(env._attack_context(strategy, None), batch=batch, memory=memory)
    assert env.target.method.rule(context).before.tolist() == [9.0, 0.0, 4.0]


def test_settings_that_make_no_sense_are_refused():
    config = small_config(method="atas-steps")
    check(config, METHODS, LEARNERS)
    with pytest.raises(UsageError, match=r"--loss.atas-range: 0.9 0.2 is no range above 0"):
        check(changed(config, {"loss.atas_range": (0.9, 0.2)}))
    with pytest.raises(UsageError, match=r"--loss.atas-c: 0 is out of range"):
        check(changed(config, {"loss.atas_c": 0.0}))
    with pytest.raises(UsageError, match=r"--speed.balance: True has no effect with --method atas-steps"):
        check(changed(config, {"speed.balance": True}))
    check(get_recipe("atas-steps-cifar10-preactresnet18").config, METHODS, LEARNERS)
