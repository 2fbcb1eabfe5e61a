"""The methods' losses: the golden vectors' values and gradients to 1e-10, and what they must not do."""

import pytest
import torch
import torch.nn.functional as F

from lasat_ray.attacks.objectives import kl_divergence
from lasat_ray.config import LossConfig
from lasat_ray.methods import METHODS
from lasat_ray.methods.losses import smoothed_cross_entropy
from tests.support.helpers import close, golden, inputs_of, strategy_of


def no_strategy(count, **more):
    """Losses that read no attack field get anything there."""
    ones = torch.ones(count, dtype=torch.float64)
    return strategy_of(ones, ones.long(), ones, **more)


@pytest.mark.parametrize("tag", ["c10_f07", "c100_f06", "c200_f08"])
def test_label_smoothing_is_the_published_codes(tag):
    case = {name.partition(".")[2]: value for name, value in golden("label_smoothing").items() if tag in name}
    logits = case["logits"].requires_grad_(True)
    loss = smoothed_cross_entropy(logits, case["y"], 1 - case["factor"]).mean()
    close(loss, case["loss"])
    close(torch.autograd.grad(loss, logits)[0], case["grad_logits"])
    close(-(case["target"] * F.log_softmax(logits, 1)).sum(1).mean(), case["loss"])


def test_label_smoothing_is_not_pytorchs_but_converts_to_it():
    logits = torch.randn(6, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = torch.arange(6)
    theirs = F.cross_entropy(logits, y, reduction="none", label_smoothing=0.3 * 10 / 9)
    close(smoothed_cross_entropy(logits, y, 0.3), theirs)
    assert (
        smoothed_cross_entropy(logits, y, 0.3) - F.cross_entropy(logits, y, label_smoothing=0.3)
    ).abs().max() > 1e-2
    close(smoothed_cross_entropy(logits, y, 0.0), F.cross_entropy(logits, y, reduction="none"))


def test_trades_value_and_gradients():
    case = golden("trades")
    clean, adv = (case[name].requires_grad_(True) for name in ("logits_nat", "logits_adv"))
    config = LossConfig(trades_beta=case["beta"])
    loss = METHODS["trades"].loss(inputs_of(case["y"], no_strategy(12), config, adv=adv, clean=clean)).mean()
    close(loss, case["loss"])
    kl_B = kl_divergence(F.log_softmax(clean, 1), F.log_softmax(adv, 1))
    close(kl_B, case["kl_per_sample"])
    close(kl_B.mean(), case["kl_batchmean"])
    grad_clean, grad_adv = torch.autograd.grad(loss, (clean, adv))
    close(grad_clean, case["grad_logits_nat"])
    close(grad_adv, case["grad_logits_adv"])


def test_las_trades_takes_each_images_own_beta():
    case = golden("las_trades")
    clean, adv = (case[name].requires_grad_(True) for name in ("logits_nat", "logits_adv"))
    strategy = no_strategy(10, trades_beta=case["beta"].double())
    method, config = METHODS["trades"], LossConfig(trades_beta=99.0)
    loss_B = method.loss(inputs_of(case["y"], strategy, config, adv=adv, clean=clean))
    close(loss_B.mean(), case["loss"])
    close(loss_B - F.cross_entropy(clean, case["y"], reduction="none"), case["beta_kl_per_sample"])
    grad_clean, grad_adv = torch.autograd.grad(loss_B.mean(), (clean, adv))
    close(grad_clean, case["grad_logits_nat"])
    close(grad_adv, case["grad_logits_adv"])
    assert "trades_beta" in method.fields


def test_pgd_at_and_clean_are_cross_entropy():
    case = golden("trades")
    for name in ("pgd-at", "clean"):
        loss_B = METHODS[name].loss(inputs_of(case["y"], no_strategy(12), adv=case["logits_adv"]))
        close(loss_B, F.cross_entropy(case["logits_adv"], case["y"], reduction="none"))
    assert METHODS["pgd-at"].attacks and not METHODS["clean"].attacks
