"""Evaluation attacks: their balls, their definitions, golden numbers, restarts and early stopping."""

import pytest
import torch

from lasat_ray.attacks.ball import BALLS
from lasat_ray.attacks.objectives import margin
from lasat_ray.attacks.strong import PGDSpec, run_pgd
from lasat_ray.errors import UsageError, UserError
from lasat_ray.evaluation.attacks import ATTACKS, COMPONENTS, FEW, VERSIONS, attack_chunk, split_name
from lasat_ray.evaluation.plan import EvaluationPlan, make_suite
from lasat_ray.evaluation.spec import AttackSpec
from lasat_ray.models import frozen_eval
from lasat_ray.rng import RandomKey
from tests.support.evaluation_nets import EPS
from tests.support.golden_nets import load_tiny
from tests.support.helpers import golden, make_batch, plain_pgd

STREAM = RandomKey.of(7, "test")


@pytest.fixture(scope="module")
def batch(images):
    return make_batch(images.x[:12].float() / 255, images.y[:12])


def spec(name, norm="linf", eps=EPS, **more):
    family, steps = split_name(name) if name != "probe" else (name, 0)
    return AttackSpec(
        name=name, family=family, norm=norm, eps=eps, step_size=eps / 4, num_steps=steps, queries=60, **more
    )


CHEAP = ["clean", "fgsm", "pgd-5", "cw-5", "apgd-ce", "square", "probe"]
DEAR = ["apgd-dlr", "apgd-t", "fab-t"]


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", [*CHEAP, *DEAR])
def test_x_adv_stays_in_its_ball_and_in_the_pixel_range(net, batch, name, norm):
    eps = EPS if norm == "linf" else 0.8
    few = make_batch(batch.x[:4], batch.y[:4]) if name in DEAR else batch
    with frozen_eval(net):
        found = attack_chunk(net, few, spec(name, norm, eps), 0, 0)
    delta_BD = (found.x_adv - few.x).flatten(1)
    size_B = delta_BD.abs().amax(1) if norm == "linf" else delta_BD.norm(dim=1)
    assert (size_B <= eps + 1e-5).all()
    assert found.x_adv.min() >= -1e-6 and found.x_adv.max() <= 1 + 1e-6
    assert torch.equal(found.fooled, net(found.x_adv).argmax(1) != few.y)


def test_the_dict_holds_every_attack_that_these_tests_run():
    run = {split_name(name)[0] if name != "probe" else name for name in [*CHEAP, *DEAR]}
    # aa and its kin are these components in a row; see test_autoattack.
    assert {*ATTACKS} - run == {*VERSIONS, *(name + FEW for name in VERSIONS), "fab"}
    assert {*COMPONENTS} <= {*ATTACKS}


@pytest.mark.parametrize(
    ("name", "family", "steps"),
    [("pgd-10", "pgd", 10), ("pgd-7", "pgd", 7), ("cw", "cw", 30), ("cw-20", "cw", 20), ("aa", "aa", 0)],
)
def test_names_with_any_number_of_steps(name, family, steps):
    assert split_name(name) == (family, steps)


@pytest.mark.parametrize("name", ["pgd", "pgd-0", "pgd-x", "fgsm-3", "probe", "AA", "cw30", ""])
def test_other_names_are_refused_in_one_line(name):
    with pytest.raises(UsageError, match="--attacks: ") as caught:
        split_name(name)
    assert "\n" not in str(caught.value)


def test_pgd_10_reproduces_the_golden_images():
    """eps 8/255, step 2/255, ten steps from the stored start, in double precision."""
    case = golden("las_attack")
    net = load_tiny({name: case[name].numpy() for name in case if name.startswith("net.")})
    batch = make_batch(case["x"], case["y"])

    class Stored:
        def uniform(self, index_B, shape, dtype):
            # The ball's start scales from [0,1) to the radius; the vectors hold the scaled draw.
            return (case["delta0"][index_B] / (8 / 255) + 1) / 2

    with frozen_eval(net):
        attack = PGDSpec(norm="linf", eps=8 / 255, step_size=2 / 255, num_steps=10)
        found = run_pgd(net, batch, attack, Stored())
    torch.testing.assert_close(found.x_adv - case["x"], case["delta_uniform_8_10_2"], rtol=0, atol=1e-10)


def test_stopping_early_reproduces_the_attack_of_the_published_code():
    """Its PGD-10 moves only images that are still classified correctly."""
    case = golden("las_reward")
    net = load_tiny(
        {name: case[name].numpy() for name in case if name.startswith("lookahead.")}, "lookahead."
    )
    eps = case["pgd_eps"]

    class Stored:
        def uniform(self, index_B, shape, dtype):
            return (case["pgd_init"][0][index_B] / eps + 1) / 2

    attack = PGDSpec(
        norm="linf", eps=eps, step_size=case["pgd_step"], num_steps=case["pgd_iters"], stop_early=True
    )
    with frozen_eval(net):
        found = run_pgd(net, make_batch(case["x"], case["y"]), attack, Stored())
    torch.testing.assert_close(found.x_adv - case["x"], case["pgd_delta_1restart"], rtol=0, atol=1e-10)


def test_fgsm_is_one_whole_step_from_the_clean_image(net, batch):
    x = batch.x.clone().requires_grad_(True)
    (grad,) = torch.autograd.grad(torch.nn.functional.cross_entropy(net(x), batch.y, reduction="sum"), x)
    with frozen_eval(net):
        found = attack_chunk(net, batch, spec("fgsm"), 0, 0)
    torch.testing.assert_close(found.x_adv, (batch.x + EPS * grad.sign()).clamp(0, 1), rtol=0, atol=1e-6)


def test_pgd_of_a_batch_is_a_textbook_pgd_of_each_image(net, batch):
    with frozen_eval(net):
        found = attack_chunk(net, batch, spec("pgd-4"), 3, 0)
        key = RandomKey.of(3, "evaluation start", 4)
        for n in range(4):
            delta0 = BALLS["linf"].start(batch.x[n : n + 1], torch.tensor([EPS]), batch.index[n : n + 1], key)
            with torch.enable_grad():
                alone = plain_pgd(net, batch.x[n], batch.y[n], delta0[0], EPS, EPS / 4, 4)
            torch.testing.assert_close(found.x_adv[n], alone, rtol=0, atol=1e-6)


def test_cw_raises_the_margin_further_than_cross_entropy_does(net, batch):
    with frozen_eval(net), torch.no_grad():
        reached = {
            name: margin(net(attack_chunk(net, batch, spec(name), 0, 0).x_adv), batch.y).mean()
            for name in ("pgd-20", "cw-20")
        }
        before = margin(net(batch.x), batch.y).mean()
    assert before < reached["pgd-20"]
    assert before < reached["cw-20"]
    assert reached["cw-20"] >= reached["pgd-20"] - 0.3


def test_l2_steps_follow_the_gradient_itself(net, batch):
    """One short step from the clean image moves by step_size along the gradient."""
    x = batch.x.clone().requires_grad_(True)
    (grad,) = torch.autograd.grad(torch.nn.functional.cross_entropy(net(x), batch.y, reduction="sum"), x)
    attack = PGDSpec(norm="l2", eps=1.0, step_size=0.1, num_steps=1, random_start=False)
    with frozen_eval(net):
        delta = run_pgd(net, batch, attack, STREAM).x_adv - batch.x
    expected = 0.1 * grad / grad.flatten(1).norm(dim=1)[:, None, None, None]
    inside = ((batch.x + expected) >= 0) & ((batch.x + expected) <= 1)
    torch.testing.assert_close(delta[inside], expected[inside], rtol=0, atol=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_random_start_fills_the_ball(norm):
    x, radius = torch.full((400, 1, 4, 4), 0.5), torch.full((400,), 0.3)
    delta = BALLS[norm].start(x, radius, torch.arange(400), STREAM).flatten(1)
    size_B = delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)
    assert size_B.max() <= 0.3 + 1e-6
    assert size_B.median() > 0.27  # in 16 dimensions most of the volume is near the surface
    assert delta.mean().abs() < 0.01


def test_restarts_only_add_broken_images_and_skip_broken_ones(net, batch):
    with frozen_eval(net):
        once = run_pgd(net, batch, PGDSpec(norm="linf", eps=EPS, step_size=EPS / 4, num_steps=3), STREAM)
        often = run_pgd(
            net, batch, PGDSpec(norm="linf", eps=EPS, step_size=EPS / 4, num_steps=3, restarts=4), STREAM
        )
    assert (often.fooled | ~once.fooled).all()
    assert often.fooled.sum() >= once.fooled.sum()
    assert torch.equal(often.x_adv[once.fooled], once.x_adv[once.fooled])
    # An image that no restart fooled keeps what the first one made of it.
    assert not often.fooled.all()
    assert torch.equal(often.x_adv[~often.fooled], once.x_adv[~often.fooled])


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_stopping_early_finds_exactly_the_images_that_any_step_fools(net, images, norm):
    batch = make_batch(images.x.float() / 255, images.y)
    eps = EPS if norm == "linf" else 0.7
    settings = {"norm": norm, "eps": eps, "step_size": eps / 4, "num_steps": 10}
    with frozen_eval(net):
        right = net(batch.x).argmax(1) == batch.y
        last = run_pgd(net, batch, PGDSpec(**settings), STREAM)
        early = run_pgd(net, batch, PGDSpec(**settings, stop_early=True), STREAM)
    assert torch.equal(early.fooled[right], last.fooled_ever[right])
    assert (last.fooled_ever | ~last.fooled).all()
    untouched = ~last.fooled_ever & right
    torch.testing.assert_close(early.x_adv[untouched], last.x_adv[untouched], rtol=0, atol=1e-6)
    assert torch.equal(net(early.x_adv).argmax(1) != batch.y, early.fooled)


def test_an_outside_attack_is_judged_by_us_and_held_to_its_ball(net, batch, monkeypatch, tmp_path):
    asked = spec("examples.own_attack:random_corners")
    with frozen_eval(net):
        found = attack_chunk(net, batch, asked, 0, 0)
        assert torch.equal(found.fooled, net(found.x_adv).argmax(1) != batch.y)
        assert 0 < float((found.x_adv - batch.x).abs().max()) <= EPS + 1e-6
        (tmp_path / "bad_attacks.py").write_text(
            "far = lambda net, batch, *rest: 1 - batch.x\n"
            "nan = lambda net, batch, *rest: batch.x * float('nan')\n"
            "short = lambda net, batch, *rest: batch.x[1:]\n"
            "nothing = 3\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        for name, told in (("far", "from its image"), ("nan", "nan from its image"), ("short", "returns")):
            with pytest.raises(UserError, match=told):
                attack_chunk(net, batch, spec(f"bad_attacks:{name}"), 0, 0)
        with pytest.raises(UsageError, match="is no function"):
            split_name("bad_attacks:nothing")


def test_changed_code_of_an_outside_attack_is_another_attack(monkeypatch, tmp_path):
    plan = EvaluationPlan(attacks=("changing_attack:same",), sanity_examples=0)
    file = tmp_path / "changing_attack.py"
    file.write_text("same = lambda net, batch, *rest: batch.x\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = make_suite(plan, 4, (1, 8, 8)).attacks[0].key()
    assert before == make_suite(plan, 4, (1, 8, 8)).attacks[0].key()
    file.write_text("same = lambda net, batch, *rest: batch.x.clone()\n")
    assert before != make_suite(plan, 4, (1, 8, 8)).attacks[0].key()
