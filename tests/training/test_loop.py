"""A run stopped anywhere and continued in a new process' stead ends bit for bit like one that ran through."""

import functools
import json

import pytest
import torch

from lasat_ray.cluster.local import choose_device, train_here
from lasat_ray.errors import UserError
from lasat_ray.process_group import ProcessGroup
from lasat_ray.runs.checkpoint import load_checkpoint
from lasat_ray.runs.folder import RunFolder
from lasat_ray.training.context import RunContext
from lasat_ray.training.inputs import load_config_dataset
from lasat_ray.training.loop import Trainer
from tests.support.helpers import CPU, small_config

TIMES = ("train_seconds", "img_per_second")
BETA_GRID = {"eps": (0.1, 0.2), "num_steps": (1.0, 2.0), "step_size": (0.1,), "trades_beta": (2.0, 6.0)}
CONFIGS = {
    "learned": {"update_interval": 2},
    "everything": {
        "method": "trades",
        "attack__grid": BETA_GRID,
        "loss__label_smoothing": 0.2,
        "policy__baseline": "running",
        "policy__momentum": 0.9,
        "optim__schedule": "one-cycle",
        "optim__nesterov": True,
        "optim__ema_decay": 0.9,
        "optim__grad_clip": 1.0,
        "optim__decay_norms": False,
        "data__crop_padding": 1,
        "data__flip": True,
    },
    "adam and norms": {
        "model": "small_cnn_bn",
        "strategy_model": "small_cnn_bn",
        "policy__optimizer": "adam",
        "policy__lr": 0.01,
        "policy__baseline": "leave-one-out",
        "policy__entropy_weight": 0.1,
        "reward__standardize": True,
    },
    "published reward": {
        "reward__mode": "reference",
        "reward__credit": "batch",
        "reward__lookahead": "copy",
        "reward__copy_weight_decay": 5e-4,
        "reward__copy_label_smoothing": 0.3,
        "reward__ref_restarts": 2,
        "policy__baseline": "running",
    },
    "fixed": {"strategy": "fixed"},
    "random": {"strategy": "random"},
}
ROUNDS = 6  # 115 images in batches of 32: 3 rounds an epoch


class Run:
    """One folder, trained in as many goes as a test likes, each with a trainer of its own."""

    def __init__(self, path, name, **changes):
        self.config = small_config(**CONFIGS[name], **changes)
        self.folder = RunFolder.create(path, self.config)

    def go(self, stop_after=None, **place):
        place = RunContext(group=ProcessGroup(), device=CPU, folder=self.folder, **place)
        trainer = Trainer(self.config, place, dataset())
        torch.rand(7)  # the state of torch's own generator must not matter
        return trainer, trainer.run(stop_after)


@functools.cache
def dataset():
    return load_config_dataset(small_config())


def tensors_of(trainer):
    """Every number that decides what happens next."""
    found = {}

    def walk(node, name):
        if isinstance(node, torch.Tensor):
            found[name] = node.clone()
        elif isinstance(node, dict):
            for key, value in node.items():
                walk(value, f"{name}/{key}")
        elif isinstance(node, (list, tuple)):
            for key, value in enumerate(node):
                walk(value, f"{name}/{key}")
        elif isinstance(node, (int, float)) and name.rpartition("/")[2] not in (*TIMES, "metrics_offset"):
            found[name] = torch.tensor(node)

    walk(trainer.state_dict(), "")
    return found


def records_of(folder):
    lines = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    lines = [line for line in lines if line["kind"] != "warning"]
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


def without_times(summary):
    return {key: value for key, value in summary.items() if key not in TIMES}


def assert_same(run, trainer, summary, whole):
    tensors = tensors_of(trainer)
    assert tensors.keys() == whole["tensors"].keys()
    different = [name for name, value in tensors.items() if not torch.equal(value, whole["tensors"][name])]
    assert not different
    assert without_times(summary) == whole["summary"]
    assert records_of(run.folder) == whole["records"]
    best = load_checkpoint(run.folder.checkpoints / "best.safetensors")["target_net"]
    assert all(torch.equal(value, whole["best"][name]) for name, value in best.items())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Each config's run without interruption, made when first asked for."""

    @functools.cache
    def make(name):
        run = Run(tmp_path_factory.mktemp("whole") / "run", name)
        trainer, summary = run.go()
        best = load_checkpoint(run.folder.checkpoints / "best.safetensors")["target_net"]
        return {
            "tensors": tensors_of(trainer),
            "summary": without_times(summary),
            "records": records_of(run.folder),
            "best": best,
            "run": run,
        }

    return make


@pytest.mark.parametrize(
    ("name", "stop"),
    [*((name, stop) for name in CONFIGS for stop in (1, 4)), ("learned", 3), ("everything", 3)],
)
def test_a_run_stopped_and_continued_ends_bit_for_bit_the_same(name, stop, whole, tmp_path):
    """After round 1 in mid-epoch, at the end of epoch 1, and in the middle of the last."""
    run = Run(tmp_path / "run", name)
    _, nothing = run.go(stop_after=stop)
    assert nothing == {} and run.folder.summary() is None
    trainer, summary = run.go()
    assert_same(run, trainer, summary, whole(name))
    assert without_times(run.folder.summary()) == whole(name)["summary"]


def test_a_net_with_dropout_is_resumed_bit_for_bit(tmp_path):
    """Every round names its own random numbers of torch, whatever was drawn before it in the process."""
    nets = {"model": "tests.support.outside_nets:good"}
    ends = []
    for stops in ([], [1, 4]):
        run = Run(tmp_path / f"run{len(stops)}", "fixed", **nets)
        for stop in [*stops, None]:
            torch.manual_seed(len(stops))  # another process would begin anywhere
            trainer, _ = run.go(stop_after=stop)
        ends.append(tensors_of(trainer))
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


def test_stopping_after_every_round_changes_nothing(whole, tmp_path):
    run = Run(tmp_path / "run", "learned")
    for stop in range(1, ROUNDS):
        run.go(stop_after=stop)
    trainer, summary = run.go()
    assert_same(run, trainer, summary, whole("learned"))


@pytest.mark.parametrize("damage", ["cut", "rubbish", "missing"])
def test_a_damaged_last_checkpoint_costs_time_and_nothing_else(damage, whole, tmp_path):
    run = Run(tmp_path / "run", "everything")
    run.go(stop_after=3)
    run.go(stop_after=5)
    last = run.folder.checkpoints / "last.safetensors"
    content = last.read_bytes()
    last.write_bytes({"cut": content[:-100], "rubbish": b"rubbish", "missing": b""}[damage])
    if damage == "missing":
        last.unlink()
    trainer, summary = run.go()
    warnings = [line for line in run.folder.metrics.read_text().splitlines() if '"warning"' in line]
    assert len(warnings) == (damage != "missing") and all("last.safetensors" in line for line in warnings)
    assert_same(run, trainer, summary, whole("everything"))


def test_a_killed_run_goes_on_from_the_checkpoints_between(whole, tmp_path, monkeypatch):
    """What was written after the last checkpoint is written again, once."""
    run = Run(tmp_path / "run", "learned")

    class Killed(BaseException):
        pass

    place = RunContext(group=ProcessGroup(), device=CPU, folder=run.folder, checkpoint_every=2)
    trainer = Trainer(run.config, place, dataset())
    play = trainer.env.play

    def play_until_5(actions):
        if trainer.env.round == 5:
            trainer.recorder.flush()
            raise Killed
        return play(actions)

    monkeypatch.setattr(trainer.env, "play", play_until_5)
    with pytest.raises(Killed):
        trainer.run()
    assert run.folder.load_last()[0]["round"] == 4
    assert [r["round"] for r in records_of(run.folder)] == [0, 0, 0, 1, 2, 3, 3, 3, 4]
    trainer, summary = run.go(checkpoint_every=2)
    assert_same(run, trainer, summary, whole("learned"))


def test_a_finished_run_can_be_evaluated_again(whole, tmp_path):
    run = Run(tmp_path / "run", "learned")
    run.go()
    trainer, summary = run.go()
    assert_same(run, trainer, summary, whole("learned"))


def test_seconds_are_counted_across_stops(tmp_path, monkeypatch):
    """A clock that ticks once a round: 6 rounds are 6 seconds, in one go or in three."""
    for stops in ([], [2, 4]):
        run = Run(tmp_path / f"run{len(stops)}", "fixed")
        for stop in [*stops, None]:
            place = RunContext(group=ProcessGroup(), device=CPU, folder=run.folder)
            trainer = Trainer(run.config, place, dataset())
            monkeypatch.setattr(
                "lasat_ray.training.loop.time.perf_counter", lambda env=trainer.env: float(env.round)
            )
            summary = trainer.run(stop)
        assert summary["train_seconds"] == pytest.approx(ROUNDS)
        assert summary["img_per_second"] == pytest.approx(32)


def test_records_are_complete_and_in_order(whole):
    records = whole("learned")["records"]
    assert [(r["kind"], r["round"]) for r in records] == [
        *[("data", 0)] * 2,  # what the caps on training and test images leave out
        ("round", 0),
        ("round", 1),
        ("round", 2),
        ("epoch", 3),
        ("probe", 3),
        ("round", 3),
        ("round", 4),
        ("round", 5),
        ("epoch", 6),
        ("probe", 6),
        ("final", 6),
    ]
    rounds = [r for r in records if r["kind"] == "round"]
    assert [r["epoch"] for r in rounds] == pytest.approx([1 / 3, 2 / 3, 1, 4 / 3, 5 / 3, 2])
    assert ["reward" in r for r in rounds] == [False, True] * 3
    for record in rounds:
        if "reward" in record:
            assert record["reward"] == pytest.approx(record["l1"] + record["l2"] + record["l3"], rel=1e-5)
    for record in records:
        if record["kind"] == "epoch":
            assert set(record["options"]) == {"eps", "num_steps", "step_size"}
            assert all(sum(counts) == 3 * 32 for counts in record["options"].values())
            assert 0 <= record["val_robust_acc_pgd2"] <= record["val_clean_acc"] <= 1


def test_the_summary_tells_what_was_measured_and_how(whole):
    summary = whole("everything")["summary"]
    assert summary["n_train"] == 115 and summary["n_test"] == 64 and summary["rounds"] == ROUNDS
    assert summary["method"] == "trades" and summary["strategy"] == "learned"
    assert {"clean_acc", "robust_acc_pgd2", "robust_acc_pgd3"} <= set(summary)
    assert summary["robust_acc_pgd3"] <= summary["clean_acc"]
    assert whole("everything")["records"][-1] == {"kind": "final", "round": ROUNDS, **summary}


def test_the_best_validated_net_is_the_one_that_is_tested(tmp_path):
    """Of equally robust epochs the later; a worse one is passed over."""
    run = Run(tmp_path / "run", "fixed", epochs=4)
    trainer = Trainer(run.config, RunContext(group=ProcessGroup(), device=CPU, folder=run.folder), dataset())
    real, told = trainer.evaluator.accuracy, iter([0.9, 0.5, 0.9, 0.2])
    kept = []

    def evaluate(net, images, num_steps, view=None):
        if images is trainer.val_images and num_steps == 2:
            kept.append({k: v.clone() for k, v in net.state_dict().items()})
            return next(told)
        return real(net, images, num_steps, view)

    trainer.evaluator.accuracy = evaluate
    summary = trainer.run()
    best = run.folder.load_best()
    assert best["round"] == 9 and summary["net"] == "best on validation"
    assert all(torch.equal(value, kept[2][name]) for name, value in best["target_net"].items())
    assert all(torch.equal(v, kept[2][k]) for k, v in trainer.env.target.deployed.state_dict().items())


def test_a_trainer_holds_no_image_twice(tmp_path):
    """Every worker holds the data set: what it keeps beside the two parts would double its memory."""
    run = Run(tmp_path / "run", "fixed")
    trainer = Trainer(run.config, RunContext(group=ProcessGroup(), device=CPU, folder=run.folder))
    assert trainer.dataset.train is trainer.train_images
    (feed, _), *others = trainer.env.batches._feeds
    assert not others and feed._store._x.data_ptr() == trainer.train_images.x.data_ptr()


def test_without_validation_the_last_net_is_tested(tmp_path):
    run = Run(tmp_path / "run", "fixed", data__val_fraction=0.0)
    _, summary = run.go()
    assert summary["net"] == "last" and summary["n_train"] == 128
    with pytest.raises(UserError, match="no such checkpoint"):
        run.folder.load_best()


def test_the_average_is_what_is_validated_kept_and_tested(whole):
    run = whole("everything")["run"]
    state = load_checkpoint(run.folder.checkpoints / "last.safetensors")
    average, net = state["average"]["net"], state["target_net"]
    assert any(not torch.equal(average[name], net[name]) for name in net)
    epochs = [r for r in whole("everything")["records"] if r["kind"] == "epoch"]
    assert all("val_unaveraged_robust_acc_pgd2" in r for r in epochs)
    best = run.folder.load_best()
    if best["round"] == ROUNDS:
        assert all(torch.equal(best["target_net"][name], average[name]) for name in average)


def test_every_validation_and_the_last_epoch_are_validated(tmp_path):
    reports = []
    run = Run(tmp_path / "run", "fixed", epochs=3, evaluation__every=2)
    run.go(after_epoch=reports.append)
    epochs = [r for r in records_of(run.folder) if r["kind"] == "epoch"]
    assert ["val_clean_acc" in r for r in epochs] == [False, True, True]
    assert [r["epoch"] for r in reports] == [2, 3]


def test_the_learner_has_learned_and_the_controls_have_not(whole):
    first = Trainer(
        whole("learned")["run"].config,
        RunContext(group=ProcessGroup(), device=CPU, folder=whole("learned")["run"].folder),
        dataset(),
    )
    heads = [name for name in whole("learned")["tensors"] if "/learner/net/heads" in name]
    before = {f"/learner/net/{name}": value for name, value in first.learner.net.state_dict().items()}
    assert heads and all(not torch.equal(whole("learned")["tensors"][name], before[name]) for name in heads)
    assert not any("/learner/" in name for name in whole("random")["tensors"])


def test_the_seed_decides_and_nothing_else(whole, tmp_path):
    torch.manual_seed(12345)
    again = Run(tmp_path / "again", "learned")
    trainer, summary = again.go()
    assert_same(again, trainer, summary, whole("learned"))
    other = Run(tmp_path / "other", "learned", seed=1)
    _, differs = other.go()
    assert (
        differs["clean_acc"] != summary["clean_acc"]
        or records_of(other.folder) != whole("learned")["records"]
    )


def test_training_here_is_the_loop_with_one_worker(whole, tmp_path):
    config, heard = small_config(**CONFIGS["learned"]), []
    folder = RunFolder.create(tmp_path / "run", config)
    assert train_here(config, folder, device="cpu", stop_after=2) == {}
    summary = train_here(config, folder, device="cpu", listener=heard.append)
    assert without_times(summary) == whole("learned")["summary"]
    figures = [record["round"] for record in heard if record["kind"] not in ("probe", "checkpoint")]
    assert figures == [2, 3, 3, 4, 5, 6, 6]
    assert [record["round"] for record in heard if record["kind"] == "checkpoint"] == [3, 6]


def test_a_gpu_that_is_not_there_is_told(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto").type == choose_device("cpu").type == "cpu"
    with pytest.raises(UserError, match="--device: cuda is not here"):
        choose_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert choose_device("cuda") == torch.device("cuda:1")
    assert [choose_device(name).type for name in ("auto", "cuda", "cpu")] == ["cuda", "cuda", "cpu"]
