"""AutoAttack here is AutoAttack there: the same images as the package called by hand."""

import pyautoattack
import pytest
import torch
from safetensors.torch import load_file

from lasat_ray.data import Images
from lasat_ray.errors import UsageError
from lasat_ray.evaluation import EvaluationPlan, evaluate_net
from lasat_ray.evaluation.autoattack import VERSION_COMPONENTS, auto_attack
from lasat_ray.models import build_classifier, frozen_eval
from tests.support.evaluation_nets import EPS, SHAPE, Constant
from tests.support.helpers import make_batch

SEED = 5


@pytest.fixture(scope="module")
def batch(images):
    return make_batch(images.x[:5].float() / 255, images.y[:5])


@pytest.mark.parametrize(("name", "norm", "eps"), [("aa", "linf", 0.25), ("aa", "l2", 1.5)])
def test_one_chunk_equals_the_package_called_directly(net, batch, images, tmp_path, name, norm, eps):
    adversary = pyautoattack.AutoAttack(
        net,
        norm={"linf": "Linf", "l2": "L2"}[norm],
        eps=eps,
        seed=SEED,
        version="standard",
    )
    expected, y_adv = adversary.run_standard_evaluation(batch.x, batch.y, batch_size=5)
    plan = EvaluationPlan(
        attacks=(name,), norm=norm, eps=eps, seed=SEED, n_examples=5, sanity_examples=0, save_images=True
    )
    report = evaluate_net(net, images, plan, out=tmp_path)
    assert torch.equal(load_file(tmp_path / "images" / f"{name}.safetensors")["x_adv"], expected)
    assert report["attacks"][name]["accuracy"] == int((y_adv == batch.y).sum()) / 5
    assert 0 < (expected != batch.x).flatten(1).any(1).sum() < 6


def test_the_random_state_of_the_caller_is_left_alone(net, batch):
    before = torch.get_rng_state()
    with frozen_eval(net):
        auto_attack(net, batch, version="standard", only="apgd-ce", eps=EPS, norm="linf", seed=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_package_s_warnings_are_kept_for_the_report(batch):
    with frozen_eval(Constant()) as net:
        _, _, told = auto_attack(net, batch, version="standard", only="square", eps=EPS, norm="linf", seed=0)
    assert any("probability distribution" in line for line in told)


@pytest.mark.parametrize(("classes", "name", "needs"), [(3, "apgd-t", 4), (2, "apgd-dlr", 3)])
def test_too_few_classes_are_told_in_one_line(batch, classes, name, needs):
    net = build_classifier("small_cnn", num_classes=classes, image_shape=SHAPE).eval()
    few = make_batch(batch.x, batch.y % classes)
    with pytest.raises(UsageError, match=f"{name} of AutoAttack needs {needs} classes"):
        auto_attack(net, few, version="standard", only=name, eps=EPS, norm="linf", seed=0)


def test_four_classes_are_attacked_with_three_targets(batch):
    torch.manual_seed(0)
    net = build_classifier("small_cnn", num_classes=4, image_shape=SHAPE).eval()
    few = make_batch(batch.x, net(batch.x).argmax(1))
    with frozen_eval(net):
        _, fooled, _ = auto_attack(net, few, version="standard", only="apgd-t", eps=0.5, norm="linf", seed=0)
    assert fooled.all()


@pytest.mark.parametrize(
    ("classes", "version", "left_out"),
    [
        (2, "aa", "apgd-t"),
        (3, "aa", "apgd-t"),
        (2, "aa-plus", "apgd-dlr-apgd-t"),
        (3, "aa-plus", "apgd-t"),
        (2, "aa-rand", "apgd-dlr"),
    ],
)
def test_autoattack_goes_as_far_as_few_classes_allow_and_is_named_so(batch, classes, version, left_out):
    torch.manual_seed(0)
    net = build_classifier("small_cnn", num_classes=classes, image_shape=SHAPE).eval()
    images = Images((batch.x * 255).to(torch.uint8), batch.y % classes)
    plan = EvaluationPlan(attacks=("clean", version), eps=0.5, sanity_examples=0, n_examples=8)
    report = evaluate_net(net, images, plan)
    assert list(report["attacks"]) == ["clean", f"{version}-without-{left_out}"]
    clean, robust = (attack["accuracy"] for attack in report["attacks"].values())
    assert robust <= clean


def test_the_package_still_runs_the_components_that_are_counted_for_few_classes(batch, net):
    import pyautoattack

    for version, components in VERSION_COMPONENTS.items():
        adversary = pyautoattack.AutoAttack(net, norm="Linf", eps=EPS, version=version, device="cpu")
        assert sorted(adversary.attacks_to_run) == sorted(components)


def test_a_component_for_more_classes_is_refused_before_the_first_attack(batch):
    net = build_classifier("small_cnn", num_classes=3, image_shape=SHAPE).eval()
    images = Images((batch.x * 255).to(torch.uint8), batch.y % 3)
    ran = []
    with pytest.raises(UsageError, match="apgd-t of AutoAttack needs 4 classes and the net has 3"):
        evaluate_net(net, images, EvaluationPlan(attacks=("clean", "apgd-t"), eps=EPS), announce=ran.append)
    assert not ran
