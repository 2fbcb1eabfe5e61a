"""Free training against algorithm 1 of Shafahi et al. 2019 written out, and what it costs and refuses."""

import copy

import pytest
import torch
import torch.nn.functional as F

from lasat_ray.env.build import build_round
from lasat_ray.errors import UsageError
from lasat_ray.learners import LEARNERS
from lasat_ray.methods import METHODS
from lasat_ray.process_group import ProcessGroup
from lasat_ray.recipes import get_recipe
from lasat_ray.training.round import play_round
from lasat_ray.update.cost import expected_passes, image_passes
from lasat_ray.update.optim import learning_rate
from lasat_ray.validation import check
from tests.support.helpers import CPU, changed, close, make_images, small_config

EPS, STEP = 0.15, 0.1


def a_game(**changes):
    config = small_config(
        **{
            **{"method": "free", "precision": "fp64", "batch_size": 16, "strategy": "fixed", "epochs": 4},
            **{"attack__eps": EPS, "attack__step_size": STEP, "attack__num_steps": 3},
            **{"model": "small_cnn_bn", **changes},
        }
    )
    return build_round(config, make_images(48), 4, group=ProcessGroup(), device=CPU)


def test_replays_share_a_batch_and_one_gradient_serves_weights_and_images():
    """Three batches of three replays, in train mode, momentum and all."""
    env, learner = a_game()
    config, net = env.config, copy.deepcopy(env.net).train()
    optim, per_epoch = config.optim, env.target.rounds_per_epoch
    sgd = torch.optim.SGD(net.parameters(), lr=1.0, momentum=0.9, weight_decay=optim.weight_decay)
    noise, before = torch.zeros_like(env.batch.x), env.batch.x
    for round in range(9):
        x, y = env.batch.x, env.batch.y
        assert torch.equal(x, before) == (round % 3 > 0 or round == 0)
        before = x
        seen = (x + noise).clamp(0, 1).requires_grad_(True)
        loss = F.cross_entropy(net(seen), y)
        sgd.zero_grad()
        loss.backward()
        sgd.param_groups[0]["lr"] = learning_rate(optim, round / per_epoch, config.epochs)
        played = play_round(env, learner)
        close(played.sums["loss"] / 16, loss.detach())
        # A pixel that was cut has no gradient; one at 0 or 1 has, as in the PyTorch and TensorFlow of 2019.
        inside = (x + noise >= 0) & (x + noise <= 1)
        noise = (noise + STEP * (inside * seen.grad.sign())).clamp(-EPS, EPS)
        sgd.step()
        for mine, theirs in zip(net.state_dict().values(), env.net.state_dict().values(), strict=True):
            close(mine, theirs)
    assert noise.abs().max() == EPS


def test_a_learned_strategy_chooses_the_step_that_is_taken_next():
    grid = {"eps": (0.1, 0.2), "num_steps": (2.0,), "step_size": (0.05, 0.1)}
    env, learner = a_game(strategy="learned", attack__grid=grid)
    check(env.config, METHODS, LEARNERS)
    play_round(env, learner)
    memory = env.target.remembered(1)
    chosen = env.space.decode(torch.tensor([[n % 2, 0, n // 2 % 2] for n in range(16)]))
    found = env.attack(chosen)
    size = chosen.step_size.view(-1, 1, 1, 1)
    wanted = memory["noise"] + size * memory["ascent"]
    eps = chosen.eps.view(-1, 1, 1, 1)
    close(found, (env.batch.x + torch.minimum(torch.maximum(wanted, -eps), eps)).clamp(0, 1))
    assert env.replays == 2


def test_an_attack_costs_no_pass():
    env, _ = a_game()
    attacked = env.attack_as_chosen(env.space.decode(torch.zeros(16, 3, dtype=torch.int64)))
    close(image_passes(env.config, attacked, 0), torch.full((16,), 3.0, dtype=torch.float64))
    assert expected_passes(env.config, 3) == 16 * 3 * 4 * 3


def test_perturbed_weights_leave_nothing_in_the_gradient_of_the_images():
    """With AWP the images' gradient is the one at the perturbed weights, once."""
    env, learner = a_game(loss__awp_gamma=0.01)
    play_round(env, learner)
    ascent = env.target.remembered(1)["ascent"]
    assert set(ascent.unique().tolist()) <= {-1.0, 0.0, 1.0} and ascent.abs().sum() > 0


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"attack.norm": "l2"}, r"--attack.norm: 'l2' is not that of --method free"),
        ({"attack.loss": "margin"}, r"--attack.loss: 'margin' has no effect with --method free"),
        ({"attack.start": "zero"}, r"--attack.start: 'zero' has no effect"),
        ({"attack.start_radius": 0.1}, r"--attack.start-radius: 0.1 has no effect"),
        ({"attack.momentum": 0.5}, r"--attack.momentum: 0.5 has no effect"),
        ({"attack.grid": {"num_steps": (2.0, 3.0)}}, r"'num_steps' has several values, but is how often"),
        ({"attack.grid": {"momentum": (0.0, 0.5)}}, r"--attack.grid: 'momentum' has no effect"),
        ({"speed.balance": True}, r"--speed.balance: True has no effect with --method free"),
    ],
)
def test_what_would_change_nothing_is_refused(changes, told):
    config = small_config(method="free", attack__grid={"eps": (0.1, 0.2)})
    check(config, METHODS, LEARNERS)
    with pytest.raises(UsageError, match=told):
        check(changed(config, changes), METHODS, LEARNERS)


def test_the_recipe_replays_as_the_script_does():
    config = get_recipe("free-cifar10-preactresnet18").config
    check(config, METHODS, LEARNERS)
    assert config.attack.num_steps == 8 and config.epochs == 88 and config.attack.step_size == 8 / 255
