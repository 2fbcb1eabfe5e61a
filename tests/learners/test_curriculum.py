"""``--strategy curriculum``: options grow by the clock, and a resumed run goes on where it was."""

import pytest
import torch

from lasat_ray.errors import UsageError
from lasat_ray.learners.controls import Curriculum
from lasat_ray.process_group import ProcessGroup
from lasat_ray.runs.checkpoint import load_checkpoint
from lasat_ray.runs.folder import RunFolder
from lasat_ray.strategy import StrategySpace
from lasat_ray.training.context import RunContext
from lasat_ray.training.loop import Trainer
from lasat_ray.types import Action
from lasat_ray.validation import check
from tests.runs.test_checkpoint import same
from tests.support.helpers import CPU, make_context, make_game, small_config

GRID = {"eps": (0.1, 0.2, 0.3), "num_steps": (1.0, 2.0)}


def learner_of(total_rounds):
    space = StrategySpace.of(GRID, device=CPU, dtype=torch.float32)
    context = make_context(small_config(), space)
    learner = Curriculum(context)
    learner.total_rounds = total_rounds
    return learner


def acted(learner):
    action: Action = learner.act(torch.zeros(4, 1, 8, 8), torch.arange(4), None)
    assert (action.index == action.index[0]).all() and (action.log_prob == 0).all()
    return tuple(action.index[0].tolist())


def test_every_head_walks_from_its_first_to_its_last_option():
    learner = learner_of(6)
    assert [acted(learner) for _ in range(6)] == [(0, 0), (0, 0), (1, 0), (1, 1), (2, 1), (2, 1)]
    assert acted(learner) == (2, 1)


def test_a_value_that_stands_twice_lasts_twice_as_long():
    grid = {"eps": (0.1, 0.1, 0.2), "num_steps": (2.0,)}
    config = small_config(strategy="curriculum", attack__grid=grid)
    check(config)
    with pytest.raises(UsageError, match=r"--attack.grid: eps=0\.1 stands twice"):
        check(small_config(attack__grid=grid))
    env = make_game(config)
    learner = Curriculum(make_context(config, env.space))
    learner.total_rounds = 6
    chosen = [
        float(env.space.decode(learner.act(env.batch.x, env.batch.index, None).index).eps[0])
        for _ in range(6)
    ]
    assert chosen == pytest.approx([0.1] * 4 + [0.2] * 2)


def test_a_resumed_curriculum_goes_on():
    learner, other = learner_of(6), learner_of(6)
    for _ in range(3):
        acted(learner)
    other.load_state_dict(learner.state_dict())
    assert acted(other) == acted(learner) == (1, 1)


def test_a_run_with_a_curriculum_resumes_bit_for_bit(tmp_path):
    config = small_config(strategy="curriculum", attack__grid=GRID, batch_size=32, data__max_train=80)
    ends = []
    for stops in ((None,), (3, None)):
        folder = RunFolder.create(tmp_path / str(len(stops)), config)
        for stop in stops:
            Trainer(config, RunContext(group=ProcessGroup(), device=CPU, folder=folder)).run(stop_after=stop)
        ends.append(load_checkpoint(folder.checkpoints / "last.safetensors"))
    assert same(ends[0]["target_net"], ends[1]["target_net"])
    assert ends[0]["learner"] == ends[1]["learner"] == {"round": 4}
