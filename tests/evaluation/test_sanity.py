"""The sanity check: dishonest nets are called unreliable for the right reason, a normal one is not."""

import pytest
import torch

from lasat_ray.evaluation import EvaluationPlan, evaluate_net
from lasat_ray.evaluation.sanity import Order, order_of
from tests.support import evaluation_nets as nets
from tests.support.evaluation_nets import EPS


def verdict(net, images, **changes):
    # all 60: the even 40 hold 2 images that Square alone breaks, and the sign test needs 5
    plan = EvaluationPlan(attacks=("clean",), eps=EPS, n_examples=60, sanity_examples=60, **changes)
    return evaluate_net(net, images, plan)["sanity"]


@pytest.mark.parametrize(("norm", "eps"), [("linf", EPS), ("linf", 0.05), ("l2", 0.7)])
def test_a_normal_net_passes(net, images, norm, eps):
    plan = EvaluationPlan(
        attacks=("fgsm", "pgd-10", "pgd-20"), norm=norm, eps=eps, n_examples=40, sanity_examples=40
    )
    sanity = evaluate_net(net, images, plan)["sanity"]
    assert sanity["verdict"] == "passed", sanity["reasons"]
    assert all(check["passed"] for check in sanity["checks"].values())
    assert "suite: more steps are stronger" in sanity["checks"]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (nets.Linear, "the net is linear"),
        (nets.Constant, "the net is constant"),
        (nets.Constant, "images survive an unbounded attack"),
        (nets.Saturated, "gradients are masked"),
        (nets.Saturated, "black box beats white box"),
        (nets.Rounded, "gradients are masked"),
        (nets.Constant, "a larger budget does not raise the loss"),
        (nets.Noisy, "the net is random"),
        (nets.Probabilities, "no logits"),
    ],
)
def test_a_net_whose_figures_mean_nothing_is_unreliable(images, kind, reason):
    sanity = verdict(kind(), images)
    assert sanity["verdict"] == "unreliable"
    assert any(told.startswith(reason) for told in sanity["reasons"]), sanity["reasons"]


def test_leaving_the_check_out_is_not_passing_it(net, images):
    plan = EvaluationPlan(attacks=("clean",), n_examples=5, sanity_examples=0)
    assert evaluate_net(net, images, plan)["sanity"]["verdict"] == "unreliable"


@pytest.mark.parametrize("mask", nets.MASKS)
def test_every_mask_is_seen_through(images, mask):
    sanity = verdict(nets.Masked(mask), images)
    assert sanity["verdict"] == "unreliable"


@pytest.mark.parametrize("eps", [0.2, 0.05])
@pytest.mark.parametrize(
    ("updates", "trained_eps", "seed", "model"),
    [
        (20, 0.2, 0, "small_cnn"),
        (20, 0.2, 1, "small_cnn"),
        (40, 0.1, 0, "small_cnn"),
        (40, 0.1, 1, "tiny_cnn"),
        (60, 0.0, 0, "tiny_cnn"),
        (3, 0.2, 2, "small_cnn"),
        (10, 0.2, 3, "mlp"),
        (80, 0.05, 4, "mlp"),
        (10, 0.1, 3, "tiny_cnn_bn"),
        (80, 0.2, 5, "tiny_cnn"),
    ],
)
def test_an_honest_short_run_is_not_called_unreliable(digit_images, updates, trained_eps, seed, model, eps):
    net = nets.briefly_trained(updates, trained_eps, seed, model)
    plan = EvaluationPlan(attacks=("clean", "fgsm", "pgd-10", "pgd-20"), eps=eps, n_examples=64)
    sanity = evaluate_net(net, digit_images, plan)["sanity"]
    assert sanity["verdict"] == "passed", sanity["reasons"]


def test_images_are_compared_one_by_one_and_chance_is_the_sign_test():
    weak = torch.tensor([False] * 7 + [True] * 3 + [False] * 2)
    strong = torch.tensor([True] * 7 + [True] * 3 + [False] * 2)
    order = order_of(weak, strong)
    assert (order.only_weak, order.only_strong, order.chance) == (7, 0, 2**-7)
    assert not order.holds  # seven images that only the weaker attack breaks are no chance
    assert Order(2, 0).holds and Order(2, 0).chance == 0.25  # two of 64 are
    assert Order(0, 0).chance == 1.0 and Order(9, 8).holds and not Order(20, 4).holds
