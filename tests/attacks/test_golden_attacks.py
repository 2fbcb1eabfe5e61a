"""The attacks reproduce what the published code computes, to 1e-10 in float64."""

import pytest
import torch

from lasat_ray.attacks import attack_batch, worst_of_restarts
from lasat_ray.methods import METHODS
from tests.support.golden_nets import load_tiny
from tests.support.helpers import GivenStream, close, golden, inputs_of, make_batch, strategy_of


def net_of(case, prefix="net."):
    return load_tiny({name: case[name].numpy() for name in case if name.startswith(prefix)}, prefix)


def strategy_in(case, **more):
    return strategy_of(
        case["epsilon_255"].double() / 255, case["iters"], case["step_255"].double() / 255, **more
    )


@pytest.fixture(scope="module")
def las_attack():
    return golden("las_attack")


def test_las_attack_from_the_wide_uniform_start(las_attack):
    """The start reaches 8/255 whatever an image's own eps: start_radius, a field of its own."""
    case, radius = las_attack, las_attack["init_radius"]
    strategy = strategy_in(case, start_radius=torch.full((12,), radius, dtype=torch.float64))
    key = GivenStream((case["delta0"] / radius + 1) / 2)
    batch = make_batch(case["x"], case["y"])
    x_adv = attack_batch(net_of(case), batch, strategy, key, loss="ce", start_kind="uniform")
    close(x_adv, case["x_adv_random"])
    close(x_adv - case["x"], case["delta_random"])


def test_las_attack_from_the_clean_image(las_attack):
    case = las_attack
    batch = make_batch(case["x"], case["y"])
    x_adv = attack_batch(net_of(case), batch, strategy_in(case), None, loss="ce", start_kind="zero")
    close(x_adv, case["x_adv_zero"])
    close(x_adv - case["x"], case["delta_zero"])


def test_las_attack_with_one_strategy_for_all_is_pgd_10(las_attack):
    case = las_attack
    full = torch.full((12,), 1.0, dtype=torch.float64)
    strategy = strategy_of(full * 8 / 255, torch.full((12,), 10), full * 2 / 255)
    key = GivenStream((case["delta0"] * 255 / 8 + 1) / 2)
    batch = make_batch(case["x"], case["y"])
    x_adv = attack_batch(net_of(case), batch, strategy, key, loss="ce", start_kind="uniform")
    close(x_adv - case["x"], case["delta_uniform_8_10_2"])


def test_las_trades_attack():
    case = golden("las_trades_attack")
    method = METHODS["trades"]
    assert (method.attack_loss, method.start) == ("kl", "normal")
    x_adv = attack_batch(
        net_of(case),
        make_batch(case["x"], case["y"]),
        strategy_in(case, trades_beta=case["beta"].double()),
        GivenStream(case["init_noise"]),
        loss="kl",
        start_kind="normal",
    )
    close(x_adv, case["x_adv"])
    close(x_adv - case["x"], case["delta"])


@pytest.fixture(scope="module")
def pgd_at():
    return golden("pgd_at")


def attack_pgd_at(case):
    full = torch.ones(len(case["x"]), dtype=torch.float64)
    strategy = strategy_of(full * case["eps"], full.long() * case["steps"], full * case["step"])
    key = GivenStream((case["delta0"] / case["eps"] + 1) / 2)
    batch = make_batch(case["x"], case["y"])
    return attack_batch(net_of(case), batch, strategy, key, loss="ce", start_kind="uniform"), strategy


def test_pgd_at_attack(pgd_at):
    x_adv, _ = attack_pgd_at(pgd_at)
    close(x_adv, pgd_at["x_adv"])
    close(x_adv - pgd_at["x"], pgd_at["delta"])


def test_pgd_at_loss_and_weight_gradients(pgd_at):
    net = net_of(pgd_at)
    x_adv, strategy = attack_pgd_at(pgd_at)
    loss = METHODS["pgd-at"].loss(inputs_of(pgd_at["y"], strategy, adv=net(x_adv))).mean()
    close(loss, pgd_at["loss"])
    loss.backward()
    for name, parameter in net.named_parameters():
        close(parameter.grad, pgd_at[f"grad.{name}"])


@pytest.mark.parametrize(
    ("restarts", "only_correct", "key"),
    [
        (1, True, "pgd_delta_1restart"),
        (2, True, "pgd_delta_2restarts"),
        (1, False, "pgd_plain_delta_1restart"),
    ],
)
def test_reference_attack_of_the_published_code(restarts, only_correct, key):
    case = golden("las_reward")
    x, full = case["x"], torch.ones(16, dtype=torch.float64)
    net = net_of(case, "lookahead.")
    strategy = strategy_of(full * case["pgd_eps"], full.long() * case["pgd_iters"], full * case["pgd_step"])
    starts = [torch.clamp(start, -x, 1 - x) for start in case["pgd_init"][:restarts]]
    batch = make_batch(x, case["y"])
    x_ref = worst_of_restarts(net, batch, strategy, starts, only_correct=only_correct)
    close(x_ref - x, case[key])


def test_the_vectors_tell_the_freeze_rule_and_the_restarts_apart():
    case = golden("las_reward")
    one, two, plain = (
        case[f"pgd_{name}"] for name in ("delta_1restart", "delta_2restarts", "plain_delta_1restart")
    )
    assert (one - two).abs().max() > 1e-3
    assert (one - plain).abs().max() > 1e-3
