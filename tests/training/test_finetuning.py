"""A whole run with frozen layers, AdamW and rates by layer; and with a vision transformer."""

import json
import warnings

import pytest
import torch

from lasat_ray import evaluate, load_model
from lasat_ray.api.commands.export import FORMATS
from lasat_ray.cluster.local import train_here
from lasat_ray.export import main
from lasat_ray.process_group import ProcessGroup
from lasat_ray.runs.folder import RunFolder
from lasat_ray.runs.load import load_checkpointed
from lasat_ray.training.context import RunContext
from lasat_ray.training.loop import Trainer
from lasat_ray.update.credit import central_difference, directional_derivative
from tests.support.helpers import CPU, small_config

TUNED = {
    "optim__optimizer": "adamw",
    "optim__lr": 1e-3,
    "optim__freeze": ("convs.0", "convs.1"),
    "optim__lr_factors": ("convs*=0.1", "fc=2"),
    "reward__credit": "influence",
    "reward__standardize": True,
    "model": "tiny_cnn_bn",
    "data__max_train": 160,
    "data__mean": (0.3,),
    "data__std": (0.4,),
}
VIT = {"model": "tests.support.vit:tiny", "data__max_train": 160, "precision": "fp32"}


def trained(path, stop_after=None, **changes):
    config = small_config(**changes)
    folder = RunFolder(path) if path.exists() else RunFolder.create(path, config)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # the fallback of influence credit
        train_here(config, folder, device="cpu", stop_after=stop_after)
    return folder


def test_frozen_layers_stay_and_a_resumed_run_has_the_same_bits(tmp_path):
    whole = trained(tmp_path / "whole", **TUNED)
    parts = trained(tmp_path / "parts", 3, **TUNED)
    trained(tmp_path / "parts", **TUNED)
    ours, theirs = (f.load_last()[0] for f in (whole, parts))
    for name, value in ours["target_net"].items():
        assert torch.equal(value, theirs["target_net"][name]), name
    config = small_config(**TUNED)
    place = RunContext(group=ProcessGroup(), device=CPU, folder=RunFolder.create(tmp_path / "new", config))
    before = Trainer(config, place).env.net.state_dict()
    moved = {name for name, value in ours["target_net"].items() if not torch.equal(value, before[name])}
    held = {name for name in before if name.startswith(("backbone.convs.0.", "backbone.convs.1."))}
    assert held and not held & moved
    assert "backbone.fc.weight" in moved and "backbone.convs.4.running_mean" in moved
    written = json.loads((whole.path / "config.json").read_text())["optim"]
    assert written["freeze"] == ["convs.0", "convs.1"] and written["lr_factors"] == ["convs*=0.1", "fc=2"]
    net = load_model(whole.path)
    assert net.mean.item() == pytest.approx(0.3) and net.std.item() == pytest.approx(0.4)


def test_the_credit_of_an_update_goes_by_what_its_step_really_is(tmp_path):
    config = small_config(**TUNED)
    place = RunContext(group=ProcessGroup(), device=CPU, folder=RunFolder.create(tmp_path / "run", config))
    trainer = Trainer(config, place)
    trainer.run(stop_after=2)
    target = trainer.env.target
    named = {name: p for name, p in target.net.named_parameters() if p.requires_grad}
    assert not any(name.startswith("backbone.convs.0.") for name in named)
    reached = target.reach({name: torch.ones_like(p) for name, p in named.items()})
    for name, p in named.items():
        state = target.optimizer.state[p]
        factor = 0.1 if "convs" in name else 2.0 if name.startswith("backbone.fc.") else 1.0
        deviation = (state["exp_avg_sq"] / (1 - 0.999 ** float(state["step"]))).sqrt()
        torch.testing.assert_close(reached[name], factor / (deviation + 1e-8))


def test_influence_passes_through_attention_in_forward_mode():
    from tests.support.vit import tiny

    torch.manual_seed(0)
    net = tiny(num_classes=4, image_shape=(1, 8, 8)).double().eval()
    x, y = torch.rand(5, 1, 8, 8, dtype=torch.float64), torch.arange(5) % 4
    weights = {name: p.detach() for name, p in net.named_parameters()}
    direction = {name: torch.randn_like(w) for name, w in weights.items()}

    def loss(values):
        logits = torch.func.functional_call(net, values, (x,))
        return torch.nn.functional.cross_entropy(logits, y, reduction="none")

    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        exact = directional_derivative(loss, weights, direction)
    torch.testing.assert_close(exact, central_difference(loss, weights, direction), rtol=1e-6, atol=1e-8)
    single = []
    for n in range(5):
        parts = torch.autograd.grad(loss(dict(net.named_parameters()))[n], list(net.parameters()))
        single.append(
            sum((g * direction[name]).sum() for (name, _), g in zip(weights.items(), parts, strict=True))
        )
    torch.testing.assert_close(exact, torch.stack(single), rtol=1e-9, atol=1e-11)
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    changes = {"reward__credit": "influence", "reward__standardize": True, "reward__lookahead": "real"}
    return trained(tmp_path_factory.mktemp("vit") / "run", **VIT, **changes)


def test_a_transformer_is_trained_by_a_learned_strategy_and_evaluated(vit, capsys):
    lines = [json.loads(line) for line in vit.metrics.read_text().splitlines()]
    rounds = [line for line in lines if line["kind"] == "round"]
    assert rounds and all("reward" in line for line in rounds)
    assert evaluate.main([str(vit.path), "--trust", "--attacks", "clean", "pgd-3", "--n-examples", "40"]) == 0
    assert "reliable" in capsys.readouterr().out


@pytest.mark.parametrize("kind", FORMATS)
def test_a_transformer_is_exported(kind, vit, tmp_path):
    for package in ("onnx", "onnxscript", "onnxruntime") if kind == "onnx" else ():
        pytest.importorskip(package)
    out = tmp_path / "model.file"
    assert main([str(vit.path), "--trust", "--format", kind, "--out", str(out)]) == 0
    net, card = load_checkpointed(vit.path, trust=True)
    x = torch.rand(7, 1, 8, 8)
    torch.testing.assert_close(FORMATS[kind][1](out, card)(x), net(x), rtol=0, atol=1e-4)
