"""Stable-Baselines3 drives the trainer: a whole run resumes to the bit, and workers stay equal."""

import numpy as np
import pytest
import torch

pytest.importorskip("stable_baselines3")

from lasat_ray.learners.sb3 import named_numbers
from lasat_ray.process_group import ProcessGroup
from lasat_ray.rng import RandomKey
from lasat_ray.runs.checkpoint import load_checkpoint
from lasat_ray.runs.folder import RunFolder
from lasat_ray.training.context import RunContext
from lasat_ray.training.loop import Trainer
from lasat_ray.types import Rollout
from tests.runs.test_checkpoint import same
from tests.support.helpers import CPU, small_config
from tests.support.toy import FAST, Brightness, toy_learner


@pytest.mark.parametrize("name", ["sb3:PPO", "sb3:A2C"])
def test_a_run_driven_by_sb3_resumes_bit_for_bit(name, tmp_path):
    few = {"policy__update_epochs": 2, "policy__minibatches": 2} if name == "sb3:PPO" else {}
    config = small_config(**{**FAST, **few}, learner=name, policy__lr=1e-3, data__max_train=144)
    ends = []
    for stops in ((None,), (3, None)):
        folder = RunFolder.create(tmp_path / str(len(stops)), config)
        for stop in stops:
            Trainer(config, RunContext(group=ProcessGroup(), device=CPU, folder=folder)).run(stop_after=stop)
        ends.append(load_checkpoint(folder.checkpoints / "last.safetensors"))
    assert same(ends[0]["learner"], ends[1]["learner"]) and same(ends[0]["target_net"], ends[1]["target_net"])
    assert ends[0]["learner"]["updates"] == 4


class Whole(ProcessGroup):
    """A worker that is told the global batch: what ``gather`` would bring together."""

    def __init__(self, rank, rollout):
        super().__init__(rank, 2)
        object.__setattr__(self, "rollout", rollout)

    def gather(self, mine, global_size):
        parts = (self.rollout.x, self.rollout.action, self.rollout.reward)
        first, end = self.shard_bounds(global_size)
        (whole,) = [p for p in parts if p.shape[1:] == mine.shape[1:] and p[first:end].equal(mine)]
        return whole

    def broadcast_from_first(self, net):
        pass


@pytest.mark.parametrize("name", ["sb3:PPO", "sb3:A2C"])
def test_every_worker_trains_the_same_policy_on_the_global_batch(name):
    alone = toy_learner(name)
    (x, bright), index = Brightness(1).images(64), torch.arange(64)
    action = alone.act(x, index, RandomKey.of(0, "a"))
    noise = RandomKey.of(0, "n").uniform(index, (), torch.float32)  # tells rewards of both halves apart
    reward = Brightness.reward(bright, action.index) + noise
    whole = Rollout(x=x, action=action.index, log_prob=action.log_prob, reward=reward, global_size=64)
    alone.update(whole)
    for rank in range(2):
        learner = toy_learner(name)
        learner.group = Whole(rank, whole)
        rows = slice(32 * rank, 32 * rank + 32)
        part = learner.act(x[rows], index[rows], RandomKey.of(0, "a"))
        assert torch.equal(part.index, action.index[rows])
        learner.update(
            Rollout(x=x[rows], action=part.index, log_prob=part.log_prob, reward=reward[rows], global_size=64)
        )
        assert same(learner.state_dict(), alone.state_dict())


def test_named_numbers_leave_the_generators_as_they_were():
    np.random.seed(1)
    torch.manual_seed(1)
    wanted = np.random.rand(), torch.rand(())
    np.random.seed(1)
    torch.manual_seed(1)
    drawn = []
    for _ in range(2):
        with named_numbers(RandomKey.of(0, "x")):
            drawn.append((np.random.rand(), float(torch.rand(()))))
    assert drawn[0] == drawn[1] and (np.random.rand(), torch.rand(())) == wanted


def test_the_value_weight_means_what_it_means_to_our_own_learners(tmp_path):
    """Half the squared error is weighed; SB3 weighs all of it."""
    config = small_config(**FAST, learner="sb3:PPO", policy__value_weight=0.6)
    folder = RunFolder.create(tmp_path / "run", config)
    learner = Trainer(config, RunContext(group=ProcessGroup(), device=CPU, folder=folder)).learner
    assert learner.model.vf_coef == 0.3
