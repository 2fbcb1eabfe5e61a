"""Catastrophic overfitting is told once, with its figures; honest courses and robust overfitting are not."""

import json

import pytest
import torch

from lasat_ray.config import EvalConfig
from lasat_ray.data import Images
from lasat_ray.evaluation.accuracy import accuracy
from lasat_ray.process_group import ProcessGroup
from lasat_ray.training.overfitting_watch import overfitting_warnings


def told_of(tmp_path, robust, fgsm, more=()):
    file = tmp_path / "metrics.jsonl"
    epochs = [
        {"kind": "epoch", "round": n, "epoch": n, "train_robust_acc_pgd10": r, "train_fgsm_acc": f}
        for n, (r, f) in enumerate(zip(robust, fgsm, strict=True), start=1)
    ]
    unvalidated = {"kind": "epoch", "round": 0, "epoch": 0, "lr": 0.1}
    file.write_text("".join(json.dumps(record) + "\n" for record in [unvalidated, *epochs, *more]))
    return overfitting_warnings(file)


def test_a_collapse_is_told_with_its_figures_and_remedies(tmp_path):
    (told,) = told_of(tmp_path, [0.3, 0.42, 0.03], [0.4, 0.5, 0.91])
    assert told.startswith("catastrophic overfitting: in epoch 3 FGSM leaves 91% ")
    assert "PGD 3% (42% before)" in told and "--attack.num-steps" in told and "\n" not in told


def test_it_is_told_once(tmp_path):
    (told,) = told_of(tmp_path, [0.42, 0.03], [0.5, 0.91])
    warning = {"kind": "warning", "round": 7, "told": told}
    assert told_of(tmp_path, [0.42, 0.03, 0.01], [0.5, 0.91, 0.93], more=[warning]) == []


@pytest.mark.parametrize(
    ("robust", "fgsm"),
    [
        ([0.3, 0.5, 0.6], [0.4, 0.6, 0.7]),  # learns
        ([0.5, 0.9, 1.0], [0.5, 0.9, 1.0]),  # overfits robustly: right on what it was trained on
        ([0.11, 0.03], [0.2, 0.4]),  # never withstood PGD
        ([0.5, 0.2], [0.6, 0.3]),  # falls under both: another trouble
        ([0.6, 0.35], [0.7, 0.9]),  # more than half is left
    ],
)
def test_other_courses_are_not_told(robust, fgsm, tmp_path):
    assert told_of(tmp_path, robust, fgsm) == []


def test_nothing_is_told_without_records(tmp_path):
    assert overfitting_warnings(tmp_path / "none.jsonl") == []
    assert told_of(tmp_path, [], []) == []


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("l2", 0.6)])
def test_fgsm_is_one_step_of_the_whole_budget_from_the_image(norm, eps):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3)).double()
    x = torch.randint(40, 216, (64, 3, 2, 2), dtype=torch.uint8)
    y = torch.randint(0, 3, (64,))
    settings = EvalConfig(norm=norm, eps=eps, step_size=0.001, batch_size=20)
    found = accuracy(
        net,
        Images(x, y),
        "fgsm",
        settings,
        seed=0,
        group=ProcessGroup(),
        device=torch.device("cpu"),
        dtype=torch.float64,
    )
    pixels = (x.double() / 255).requires_grad_()
    (grad,) = torch.autograd.grad(torch.nn.functional.cross_entropy(net(pixels), y, reduction="sum"), pixels)
    move = grad.sign() if norm == "linf" else grad / grad.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    x_adv = (pixels + eps * move).clamp(0, 1)
    assert found == (net(x_adv).argmax(1) == y).double().mean().item()
    assert found < (net(pixels).argmax(1) == y).double().mean().item()
