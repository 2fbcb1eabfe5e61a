"""HYDRA: scores, masks and gradients by hand; the sparsity holds to the end; the net loads as a plain one."""

import math

import pytest
import torch
from torch import nn

from lasat_ray.config import LossConfig
from lasat_ray.methods.hydra import Pruning, first_scores, search_epochs, stage_of, top_mask
from lasat_ray.models import build_classifier
from lasat_ray.process_group import ProcessGroup
from lasat_ray.runs.checkpoint import save_checkpoint
from lasat_ray.runs.folder import RunFolder
from lasat_ray.runs.load import load_model
from lasat_ray.training.context import RunContext
from lasat_ray.training.loop import Trainer
from lasat_ray.update.credit import directional_derivative
from tests.support.helpers import CPU, close, small_config

F64 = torch.float64


def net_with_weights(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)
    ).double()


def test_scores_start_scaled_by_fan_in_and_the_largest_weight():
    weight = torch.tensor([[[[1.0, -4.0], [2.0, 0.5]]]], dtype=F64)
    close(first_scores(weight), math.sqrt(6 / 4) * weight / 4)
    assert first_scores(torch.zeros(2, 3)).abs().max() == 0


@pytest.mark.parametrize(("keep", "kept"), [(0.1, 1), (0.25, 3), (0.5, 5), (1.0, 10), (1e-6, 1)])
def test_a_mask_keeps_the_largest_scores_of_its_layer(keep, kept):
    score = torch.tensor([0.1, -0.9, 0.3, 0.2, -0.8, 0.7, -0.4, 0.5, 0.6, 0.0]).view(2, 5)
    mask = top_mask(score, keep)
    assert set(mask.unique().tolist()) <= {0.0, 1.0} and mask.sum() == kept
    assert score.abs()[mask == 1].min() >= score.abs()[mask == 0].max() if kept < 10 else True


def test_ties_and_dead_layers_keep_as_many_as_any_other():
    assert top_mask(torch.zeros(4, 5), 0.3).sum() == 20 - int(0.7 * 20)


def test_gradients_pass_straight_through_the_mask_to_the_scores():
    net = net_with_weights()
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    pruning = Pruning(net, 0.2)
    assert pruning.names == ["0.weight", "4.weight"]
    close(net[4].weight.detach(), before["4.weight"] * top_mask(before["4.weight"], 0.2))
    net(torch.rand(5, 1, 8, 8, dtype=F64)).square().sum().backward()
    effective = net[4].weight.grad.clone()
    pruning.route(net)
    close(pruning.scores[1].grad, effective * before["4.weight"] * before["4.weight"].sign())
    frozen = {name for name, p in net.named_parameters() if p.grad is None}
    assert frozen == {"0.weight", "0.bias", "4.weight", "4.bias"}  # normalization learns on


def test_a_score_moves_the_loss_as_the_masked_weight_would():
    """At a kept weight, d loss / d score is the change that scaling that weight by its mask makes."""
    net = net_with_weights()
    pruning = Pruning(net, 0.5)
    x = torch.rand(5, 1, 8, 8, dtype=F64)
    net.eval()
    net(x).square().sum().backward()
    pruning.route(net)
    place, step = tuple(pruning.masks[1].nonzero()[0].tolist()), 1e-6
    weight, losses = net[4].weight.detach()[place].item(), []
    for mask in (1 + step, 1 - step):
        with torch.no_grad():
            net[4].weight[place] = weight * mask
            losses.append(float(net(x).square().sum()))
    sign = pruning.scores[1].detach()[place].sign().item()
    close(pruning.scores[1].grad[place].item(), sign * (losses[0] - losses[1]) / (2 * step), atol=1e-6)


@pytest.mark.parametrize("searching", [True, False])
def test_the_reach_of_an_update_is_what_a_small_step_does(searching):
    """<reach(v), g> is the first-order effect on a loss with gradient v of a step along g as routed."""
    net = net_with_weights()
    pruning = Pruning(net, 0.5)
    pruning.searching = searching
    x = torch.rand(5, 1, 8, 8, dtype=F64)
    net.eval()
    names, weights = zip(*net.named_parameters(), strict=True)
    first, second = (net(x)[:, n].square().sum() for n in (0, 1))
    v = dict(zip(names, torch.autograd.grad(first, weights), strict=True))
    for name, grad in zip(names, torch.autograd.grad(second, weights), strict=True):
        dict(net.named_parameters())[name].grad = grad
    raw = {name: p.grad.clone() for name, p in net.named_parameters()}
    pruning.route(net)
    moves = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in net.named_parameters()}
    if searching:  # a score's step changes the weight by pretrained x sign, mask held
        for n, name in enumerate(pruning.names):
            score = pruning.scores[n]
            moves[name] = score.grad * score.sign() * pruning.get_buffer(f"pretrained{n}")
    expected = sum((v[name] * moves[name]).sum() for name in names)
    reach = pruning.reach(v)
    close(sum((reach[name] * raw[name]).sum() for name in names).detach(), expected.detach())
    linear = directional_derivative(lambda w: sum((w[n] * raw[n]).sum() for n in names)[None], raw, reach)
    close(linear[0], expected.detach())


def test_each_stage_runs_a_whole_course():
    config = LossConfig()
    assert [search_epochs(config, epochs) for epochs in (2, 12, 120)] == [1, 2, 20]
    assert stage_of(config, 19.5, 120) == (19.5, 20, 1.0)
    assert stage_of(config, 20.0, 120) == (0.0, 100, 0.1)
    assert stage_of(LossConfig(hydra_epochs=3, hydra_tune_rate=0.5), 4.0, 10) == (1.0, 7, 0.5)


@pytest.fixture
def pretrained(tmp_path):
    torch.manual_seed(3)
    net = build_classifier("small_cnn_bn", num_classes=10, image_shape=(1, 8, 8))
    card = {"model": "small_cnn_bn", "precision": "fp32", "num_classes": 10, "image_shape": [1, 8, 8]}
    save_checkpoint(tmp_path / "robust.safetensors", {"target_net": net.state_dict(), "card": card})
    return tmp_path / "robust.safetensors"


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_the_sparsity_is_exact_in_every_round_and_in_the_file(pretrained, tmp_path, ema_decay):
    config = small_config(
        method="hydra",
        model="small_cnn_bn",
        strategy="learned",
        reward__credit="influence",
        reward__standardize=True,
        init_from=str(pretrained),
        epochs=4,
        loss__hydra_keep=0.3,
        loss__hydra_epochs=2,
        optim__ema_decay=ema_decay,
    )
    folder = RunFolder.create(tmp_path / "run", config)
    trainer = Trainer(config, RunContext(group=ProcessGroup(), device=CPU, folder=folder))
    target, masks = trainer.env.target, []
    pruned = dict.fromkeys(target.pruning.names)
    start = {name: p.clone() for name, p in target.net.named_parameters()}
    for round in range(trainer.total_rounds):
        trainer.run(stop_after=round + 1)
        for net in (target.net, trainer.env.target.deployed):
            for name, weight in net.named_parameters():
                if name in pruned:
                    kept = weight.numel() - int(0.7 * weight.numel())
                    assert int((weight != 0).sum()) == kept, (round, name)
        masks.append([mask.clone() for mask in target.pruning.masks])
    searched = 2 * trainer.rounds_per_epoch
    same = [all(map(torch.equal, mask, masks[-1])) for mask in masks]
    assert all(same[searched - 1 :]) and not all(same[:searched])
    assert any(not torch.equal(start[name], p) for name, p in target.net.named_parameters() if name in pruned)
    total = sum(p.numel() for name, p in target.net.named_parameters() if name in pruned)
    kept = sum(int(mask.sum()) for mask in masks[-1])
    assert folder.summary()["sparsity"] == pytest.approx(1 - kept / total, abs=1e-12)
    plain = load_model(folder.path, which="last")
    for name, weight in plain.named_parameters():
        if name in pruned:
            assert int((weight == 0).sum()) == int(0.7 * weight.numel())
    x = torch.rand(3, 1, 8, 8)
    torch.testing.assert_close(plain(x), trainer.env.target.deployed.eval()(x).to(plain(x).dtype))


def test_weights_stand_still_while_scores_are_learned(pretrained, tmp_path):
    config = small_config(
        method="hydra",
        model="small_cnn_bn",
        strategy="fixed",
        init_from=str(pretrained),
        loss__hydra_keep=0.5,
    )
    trainer = Trainer(
        config,
        RunContext(group=ProcessGroup(), device=CPU, folder=RunFolder.create(tmp_path / "run", config)),
    )
    source = load_model(pretrained)
    trainer.run(stop_after=2)
    for name, weight in trainer.env.net.named_parameters():
        if name in trainer.env.target.pruning.names:
            kept = weight != 0
            assert torch.equal(weight[kept].float(), source.state_dict()[name][kept])
