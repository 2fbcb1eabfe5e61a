"""The sanity check: dishonest nets are called unreliable for the right reason, a normal one is not."""

import pytest

from lasat_ray.evaluation import EvaluationPlan, evaluate_net
from tests.support import evaluation_nets as nets
from tests.support.evaluation_nets import EPS


def verdict(net, images, **changes):
    plan = EvaluationPlan(attacks=("clean",), eps=EPS, n_examples=40, sanity_examples=40, **changes)
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
