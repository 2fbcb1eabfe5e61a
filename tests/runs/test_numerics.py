"""Nan and infinity: found in their round, told with images and fields, and mended as asked."""

from __future__ import annotations

import dataclasses
import json
import math
import re

import pytest
import torch

from lasat_ray.errors import UserError
from lasat_ray.process_group import ProcessGroup
from lasat_ray.runs.folder import RunFolder
from lasat_ray.runs.numerics import NonFiniteReport
from lasat_ray.training.context import RunContext
from lasat_ray.training.loop import Trainer
from tests.support.helpers import CPU, small_config

AT = 4  # the round of six that goes wrong


def trainer_of(path, **changes):
    config = small_config(model="mlp", strategy_model="mlp", **changes)
    folder = RunFolder.open(path) if path.exists() else RunFolder.create(path, config)
    return Trainer(config, RunContext(group=ProcessGroup(), device=CPU, folder=folder))


def spoil(trainer, *, images=2, times=1):
    """The loss of the first images of a round becomes nan, the first ``times`` that it is played."""
    target, left = trainer.env.target, [times]
    task = target.task

    def spoiled(batch, *args):
        made = task(batch, *args)
        if trainer.env.round != AT or left[0] < 1:
            return made
        left[0] -= 1
        loss = made.method.loss

        def bad(inputs):
            factor = torch.ones(len(inputs.y))
            factor[:images] = math.nan
            return loss(inputs) * factor

        return dataclasses.replace(made, method=dataclasses.replace(made.method, loss=bad))

    target.task = spoiled


def records(trainer, kind):
    lines = trainer.context.folder.metrics.read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == kind]


def test_a_nan_ends_the_run_in_one_line_with_images_and_fields(tmp_path):
    trainer = trainer_of(tmp_path / "run")
    spoil(trainer)
    rows = trainer.env.batches.batch(AT).index[:2].tolist()
    with pytest.raises(UserError, match=rf"^round {AT}: nan or infinity in ") as caught:
        trainer.run()
    assert "\n" not in str(caught.value) and "--numerics.on-nan" in str(caught.value)
    (record,) = records(trainer, "nonfinite")
    assert record["round"] == AT and record["action"] == "stop"
    assert record["fields"]["loss"] == rows and record["fields"]["gradient"] == []
    assert all(str(row) in str(caught.value) for row in rows)
    state, _ = trainer.context.folder.load_last()
    assert state["round"] == 3 and all(v.isfinite().all() for v in state["target_net"].values())


@pytest.mark.parametrize("lag", [0, 1])
def test_a_skipped_batch_leaves_both_nets_as_they_were(tmp_path, lag):
    """With a lag the round after it is played twice, as on a GPU; the run is the same."""
    trainer = trainer_of(tmp_path / "run", numerics__on_nan="skip")
    trainer.recovery.lag = lag
    spoil(trainer, times=9)
    seen, play = {}, trainer.play

    def noted():
        seen[trainer.env.round] = [value.clone() for value in trainer.env.net.state_dict().values()]
        return play()

    trainer.play = noted
    summary = trainer.run()
    assert summary["rounds"] == 6
    assert all(torch.equal(a, b) for a, b in zip(seen[AT], seen[AT + 1], strict=True))
    assert [record["round"] for record in records(trainer, "round")] == [0, 1, 2, 3, 5]
    assert [record["round"] for record in records(trainer, "nonfinite")] == [AT]


def test_a_rollback_goes_on_from_the_checkpoint_at_a_smaller_rate(tmp_path):
    trainer = trainer_of(tmp_path / "run", numerics__on_nan="rollback")
    spoil(trainer)
    summary = trainer.run()
    assert summary["rounds"] == 6 and trainer.env.target.rate_factor == 0.5
    assert [record["round"] for record in records(trainer, "round")] == list(range(6))
    (record,) = records(trainer, "nonfinite")
    assert record["action"] == "rollback" and "back to round 3" in record["told"]
    calm = trainer_of(tmp_path / "calm")
    assert trainer.env.target.rate(5) == 0.5 * calm.env.target.rate(5)
    again = trainer_of(tmp_path / "run", numerics__on_nan="rollback")
    again.restore()
    assert again.env.target.rate_factor == 0.5 and again.recovery.faults == 1


def test_what_does_not_go_away_ends_the_run_after_all(tmp_path):
    trainer = trainer_of(tmp_path / "run", numerics__on_nan="rollback", numerics__max_faults=2)
    spoil(trainer, times=99)
    with pytest.raises(UserError, match="the run ends after 2 such rounds"):
        trainer.run()
    assert trainer.env.target.rate_factor == 0.25


@pytest.mark.parametrize(("field", "rate"), [("policy grad norm", "--policy.lr"), ("loss", "--optim.lr")])
def test_the_remedy_is_the_rate_of_the_net_that_ran_away(tmp_path, field, rate):
    trainer = trainer_of(tmp_path / "run")
    told = trainer.recovery._last_words(NonFiniteReport(3, {field: []}), False)
    assert f"nan or infinity in {field}; the run ends; lower {rate}, or start again with" in told
    ended = trainer.recovery._last_words(NonFiniteReport(3, {field: []}), True)
    assert re.search(rf"the run ends after \d+ such rounds; lower {rate}; ", ended)
