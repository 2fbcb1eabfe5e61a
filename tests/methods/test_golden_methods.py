"""MART, FAT, GAIRAT, DART and LBGAT against the golden vectors, to 1e-10 in float64."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from lasat_ray.attacks import attack_batch, pgd
from lasat_ray.attacks.objectives import make_objective
from lasat_ray.config import LossConfig
from lasat_ray.methods import METHODS, AttackContext, fat, gairat, lbgat, mart
from lasat_ray.methods.dart import ConvergedStop, enough_at, fosc
from lasat_ray.methods.fat import FriendlyStop, tau_at
from lasat_ray.methods.gairat import lambda_at, unnormalized_weight
from lasat_ray.process_group import ProcessGroup
from tests.support.golden_nets import load_tiny
from tests.support.helpers import close, golden, inputs_of, make_batch, strategy_of

F64 = torch.float64


def net_of(case, prefix="net."):
    return load_tiny({name: case[name].numpy() for name in case if name.startswith(prefix)}, prefix)


def constant(count, eps=1.0, num_steps=1, step=1.0):
    full = torch.ones(count, dtype=F64)
    return strategy_of(full * eps, full.long() * num_steps, full * step)


def attack_of(case):
    return constant(len(case["x"]), case["eps"], case["num_steps"], case["step"])


# --- MART and LBGAT: losses ---


@pytest.mark.parametrize("beta", [5, 6])
def test_mart_value_parts_and_gradients(beta):
    case = golden("mart")
    clean, adv = (case[name].requires_grad_(True) for name in ("logits_nat", "logits_adv"))
    inputs = inputs_of(case["y"], constant(12), LossConfig(trades_beta=float(beta)), adv=adv, clean=clean)
    loss_B = METHODS["mart"].loss(inputs)
    close(loss_B.mean(), case[f"loss_beta{beta}"])
    p_adv, p_clean = F.softmax(adv, 1), F.softmax(clean, 1)
    close(mart.boosted(inputs, p_adv), case["bce_per_sample"])
    close(mart.weighted_kl(p_clean, p_adv, case["y"]), case["weighted_kl_per_sample"])
    grad_clean, grad_adv = torch.autograd.grad(loss_B.mean(), (clean, adv))
    close(grad_clean, case[f"grad_logits_nat_beta{beta}"])
    close(grad_adv, case[f"grad_logits_adv_beta{beta}"])


def test_mart_stays_finite_where_a_probability_is_zero():
    clean = torch.tensor([[200.0, -200.0, 0.0]], requires_grad=True)
    adv = torch.tensor([[-200.0, 200.0, 0.0]], requires_grad=True)
    loss = METHODS["mart"].loss(inputs_of(torch.tensor([1]), constant(1), adv=adv, clean=clean)).sum()
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(loss, (clean, adv)))


def test_marts_rival_class_is_one_class_even_in_a_tie():
    """Values of a tie are those of either class; the gradient goes to one, the last, as when sorted."""
    adv = torch.tensor([[2.0, 1.0, 1.0], [1.0, 1.0, 0.0]], dtype=F64, requires_grad=True)
    inputs = inputs_of(torch.tensor([0, 1]), constant(2), adv=adv, clean=adv.detach())
    loss = mart.boosted(inputs, F.softmax(adv, 1))
    p = F.softmax(adv.detach(), 1)
    rival, ce = torch.tensor([2, 0]), F.cross_entropy(adv, inputs.y, reduction="none")
    close(loss, (ce - torch.log(1.0001 - p[[0, 1], rival] + 1e-12)).detach().requires_grad_(True))
    picked = (ce - torch.log(1.0001 - F.softmax(adv, 1)[[0, 1], rival] + 1e-12)).sum()
    close(*(torch.autograd.grad(value, adv)[0] for value in (loss.sum(), picked)))


@pytest.mark.parametrize("name", METHODS)
def test_certain_predictions_give_finite_losses_and_gradients(name):
    """Probabilities of exactly 0 and 1, right and wrong, in float32 too."""
    for dtype in (torch.float32, F64):
        sure = 2000 * torch.eye(4, dtype=dtype)
        parts = {"adv": sure[[0, 1, 2, 3]], "clean": sure[[0, 0, 2, 1]], "helper": sure[[1, 1, 1, 1]]}
        parts["companion"] = sure[[3, 1, 2, 0]]
        if METHODS[name].companions == 2:
            parts["companion"] = torch.stack([sure[[3, 1, 2, 0]], sure[[0, 1, 2, 3]]], 1)
        parts = {key: value.clone().requires_grad_(True) for key, value in parts.items()}
        inputs = inputs_of(torch.tensor([0, 1, 1, 2]), constant(4), LossConfig(), **parts)
        loss_B = METHODS[name].loss(inputs)
        assert loss_B.isfinite().all() and (loss_B >= -1e-3).all()
        grads = torch.autograd.grad(loss_B.sum(), list(parts.values()), allow_unused=True)
        assert all(grad is None or grad.isfinite().all() for grad in grads)


@pytest.mark.parametrize("beta", [0, 6])
def test_lbgat_value_and_gradients(beta):
    case = golden("lbgat")
    student, adv, teacher = (
        case[name].requires_grad_(True) for name in ("student_nat", "student_adv", "teacher_nat")
    )
    config = LossConfig(trades_beta=float(beta))
    inputs = inputs_of(case["y"], constant(12), config, adv=adv, clean=student, companion=teacher)
    loss = lbgat.METHOD.loss(inputs).mean()
    close(loss, case[f"loss_beta{beta}"])
    grads = torch.autograd.grad(loss, (student, adv, teacher))
    for name, grad in zip(("student_nat", "student_adv", "teacher"), grads, strict=True):
        close(grad, case[f"grad_{name}_beta{beta}"])


# --- FAT: the stopping rule ---


class Draws:
    """Stored normal draws in place of a stream; the noise of step t stands at [t, image]."""

    def __init__(self, values=None, step=None):
        self.values, self.step = values, step

    def fold_in(self, role, step):
        return Draws(self.values, step)

    def normal(self, index, shape, dtype):
        return self.values[self.step][index]


FAT_CASES = ["tau0_zero_ce", "tau0_uniform_ce", "tau1_uniform_ce", "tau2_uniform_ce", "tau10_uniform_ce"]
FAT_CASES += ["tau1_normal_kl", "tau0_uniform_ce_omega"]


@pytest.mark.parametrize("name", FAT_CASES)
def test_fat_stops_where_the_published_code_stops(name):
    case = golden("fat")
    tau, start, loss = name.split("_")[:3]
    x, batch = case["x"], make_batch(case["x"], case["y"])
    noise = {"zero": 0 * x, "uniform": case["noise_uniform"], "normal": 0.001 * case["noise_normal"]}[start]
    delta0 = torch.clamp(noise, -x, 1 - x)
    omega = case["omega"] if name.endswith("omega") else 0.0
    rule = FriendlyStop(batch, int(tau[3:]), omega, Draws(case["noise_omega"]))
    net = net_of(case)
    x_adv = pgd(net, x, attack_of(case), make_objective(loss, net, x, case["y"]), delta0=delta0, rule=rule)
    close(x_adv.detach(), case[f"{name}.x_adv"])
    assert torch.equal(rule.stats()["steps_taken"], case[f"{name}.steps"])
    if f"{name}.count" in case:
        assert int(rule.stats()["steps_taken"].sum()) == case[f"{name}.count"]


@pytest.mark.parametrize(
    ("rule", "key", "epochs"),
    [
        (fat.RULE, "tau_fat", 120),
        (fat.RULE_TRADES, "tau_fat_trades", 85),
        (fat.RULE_MART, "tau_fat_mart", 90),
    ],
)
def test_tau_grows_as_in_the_published_scripts(rule, key, epochs):
    assert rule.epochs == epochs
    assert [tau_at(e, rule.milestones) for e in range(epochs)] == golden("schedules")[key].tolist()


@pytest.mark.parametrize("tau", [0, 1, 4])
def test_fat_where_all_images_are_misclassified_or_none_is(tau):
    """All wrong from the start: tau steps each; none ever wrong: every step; one image is a batch."""
    case = golden("fat")
    x, net, strategy = case["x"][:3], net_of(case), constant(3, case["eps"], 6, case["step"])
    net.fc.bias.data[0] += 1e3  # always class 0, whatever the image
    for label, steps in ((1, tau), (0, 6)):
        for rows in (slice(0, 3), slice(2, 3)):
            batch = make_batch(x[rows], torch.full((3,), label)[rows])
            rule = FriendlyStop(batch, tau, 0.0, None)
            objective = make_objective("ce", net, batch.x, batch.y)
            x_adv = pgd(net, batch.x, strategy[rows], objective, delta0=torch.zeros_like(batch.x), rule=rule)
            assert rule.stats()["steps_taken"].tolist() == [steps] * len(batch.x)
            assert steps or torch.equal(x_adv, batch.x)


def test_the_tau_of_gair_fat_grows_by_three():
    assert [3 * tau_at(e, (40, 70)) for e in range(120)] == golden("schedules")["tau_gair_fat"].tolist()


# --- GAIRAT: weights, loss, Lambda ---


LAMBDAS = {"m1": -1.0, "0": 0.0, "4": 4.0, "inf": math.inf}


@pytest.mark.parametrize("kind", ["Tanh", "Sigmoid", "Discrete"])
@pytest.mark.parametrize("steps", [7, 10, 20])
@pytest.mark.parametrize("lam", LAMBDAS)
def test_gairat_weights(kind, steps, lam):
    case = golden("gairat")
    kappa = case["kappa"].clamp(max=steps)
    raw = unnormalized_weight(kind.lower(), kappa, torch.full_like(kappa, steps), LAMBDAS[lam])
    close(raw * 14 / raw.sum(), case[f"w_{kind}_K{steps}_lam{lam}"])


def scene_of(case, epoch, config, epochs=120):
    return AttackContext(
        batch=make_batch(torch.zeros(14, 1, dtype=F64), case["y"]),
        strategy=constant(14, num_steps=case["num_steps"]),
        key=None,
        config=config,
        epoch=epoch,
        epochs=epochs,
        strength=0,
        group=ProcessGroup(),
    )


@pytest.mark.parametrize("kind", ["tanh", "sigmoid", "discrete"])
@pytest.mark.parametrize("lam", [-100.0, -5.0, -1.0, 4.0])
@pytest.mark.parametrize(("kappa", "steps"), [(0, 10), (10, 10), (7, 7), (1, 1), (0, 1)])
def test_images_alike_weigh_alike(kind, lam, kappa, steps):
    """All robust or all misclassified, even where every raw weight underflows; one image alone too."""
    config = LossConfig(gairat_weight=kind, gairat_lambda=lam)
    for count, dtype in ((3, torch.float32), (1, F64)):
        y = torch.zeros(count, dtype=torch.int64)
        context = dataclasses.replace(
            scene_of({"y": y, "num_steps": steps}, 119, config),
            batch=make_batch(torch.zeros(count, 1, dtype=dtype), y),
            strategy=constant(count, num_steps=steps),
        )
        weight = gairat.conclude({"kappa": torch.full((count,), kappa)}, context)["weight"]
        torch.testing.assert_close(weight, torch.ones(count, dtype=weight.dtype))


@pytest.mark.parametrize(
    ("tag", "number", "changes"),
    [
        ("Tanh_lamm1", 60, {}),
        ("Sigmoid_lamm1", 60, {"gairat_weight": "sigmoid"}),
        ("Discrete_lamm1", 60, {"gairat_weight": "discrete"}),
        ("burnin", 59, {}),
    ],
)
def test_gairat_loss_and_gradient(tag, number, changes):
    case, config = golden("gairat"), LossConfig(**changes)
    context = scene_of(case, number - 1, config)
    stats = METHODS["gairat"].conclude({"kappa": case["kappa"]}, context)
    assert ("weight" in stats) == (number >= case["begin_epoch"])
    adv = case["logits_adv"].requires_grad_(True)
    inputs = dataclasses.replace(inputs_of(case["y"], context.strategy, config, adv=adv), stats=stats)
    loss = METHODS["gairat"].loss(inputs).mean()
    close(loss, case[f"loss_{tag}"])
    close(torch.autograd.grad(loss, adv)[0], case[f"grad_{tag}"])


@pytest.mark.parametrize(
    ("key", "epochs", "milestones"),
    [
        ("Lambda_fixed_E120_max_inf", 120, (60.0, 90.0, 110.0)),
        ("Lambda_fixed_E100_max_inf", 100, (30.0, 60.0)),
        ("Lambda_linear_E120_max4", 120, (60.0, 90.0, 110.0)),
        ("Lambda_piecewise_E120_max4", 120, (60.0,)),  # the later branches of that code never run
    ],
)
def test_lambda_follows_the_published_schedules(key, epochs, milestones):
    top = None if key.endswith("inf") else 4.0
    config = LossConfig(gairat_schedule=key.split("_")[1], gairat_lambda_max=top)
    got = torch.tensor([lambda_at(e, epochs, config, milestones) for e in range(epochs)], dtype=F64)
    close(got, golden("gairat")[key])


def test_piecewise_lambda_drops_again_where_the_published_code_forgot_to():
    config = LossConfig(gairat_schedule="piecewise", gairat_lambda_max=4.0)
    got = [lambda_at(number - 1, 120, config, gairat.PUBLISHED) for number in (59, 60, 90, 110, 120)]
    assert got == [4.0, -1.0, -2.0, -2.5, -2.5]


# --- DART: FOSC and its schedule ---


@pytest.mark.parametrize("run", ["full", "mid", "max"])
def test_dart_stops_where_the_published_code_stops(run):
    case = golden("dart")
    net, x, strategy = net_of(case), case["x"], attack_of(case)
    objective = make_objective("ce", net, x, case["y"])
    rule = ConvergedStop(strategy.eps, case[f"{run}.c_t"], from_start=True)
    x_adv = pgd(net, x, strategy, objective, delta0=case["delta0"], rule=rule).detach()
    close(x_adv, case[f"{run}.x_adv"])
    point = x_adv.clone().requires_grad_(True)
    loss = F.cross_entropy(net(point), case["y"], reduction="none")
    (grad,) = torch.autograd.grad(loss.sum(), point)
    close(grad, case[f"{run}.grad"])
    value = fosc(grad, strategy.eps, x_adv - x - case["delta0"])
    close(value, case[f"{run}.fosc"][:, -1])
    taken = (case[f"{run}.fosc"] > case[f"{run}.c_t"]).long().cumprod(1)[:, :-1].sum(1) + 1
    assert torch.equal(rule.stats()["steps_taken"], taken)


def test_both_anchors_of_fosc():
    case = golden("dart")
    moved = case["full.x_adv"] - case["x"]
    eps = torch.full((10,), case["eps"], dtype=F64)
    close(fosc(case["full.grad"], eps, moved), case["fosc_paper_natural_x0"])
    close(fosc(case["full.grad"], eps, moved - case["delta0"]), case["fosc_code_random_start"])
    assert LossConfig().dart_anchor == "image"


def test_dart_schedule_and_the_codes_weighting():
    case = golden("dart")
    got = [enough_at(e, 120, case["fosc_max"], None) for e in range(120)]
    close(torch.tensor(got, dtype=F64), case["c_t_schedule"])
    assert enough_at(3, 120, 0.5, case["dynamic_epoch"]) == enough_at(3, 120, 0.5, None)
    net = net_of(case)
    logits = net(case["full.x_adv"])
    inputs = inputs_of(case["y"], constant(10), LossConfig(dart_self_weight=True), adv=logits)
    close(METHODS["dart"].loss(inputs).detach(), case["sample_weight"])
    later = METHODS["dart"].loss(dataclasses.replace(inputs, epoch=1))
    close(later.mean().detach(), case["weighted_loss"])
    plain = torch.autograd.grad(METHODS["dart"].loss(inputs)[3], logits, retain_graph=True)[0]
    weighted = torch.autograd.grad(later[3], logits)[0]
    close(weighted, case["sample_weight"][3] * plain)


def test_every_rule_leaves_an_attack_that_never_stops_as_it_is():
    case = golden("fat")
    batch, strategy, net = make_batch(case["x"], case["y"]), attack_of(case), net_of(golden("fat"))
    plain, ruled = (
        attack_batch(net, batch, strategy, None, loss="ce", start_kind="zero", rule=rule)
        for rule in (None, FriendlyStop(batch, 99, 0.0, None))
    )
    assert torch.equal(plain, ruled)
