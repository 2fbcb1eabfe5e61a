"""What every method promises, whatever it is: a line in METHODS is covered by these tests."""

import dataclasses
import json
import math

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from lasat_ray.config import LossConfig
from lasat_ray.learners import LEARNERS
from lasat_ray.methods import METHODS, MethodInputs
from lasat_ray.process_group import ProcessGroup
from lasat_ray.runs.checkpoint import load_checkpoint
from lasat_ray.runs.folder import RunFolder
from lasat_ray.types import Logits
from lasat_ray.validation import check
from tests.runs.test_checkpoint import same
from tests.support.helpers import strategy_of
from tests.support.method_runs import DISTINCT, assert_same_nets, run_config, trainer_in, write_teacher

F64 = torch.float64


@pytest.fixture(scope="session")
def teacher(tmp_path_factory):
    return write_teacher(tmp_path_factory.mktemp("teacher") / "best.safetensors")


def outcome(folder):
    """All of the last checkpoint that training decides."""
    state = load_checkpoint(folder.checkpoints / "last.safetensors")
    return {key: value for key, value in state.items() if key not in ("train_seconds", "metrics_offset")}


def random_inputs(name, count=6, classes=5, config=None):
    g = torch.Generator().manual_seed(0)
    adv, clean, helper, companion = torch.randn(4, count, classes, generator=g, dtype=F64)
    if METHODS[name].companions == 2:
        companion = torch.stack([companion, helper], 1)
    ones = torch.ones(count, dtype=F64)
    beta = torch.linspace(1, 9, count, dtype=F64)
    return MethodInputs(
        logits=Logits(adv=adv.requires_grad_(True), clean=clean, helper=helper, companion=companion),
        y=torch.arange(count) % classes,
        strategy=strategy_of(ones, ones.long(), ones, trades_beta=beta),
        config=config or LossConfig(),
        stats={"weight": beta / 5},
    )


def rows_of(inputs, rows):
    logits = inputs.logits
    parts = {f.name: getattr(logits, f.name)[rows] for f in dataclasses.fields(logits)}
    return dataclasses.replace(
        inputs,
        logits=Logits(**parts),
        y=inputs.y[rows],
        strategy=inputs.strategy[rows],
        stats={name: value[rows] for name, value in inputs.stats.items()},
    )


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_a_loss_is_per_image(name, smoothing):
    """Image n's loss and its gradient know nothing of the other images."""
    inputs = random_inputs(name, config=LossConfig(label_smoothing=smoothing))
    loss_B = METHODS[name].loss(inputs)
    assert loss_B.shape == (6,) and loss_B.isfinite().all()
    for n in (0, 4):
        alone = METHODS[name].loss(rows_of(inputs, torch.tensor([n])))
        torch.testing.assert_close(alone, loss_B[n : n + 1], rtol=0, atol=1e-14)
        (grad,) = torch.autograd.grad(loss_B[n], inputs.logits.adv, retain_graph=True)
        assert grad.abs().sum(1).nonzero().flatten().tolist() == [n]


@pytest.mark.parametrize("name", sorted(METHODS.keys() - {"ltd"}))
def test_smoothing_changes_a_loss(name):
    plain, smooth = (
        METHODS[name].loss(random_inputs(name, config=LossConfig(label_smoothing=s))) for s in (0, 0.3)
    )
    assert (plain - smooth).abs().min() > 1e-6


@pytest.mark.parametrize("name", sorted(METHODS.keys() - {"ltd"}))
def test_an_image_has_its_own_smoothing_where_its_strategy_says_so(name):
    """Each image's loss is that of a run where all have its smoothing, whatever the settings say."""
    inputs = random_inputs(name, config=LossConfig(label_smoothing=0.9))
    shares = torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4, 0.5], dtype=F64)
    own = dataclasses.replace(inputs.strategy, label_smoothing=shares)
    loss_B = METHODS[name].loss(dataclasses.replace(inputs, strategy=own))
    for n, share in enumerate(shares.tolist()):
        alike = METHODS[name].loss(random_inputs(name, config=LossConfig(label_smoothing=share)))
        torch.testing.assert_close(loss_B[n], alike[n], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", METHODS)
def test_beta_matters_where_a_method_says_so(name):
    inputs = random_inputs(name)
    other = dataclasses.replace(inputs.strategy, trades_beta=inputs.strategy.trades_beta + 1)
    moved = (
        METHODS[name].loss(inputs) - METHODS[name].loss(dataclasses.replace(inputs, strategy=other))
    ).abs()
    assert (moved.min() > 1e-6) == ("trades_beta" in METHODS[name].fields)


@pytest.mark.parametrize("name", DISTINCT)
def test_a_run_trains_and_resumes_bit_for_bit(name, teacher, tmp_path):
    """Two epochs of two rounds, in one go and stopped inside the second, with an epoch's state."""
    config = run_config(name, teacher)
    summary = trainer_in(tmp_path / "whole", config).run()
    assert summary["rounds"] == 4 and summary["method"] == name
    trainer_in(tmp_path / "stopped", config).run(stop_after=3)
    trainer_in(tmp_path / "stopped", config).run()
    assert same(outcome(RunFolder(tmp_path / "stopped")), outcome(RunFolder(tmp_path / "whole")))


RATE = {
    **{"reward__objective": "rate", "reward__credit": "influence", "reward__standardize": True},
    **{"reward__outcome": "heldout", "reward__outcome_images": 4},
}


@pytest.mark.parametrize("settings", [{"strategy": "fixed"}, RATE], ids=["alone", "rate"])
@pytest.mark.parametrize("name", [name for name in DISTINCT if METHODS[name].attacks])
def test_a_method_trains_alone_and_is_paid_by_the_pass(name, settings, teacher, tmp_path):
    """A learned strategy is what the other tests run with."""
    config = run_config(name, teacher, **{**settings, "epochs": 3 if name == "hydra" else 2})
    check(config, METHODS, LEARNERS)
    summary = trainer_in(tmp_path / "run", config).run()
    assert summary["method"] == name and 0 <= summary["robust_acc_pgd1"] <= 1
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [record["loss"] for record in records if record["kind"] == "round"]
    assert losses and all(math.isfinite(value) for value in losses)
    assert any("price" in record for record in records) == (settings is RATE)


def work_on_all(rank, size, teacher, path):
    torch.set_num_threads(1)
    for name in DISTINCT:
        dist.init_process_group("gloo", init_method=f"file://{path / name}/meet", rank=rank, world_size=size)
        try:
            config = run_config(name, teacher, model="small_cnn")
            trainer_in(path / name / "many", config, ProcessGroup(rank, size)).run(stop_after=3)
        finally:
            dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 4])
def test_several_workers_train_the_net_that_one_trains(size, teacher, tmp_path):
    """All methods in one group of processes, since starting a process costs more than the rounds."""
    for name in DISTINCT:
        (tmp_path / name).mkdir()
        RunFolder.create(tmp_path / name / "many", run_config(name, teacher, model="small_cnn"))
    mp.spawn(work_on_all, args=(size, teacher, tmp_path), nprocs=size)
    for name in DISTINCT:
        config = run_config(name, teacher, model="small_cnn")
        trainer_in(tmp_path / name / "one", config).run(stop_after=3)
        assert_same_nets(tmp_path / name / "one", tmp_path / name / "many", name)
