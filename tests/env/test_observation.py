"""Strategies that see a class or a margin in place of the image, and the one-step recipes."""

import math

import pytest
import torch
import torch.nn.functional as F

from lasat_ray.attacks import attack_batch
from lasat_ray.config import grid_of
from lasat_ray.env.build import build_round
from lasat_ray.env.observation import _place, margins, observation_shape, observed
from lasat_ray.errors import UsageError
from lasat_ray.learners import LEARNERS, LearnerContext
from lasat_ray.learners import seeded_learner as seeded
from lasat_ray.learners.controls import Margin
from lasat_ray.methods import METHODS
from lasat_ray.process_group import ProcessGroup
from lasat_ray.recipes import get_recipe
from lasat_ray.rng import RandomKey
from lasat_ray.runs.checkpoint import load_checkpoint
from lasat_ray.runs.folder import RunFolder
from lasat_ray.strategy import StrategySpace
from lasat_ray.training.context import RunContext
from lasat_ray.training.loop import Trainer
from lasat_ray.training.round import play_round
from lasat_ray.training.trained_policy import load_policy
from lasat_ray.types import Batch
from lasat_ray.update.cost import expected_passes, round_passes
from lasat_ray.validation import check
from tests.runs.test_checkpoint import same
from tests.support.helpers import (
    CPU,
    changed,
    make_batch,
    make_images,
    seeded_learner,
    small_config,
)
from tests.support.toy import FAST, GRID, SETTINGS, rollout_of

CLASSES, N = 4, 64
POLICIES = ["reinforce", "a2c", "ppo", "mirror-descent"]
ALONE = ProcessGroup()


def a_round(**changes):
    config = small_config(**{"batch_size": 16, **changes})
    return build_round(config, make_images(48), CLASSES, group=ALONE, device=CPU)


def test_other_strategies_see_the_very_images():
    env, _ = a_round()
    assert observed(env.config, env.batch, env.net, CLASSES, ALONE) is env.batch.x
    assert observation_shape(env.config, (1, 8, 8), CLASSES) == (1, 8, 8)


def test_a_table_of_classes_treats_the_images_of_a_class_alike():
    env, learner = a_round(strategy="class-wise", learner="ppo")
    seen = observed(env.config, env.batch, env.net, CLASSES, ALONE)
    y = env.batch.y
    assert torch.equal(seen[:, :, 0, 0], F.one_hot(y, CLASSES).float())
    assert [list(head.weight.shape) for head in learner.net.heads] == [
        [3, CLASSES],
        [3, CLASSES],
        [2, CLASSES],
    ]
    for _ in range(2):
        play_round(env, learner)
    table = learner.net(torch.eye(CLASSES)[:, :, None, None])
    for log_p, row in zip(learner.net(seen), table, strict=True):
        torch.testing.assert_close(log_p, row[y])
    assert any((row.exp().std(0) > 0).any() for row in table)  # it has learned, class by class


@pytest.mark.parametrize("name", [*POLICIES, "sb3:PPO", "sb3:A2C"])
def test_every_learner_with_logits_finds_the_best_option_of_each_class(name):
    """The option of the first head that pays is the label's; that of the second is the same for all."""
    if ":" in name:
        pytest.importorskip("stable_baselines3")
    lr = {"policy__lr": 0.05}
    config = small_config(**{**FAST, **SETTINGS[name], **lr, "strategy": "class-wise", "learner": name})
    space = StrategySpace.of(GRID, device=CPU, dtype=torch.float32)
    learner = seeded(
        LearnerContext(space=space, image_shape=(3, 1, 1), config=config, group=ALONE, device=CPU)
    )
    y, index = torch.arange(N) % 3, torch.arange(N)
    seen = F.one_hot(y, 3).float()[:, :, None, None]
    for round in range(60):
        action = learner.act(seen, index, RandomKey.of(0, "action", round))
        reward = (action.index[:, 0] == y).float() + (action.index[:, 1] == 1).float()
        learner.update(rollout_of(seen, action, reward))
    chosen = learner.act(seen, index, RandomKey.of(1, "after")).index
    assert (chosen[:, 0] == y).float().mean() > 0.9 and (chosen[:, 1] == 1).float().mean() > 0.9


def test_the_margin_is_that_of_the_clean_image():
    env, _ = a_round(strategy="margin")
    found = margins(env.net, env.batch)
    with torch.no_grad():
        p = env.net.eval()(env.batch.x).softmax(1)
    for n, label in enumerate(env.batch.y.tolist()):
        others = torch.cat([p[n, :label], p[n, label + 1 :]])
        torch.testing.assert_close(found[n], p[n, label] - others.max())
    assert (found < 0).any() and (found > 0).any()  # wrong and right ones


@pytest.mark.parametrize("size", [16, 17, 5])
def test_images_of_larger_margins_are_given_later_options_in_equal_parts(size):
    env, learner = a_round(strategy="margin", batch_size=size)
    assert isinstance(learner, Margin)
    seen = observed(env.config, env.batch, env.net, CLASSES, ALONE)
    action = learner.act(seen, env.batch.index, RandomKey.of(0)).index
    by_margin = action[margins(env.net, env.batch).argsort(stable=True)]
    for k, options in enumerate(env.space.sizes):
        assert by_margin[:, k].tolist() == [n * options // size for n in range(size)]


def test_places_are_those_in_the_global_batch():
    """Two workers with shards of 3 and 4 see what one sees of all 7."""
    env, _ = a_round(strategy="margin")
    x, y = env.batch.x[:7].double(), env.batch.y[:7]
    net = env.net.double()
    whole = observed(env.config, make_batch(x, y), net, CLASSES, ALONE)
    assert sorted(whole.flatten().tolist()) == [n / 7 for n in range(7)]
    values = margins(net, make_batch(x, y))

    class Worker(ProcessGroup):
        def gather(self, mine, global_size):
            first, end = self.shard_bounds(global_size)
            torch.testing.assert_close(mine, values[first:end])
            return values

    for rank, rows in enumerate((slice(0, 3), slice(3, 7))):
        share = Batch(x=x[rows], y=y[rows], index=torch.arange(7)[rows], global_size=7)
        assert torch.equal(observed(env.config, share, net, CLASSES, Worker(rank, 2)), whole[rows])


def test_the_mean_cost_of_a_margin_strategy_is_the_grids_and_a_look():
    config = small_config(strategy="margin", batch_size=24)
    plain = small_config(strategy="random", batch_size=24)
    assert expected_passes(config, 4) == expected_passes(plain, 4) + config.epochs * 4 * 24
    assert round_passes(config, steps=2.0, paid=False)[0] == 1 + 2 * 2 + 3


def test_equal_margins_share_the_options_in_the_order_of_the_batch():
    place = _place(torch.tensor([0.5, 0.5, 0.1, 0.5]), 4, ALONE)
    assert place.tolist() == [0.25, 0.5, 0.0, 0.75]


@pytest.mark.parametrize("strategy", ["class-wise", "margin"])
def test_a_run_resumes_bit_for_bit_and_its_policy_is_loaded(strategy, tmp_path):
    config = small_config(strategy=strategy, learner="ppo", batch_size=32, data__max_train=80)
    ends = []
    for stops in ((None,), (3, None)):
        folder = RunFolder.create(tmp_path / str(len(stops)), config)
        for stop in stops:
            Trainer(config, RunContext(group=ALONE, device=CPU, folder=folder)).run(stop_after=stop)
        ends.append(load_checkpoint(folder.checkpoints / "last.safetensors"))
    assert same(ends[0]["target_net"], ends[1]["target_net"])
    assert same(ends[0]["learner"], ends[1]["learner"])
    policy = load_policy(folder, config, (1, 8, 8))
    shape = observation_shape(config, (1, 8, 8), 10)
    action = policy.learner.act(torch.zeros(3, *shape), torch.arange(3), RandomKey.of(0))
    assert action.index.shape == (3, len(grid_of(config)))


REFUSED = [
    ({"strategy": "class-wise", "learner": "ucb"}, "--learner: 'ucb' looks at nothing"),
    ({"strategy": "class-wise", "strategy_model": "resnet18"}, "--strategy-model: 'resnet18' has no effect"),
    (
        {"strategy": "margin", "data.cutmix": True},
        "--data.cutmix: True mixes labels, of which --strategy margin",
    ),
    ({"strategy": "margin", "attack.grid": {}}, "--attack.grid: '' leaves a margin strategy nothing"),
    ({"strategy": "class-wise", "learner": "margin"}, "--learner: 'margin' is unknown"),
]


@pytest.mark.parametrize(("changes", "told"), REFUSED)
def test_settings_that_do_not_go_with_them_are_refused(changes, told):
    with pytest.raises(UsageError, match=f"^{told}"):
        check(changed(get_recipe("digits").config, changes), METHODS, LEARNERS)


def test_a_curriculum_of_steps_is_a_grid_and_costs_its_mean():
    """1, 2, 3, 5 and 10 steps in equal parts of the run, the budget fixed."""
    steps = {"num_steps": (1.0, 2.0, 3.0, 5.0, 10.0), "step_size": (0.25, 0.13, 0.1, 0.08, 0.05)}
    config = small_config(strategy="curriculum", attack__grid=steps)
    learner = seeded_learner(config, StrategySpace.of(grid_of(config), device=CPU, dtype=torch.float32))
    learner.total_rounds, taken = 20, []
    for _ in range(20):
        action = learner.act(torch.zeros(2, 1, 8, 8), torch.arange(2), RandomKey.of(0)).index
        taken.append(steps["num_steps"][action[0, 1]])
        assert action[0].tolist() == [0, *[steps["num_steps"].index(taken[-1])] * 2]
    assert taken == [value for value in steps["num_steps"] for _ in range(4)]
    mean = sum(taken) / 20
    assert expected_passes(config, 20, 1) == config.batch_size * 20 * (2 * mean + 3)


def test_random_start_and_noise_fgsm_attack_as_their_papers_say():
    """Against both written out: one gradient, at a uniform start of eps or 2 eps; clipped to eps or not."""
    batch = make_batch(*_some_images())
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 10)).double()
    for name, radius, step, clip in (
        ("fgsm-rs-cifar10-preactresnet18", 8 / 255, 10 / 255, 8 / 255),
        ("n-fgsm-cifar10-preactresnet18", 16 / 255, 8 / 255, math.inf),
    ):
        config = get_recipe(name).config
        check(config, METHODS, LEARNERS)
        space = StrategySpace.of(grid_of(config), device=CPU, dtype=torch.float64)
        strategy = space.decode(torch.zeros(len(batch.x), len(space.sizes), dtype=torch.int64))
        key = RandomKey.of(0, "start")
        found = attack_batch(net, batch, strategy, key, loss="ce", start_kind=config.attack.start)
        noise = key.uniform(batch.index, tuple(batch.x.shape[1:]), torch.float64) * 2 - 1
        start = (radius * noise).clamp(-batch.x, 1 - batch.x).requires_grad_(True)
        (grad,) = torch.autograd.grad(F.cross_entropy(net(batch.x + start), batch.y), start)
        delta = (start.detach() + step * grad.sign()).clamp(-clip, clip)
        torch.testing.assert_close(found, (batch.x + delta).clamp(0, 1), rtol=0, atol=1e-12)
        assert config.evaluation.eps == 8 / 255 and config.optim.lr == 0.2


def _some_images():
    images = make_images(6, shape=(3, 8, 8), classes=10)
    return images.x.double() / 255, images.y
