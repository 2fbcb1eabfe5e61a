"""Training as a GPU would see it, without one: nothing mixes devices, and every result is the CPU's."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from benchmarks.gpu.launches import counted_round
from lasat_ray.cluster.local import choose_device
from lasat_ray.config import TrainConfig
from lasat_ray.data import Images
from lasat_ray.data.feed import Store
from lasat_ray.env.build import build_round
from lasat_ray.errors import UserError
from lasat_ray.process_group import ProcessGroup, indexed, numbers_like, out_of_memory_told, to_device
from lasat_ray.runs.folder import RunFolder
from lasat_ray.training.context import RunContext
from lasat_ray.training.loop import Trainer
from lasat_ray.training.round import play_round
from tests.support.helpers import make_images, small_config
from tests.support.method_runs import DISTINCT, run_config, write_teacher
from tests.support.pretended_card import CardTensor, PretendedGPU
from tests.support.pretended_gpu import pretended_gpu


@pytest.fixture
def gpu():
    with pretended_gpu() as card:
        yield card


def weights_after(config: TrainConfig, device: str, rounds: int = 3) -> dict[str, torch.Tensor]:
    """The target's state after some rounds on 64 random images of 4 classes, on the host."""
    env, learner = build_round(config, make_images(64), 4, group=ProcessGroup(), device=torch.device(device))
    for round in range(rounds):
        torch.manual_seed(round)
        play_round(env, learner)
    return {name: value.cpu() for name, value in env.net.state_dict().items()}


def equal(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    for name in theirs:
        torch.testing.assert_close(
            ours[name], theirs[name], rtol=0, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_the_pretence_ends_with_its_block():
    names = [(torch.cuda, "is_available"), (torch, "autocast"), (torch.cuda, "Event"), (torch.cuda, "graph")]
    before = [getattr(owner, name) for owner, name in names]
    with pretended_gpu():
        assert torch.cuda.is_available() and torch.zeros(2, device="cuda").device == torch.device("cuda:0")
    assert [getattr(owner, name) for owner, name in names] == before
    assert not torch.__future__.get_overwrite_module_params_on_conversion()


def test_mixed_devices_fail(gpu: PretendedGPU):
    card, host = torch.ones(3, device="cuda"), torch.ones(3)
    for work in (
        lambda: card + host,
        lambda: torch.cat([card, host]),
        lambda: torch.where(host > 0, card, 0.0),
    ):
        with pytest.raises(RuntimeError, match="same device"):
            work()
    with pytest.raises(TypeError, match="numpy"):
        card.numpy()
    assert (card + torch.tensor(2.0)).tolist() == [3.0] * 3  # a number of the host may join


def test_waits_and_launches_are_counted_with_their_kinds(gpu: PretendedGPU):
    card, event = torch.arange(4.0, device="cuda"), torch.cuda.Event()
    with gpu.counting() as counts:
        card[card > 1].sum().item()
        card.to("cpu")
        to_device(torch.ones(2), card.device)
        torch.ones(2).to("cuda", non_blocking=True)  # not page-locked
    assert [kind for kind, _ in counts.waits] == [
        "index by a mask", "item", "copy to the host", "copy from pageable memory",
    ]  # fmt: skip
    assert counts.num_launches == 3  # gt, index, sum
    event.record()
    with gpu.counting() as counts:
        card.tolist()
        event.synchronize()  # what came later was waited for
    assert counts.num_waits == 1


def test_a_recorded_graph_reads_and_writes_the_same_memory(gpu: PretendedGPU):
    held, graph = torch.zeros(3, device="cuda"), torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = (held * 2).sum()
    held.copy_(torch.arange(3.0, device="cuda"))
    with gpu.counting() as counts:
        graph.replay()
    assert out.item() == 6.0 and counts.num_launches == 1
    with pytest.raises(RuntimeError, match="capturing"), torch.cuda.graph(torch.cuda.CUDAGraph()):
        held.sum().item()


def test_a_gpu_is_named_with_its_index(gpu: PretendedGPU):
    assert choose_device("cuda") == choose_device("auto") == indexed("cuda") == torch.device("cuda:0")
    assert indexed("cuda:1") == torch.device("cuda:1") and choose_device("cpu") == torch.device("cpu")
    store = Store(make_images(8), torch.device("cuda"))
    assert store.home == store.device == torch.device("cuda:0")
    assert isinstance(numbers_like(torch.zeros(1, device="cuda"), [1.0, 2.0]), CardTensor)


def test_images_that_do_not_fit_stay_on_the_host(gpu: PretendedGPU, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *args: (100, 100))
    config = small_config(strategy="fixed", precision="fp64")
    equal(weights_after(config, "cuda"), weights_after(config, "cpu"))
    store = Store(make_images(8), torch.device("cuda"))
    assert store.home == torch.device("cpu") and isinstance(store.gather(torch.arange(3))[0], CardTensor)


CASES: dict[str, dict[str, Any]] = {
    "bf16": {"precision": "bf16", "model": "small_cnn_bn"},
    "influence": {"reward__credit": "influence"},
    "lookahead copy": {"reward__lookahead": "copy"},
    "greedy": {"reward__lookahead": "copy", "policy__baseline": "greedy"},
    "reference": {"reward__mode": "reference", "reward__credit": "batch", "reward__ref_restarts": 2},
    "ppo": {"learner": "ppo", "policy__target_kl": 0.01},
    "a2c": {"learner": "a2c"},
    "mirror descent": {"learner": "mirror-descent", "strategy_model": "small_cnn_bn"},
    "ucb": {"learner": "ucb"},
    "thompson": {"learner": "thompson"},
    "exp3": {"learner": "exp3"},
    "random": {"strategy": "random"},
    "curriculum": {"strategy": "curriculum"},
    "l2": {"attack__norm": "l2"},
    "mixed losses": {
        "attack__grid": {
            **{"eps": (0.1,), "num_steps": (1.0, 2.0), "step_size": (0.1,), "attack_loss": (0.0, 2.0)},
        },
    },
    "augmented": {"data__crop_padding": 1, "data__flip": True, "data__cutout": 3, "data__cutmix": True},
    "average": {"optim__ema_decay": 0.9, "model": "small_cnn_bn"},
    "graph": {"speed__compile": "graph", "speed__bucket": 8, "model": "small_cnn_bn"},
}  # fmt: skip


@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
@pytest.mark.parametrize("name", CASES)
def test_rounds_are_those_of_the_cpu(gpu: PretendedGPU, name: str, device: str):
    if device == "cuda:0" and name != "bf16":
        pytest.skip("both names lead to one device: one case shows it")
    config = small_config(**{"precision": "fp64", **CASES[name]})
    ours = weights_after(config, device)
    if name not in ("bf16", "influence"):  # here forward mode gives way to a difference
        equal(ours, weights_after(config, "cpu"))


def test_a_graph_fails_into_plain_steps_with_a_line(gpu: PretendedGPU, monkeypatch: pytest.MonkeyPatch):
    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("operation not permitted\nwhen stream is capturing")

    config = small_config(precision="fp64", speed__compile="graph")
    monkeypatch.setattr(torch.cuda, "graph", broken)
    with pytest.warns(RuntimeWarning, match="--speed.compile graph: operation not permitted when .* go on"):
        ours = weights_after(config, "cuda")
    equal(ours, weights_after(config, "cpu"))


@pytest.mark.parametrize("name", DISTINCT)
def test_every_method_plays_on_the_card_and_waits_once(gpu: PretendedGPU, name: str, tmp_path):
    config = run_config(name, write_teacher(tmp_path / "teacher.safetensors"))
    images = Images(make_images(48).x, torch.arange(48) % 10)

    def played(device: str) -> dict[str, torch.Tensor]:
        env, learner = build_round(config, images, 10, group=ProcessGroup(), device=torch.device(device))
        counts = counted_round(env, learner, gpu, before=1)
        assert counts.num_waits <= 1, counts.waits
        return {key: value.cpu() for key, value in env.net.state_dict().items()}

    equal(played("cuda"), played("cpu"))


@pytest.fixture
def arithmetic():
    """Leaves the process as it was."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic = before
    torch.set_float32_matmul_precision("highest")


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize(
    ("tf32", "convolutions", "matmul"),
    [("none", "ieee", "highest"), ("convolutions", "tf32", "highest"), ("all", "tf32", "high")],
)
def test_what_is_multiplied_in_tf32_is_chosen_and_told(gpu, tmp_path, tf32, convolutions, matmul):
    config = small_config(precision="fp32", strategy="fixed", speed__tf32=tf32)
    folder = RunFolder.create(tmp_path / "run", config)
    Trainer(config, RunContext(group=ProcessGroup(), device=indexed("cuda"), folder=folder)).run(1)
    assert torch.backends.cudnn.allow_tf32 == (convolutions == "tf32") and torch.backends.cudnn.deterministic
    assert torch.get_float32_matmul_precision() == matmul
    told = folder.read_json("manifest.json")["machine"]
    assert (told["device"], told["convolutions"], told["matmul"]) == ("pretended", convolutions, matmul)


@pytest.mark.parametrize("on_nan", ["skip", "rollback"])
def test_a_run_validates_records_resumes_and_ends_as_on_the_cpu(gpu: PretendedGPU, on_nan: str, tmp_path):
    config = small_config(precision="fp64", numerics__on_nan=on_nan)

    def run(name: str, device: str, stops: list[int | None]) -> dict[str, Any]:
        summary: dict[str, Any] = {}
        for stop in stops:
            folder = RunFolder(tmp_path / name)
            folder = folder if folder.path.exists() else RunFolder.create(tmp_path / name, config)
            summary = Trainer(
                config, RunContext(group=ProcessGroup(), device=indexed(device), folder=folder)
            ).run(stop)
        return {key: value for key, value in summary.items() if "second" not in key}

    whole = run("whole", "cuda", [None])
    assert whole == run("parts", "cuda", [2, 4, None]) == run("cpu", "cpu", [None])


LOOPS: dict[str, tuple[dict[str, Any], dict[str, bool]]] = {
    "plain": ({}, {}),
    "a budget in passes": ({"budget_passes": 20.0, "reward__objective": "rate"}, {}),
    "a budget in minutes": ({"budget_minutes": 5.0}, {}),
    "rounds may be skipped": ({"numerics__on_nan": "skip"}, {}),
    "actions are kept": ({}, {"log_actions": True}),
}


@pytest.mark.parametrize("name", LOOPS)
def test_the_loop_around_a_round_waits_for_its_records_alone(gpu: PretendedGPU, name: str, tmp_path):
    changes, options = LOOPS[name]
    config = small_config(precision="fp64", batch_size=2, **changes)  # so many rounds that two are one record
    folder = RunFolder.create(tmp_path / "run", config)
    context = RunContext(group=ProcessGroup(), device=indexed("cuda"), folder=folder, **options)
    trainer = Trainer(config, context)
    trainer.run(3)
    with gpu.counting() as counts:
        for _ in range(2):
            trainer._play_next(math.inf)
    assert counts.num_waits <= 3, counts.waits


def test_memory_that_is_full_is_told_in_one_line():
    told = "--device: the GPU's memory is full with --batch-size 128, .* 500, --speed.bucket 16; lower them"
    with pytest.raises(UserError, match=told), out_of_memory_told(128, 16, 500):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    with pytest.raises(torch.AcceleratorError), out_of_memory_told(128, 16, 500):
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
