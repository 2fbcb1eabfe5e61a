"""A whole evaluation in this process: what it reports, how it continues, what it refuses."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lasat_ray.config import EvalConfig
from lasat_ray.data import Images
from lasat_ray.errors import UserError
from lasat_ray.evaluation import EvaluationPlan, accuracy, evaluate_net, wilson
from lasat_ray.evaluation.report import images_sha256, weights_sha256
from lasat_ray.process_group import ProcessGroup
from tests.support import evaluation_nets as nets
from tests.support.evaluation_nets import EPS

SUITE = ("clean", "fgsm", "pgd-3", "pgd-10", "cw-5")
PLAN = EvaluationPlan(attacks=SUITE, eps=EPS, chunk_size=16, sanity_examples=8, all_steps=True)


@pytest.fixture(scope="module")
def report(net, images, tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluation")
    return out, evaluate_net(net, images, PLAN, out=out, facts={"model": "small_cnn"})


def noting(known):
    """Notes for every part whether an earlier evaluation had left it."""
    return lambda suite: lambda job, part, old: known.append(old)


def flags_of(out):
    with np.load(out / "flags.npz") as arrays:
        return {name: arrays[name] for name in arrays}


def test_the_report_says_all_that_a_number_needs(report, net):
    out, told = report
    assert json.loads((out / "evaluation.json").read_text()) == json.loads(json.dumps(told))
    assert [*told["attacks"]] == [*SUITE]
    for name, entry in told["attacks"].items():
        assert 0 <= entry["accuracy"] <= 1
        assert entry["n"] == 60
        assert entry["interval"] == wilson(round(entry["accuracy"] * 60), 60)
        assert entry["eps"] == (0 if name == "clean" else EPS)
        assert entry["norm"] == "linf"
        assert entry["seconds"] > 0
        assert entry["weights_sha256"] == weights_sha256(net)
        assert {"torch", "pyautoattack", "python", "lasat_ray"} <= {*entry["versions"]}
    assert told["model"] == "small_cnn"
    assert told["sanity"]["verdict"] == "passed"


def test_passes_per_image_are_what_the_attacks_cost(report):
    _, told = report
    clean = told["attacks"]["clean"]["accuracy"]
    passes = {
        name: (entry["forward_passes_per_image"], entry["backward_passes_per_image"])
        for name, entry in told["attacks"].items()
    }
    assert passes["clean"] == (1, 0)
    # Images that are wrong without an attack are not attacked; one forward pass tells success.
    for name, steps in {"fgsm": 1, "pgd-3": 3, "pgd-10": 10, "cw-5": 5}.items():
        assert passes[name] == pytest.approx(((steps + 1) * clean, steps * clean))


def test_per_image_flags_give_the_accuracies(report, images):
    out, told = report
    flags = flags_of(out)
    assert np.array_equal(flags["label"], images.y.numpy())
    for name in SUITE:
        assert flags[name].dtype == bool
        assert flags[name].mean() == pytest.approx(told["attacks"][name]["accuracy"])
    worst = np.logical_and.reduce([flags[name] for name in SUITE])
    assert told["worst_case"]["accuracy"] == pytest.approx(worst.mean())


@pytest.mark.parametrize("steps", [0, 3, 10])
def test_pgd_is_the_accuracy_that_training_reports(report, net, images, steps):
    """Same start for each image, so the same number, on a net that no attack turns right."""
    expected = accuracy(
        net,
        images,
        steps,
        EvalConfig(eps=EPS, step_size=EPS / 4, batch_size=60),
        seed=0,
        group=ProcessGroup(),
        device=torch.device("cpu"),
        dtype=torch.float32,
    )
    assert report[1]["attacks"][f"pgd-{steps}" if steps else "clean"]["accuracy"] == expected


def test_an_image_is_done_at_the_first_step_that_fools_the_net(report, net, images, tmp_path):
    """The default: as strong as the best step, and cheaper by what need not be attacked any more."""
    told = evaluate_net(net, images, dataclasses.replace(PLAN, all_steps=False), out=tmp_path)
    for name in ("pgd-3", "pgd-10", "cw-5"):
        every, early = report[1]["attacks"][name], told["attacks"][name]
        assert early["accuracy"] == every["accuracy_any_step"] <= every["accuracy"]
        assert early["backward_passes_per_image"] < every["backward_passes_per_image"]


def test_the_size_of_chunks_does_not_matter_to_our_own_attacks(report, net, images, tmp_path):
    evaluate_net(net, images, dataclasses.replace(PLAN, chunk_size=60), out=tmp_path)
    ours, theirs = flags_of(report[0]), flags_of(tmp_path)
    assert all(np.array_equal(ours[name], theirs[name]) for name in SUITE)


def test_a_finished_evaluation_is_read_and_not_run_again(report, net, images):
    known = []
    evaluate_net(net, images, PLAN, out=report[0], announce=noting(known))
    assert known
    assert all(known)


@pytest.mark.parametrize(
    "change",
    [
        {"eps": 0.1},
        {"all_steps": False},
        {"seed": 1},
        {"chunk_size": 8},
        {"n_examples": 30},
        {"restarts": 2},
        {"worst_case": True},
    ],
)
def test_changed_settings_never_meet_old_parts(report, net, images, change):
    known = []
    plan = dataclasses.replace(PLAN, attacks=("pgd-3",), sanity_examples=0, **change)
    out = report[0] / "again"
    evaluate_net(net, images, dataclasses.replace(PLAN, attacks=("pgd-3",), sanity_examples=0), out=out)
    evaluate_net(net, images, plan, out=out, announce=noting(known))
    assert not any(known)


def test_other_weights_and_other_images_never_meet_old_parts(net, images, tmp_path):
    plan = EvaluationPlan(attacks=("clean",), sanity_examples=0)
    other = nets.trained()
    with torch.no_grad():
        next(other.parameters()).flatten()[0] += 1e-3
    swapped = Images(images.x.flip(0), images.y.flip(0))
    known = []
    for subject, test in ((net, images), (other, images), (net, swapped)):
        evaluate_net(subject, test, plan, out=tmp_path, announce=noting(known))
    assert known == [False] * 3
    assert images_sha256(images) != images_sha256(swapped)


def test_a_damaged_part_is_run_again(net, images, tmp_path):
    plan = EvaluationPlan(attacks=("clean", "pgd-3"), chunk_size=30, sanity_examples=0, eps=EPS)
    first = evaluate_net(net, images, plan, out=tmp_path)
    part = sorted((tmp_path / ".parts").rglob("pgd-3-*.safetensors"))[1]
    part.write_bytes(part.read_bytes()[:-3])
    known = []
    again = evaluate_net(net, images, plan, out=tmp_path, announce=noting(known))
    assert known.count(False) == 1
    assert again["attacks"]["pgd-3"]["accuracy"] == first["attacks"]["pgd-3"]["accuracy"]


def test_the_worst_case_attacks_only_what_is_left(report, net, images, tmp_path):
    plan = dataclasses.replace(PLAN, worst_case=True, attacks=("clean", "pgd-10", "cw-5"), sanity_examples=0)
    told = evaluate_net(net, images, plan, out=tmp_path)
    flags, alone = flags_of(tmp_path), flags_of(report[0])
    assert np.array_equal(flags["pgd-10"], alone["pgd-10"])
    assert np.array_equal(flags["cw-5"], alone["pgd-10"] & alone["cw-5"])
    left = alone["pgd-10"].mean()
    assert told["attacks"]["cw-5"]["forward_passes_per_image"] == pytest.approx(6 * left)
    assert told["worst_case"]["accuracy"] == told["attacks"]["cw-5"]["accuracy"]
    assert told["worst_case"]["cumulative"]


def test_the_images_that_are_kept_are_the_ones_that_count(net, images, tmp_path):
    plan = EvaluationPlan(
        attacks=("pgd-10", "cw-5"), eps=EPS, chunk_size=25, save_images=True, sanity_examples=0
    )
    evaluate_net(net, images, plan, out=tmp_path)
    for name in ("pgd-10", "cw-5"):
        x_adv = load_file(tmp_path / "images" / f"{name}.safetensors")["x_adv"]
        right = (net(x_adv).argmax(1) == images.y) & (net(images.x.float() / 255).argmax(1) == images.y)
        assert np.array_equal(right.numpy(), flags_of(tmp_path)[name])
        assert (x_adv - images.x.float() / 255).abs().max() <= EPS + 1e-6


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"eps": 8.0}, "--eps: 8 is out of range"),
        ({"eps": -0.1}, "--eps: -0.1 is out of range"),
        ({"eps": float("nan")}, "--eps: nan is out of range"),
        ({"eps": 9.0, "norm": "l2"}, "at most 8, for example"),
        ({"step_size": 0.0}, "--step-size: 0 is out of range"),
        ({"norm": "l7"}, "--norm: 'l7' is unknown"),
        ({"attacks": ("pgd-3", "pgd-3")}, "'pgd-3' stands twice"),
        ({"attacks": ()}, "--attacks: names none"),
        ({"attacks": ("pdg-3",)}, "--attacks: 'pdg-3' is unknown"),
        ({"chunk_size": 0}, "--chunk-size: 0 is out of range"),
        ({"n_examples": 0}, "--n-examples: 0 is out of range"),
        ({"restarts": 0}, "--restarts: 0 is out of range"),
        ({"sanity_examples": -1}, "--sanity-examples: -1 is out of range"),
    ],
)
def test_settings_that_cannot_be_are_told_in_one_line(net, images, change, told):
    with pytest.raises(UserError, match=told) as caught:
        evaluate_net(net, images, dataclasses.replace(PLAN, **change))
    assert "\n" not in str(caught.value)


def test_nets_and_images_that_cannot_be_are_told_in_one_line(net, images, tmp_path):
    def refused(subject, test):
        with pytest.raises(UserError) as caught:
            evaluate_net(subject, test, EvaluationPlan(attacks=("pgd-3",), sanity_examples=0), out=tmp_path)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "test set: holds no images" in refused(net, images.take(torch.arange(0)))
    beyond = Images(images.x, torch.where(images.y == 4, 12, images.y))
    row = int((images.y == 4).nonzero()[0, 0])
    assert f"test image {row}: label 12 is outside 0..9" in refused(net, beyond)
    assert "net: gives nan or inf for test image" in refused(nets.Broken(tmp_path / "processes"), images)
    assert "it has to return logits [B,N]" in refused(torch.nn.Flatten(0), images)
    assert not (tmp_path / "evaluation.json").exists()


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (81, 263, 0.2553, 0.3662)],
)
def test_wilson_s_interval_is_the_textbook_s(successes, n, low, high):
    """The last row is Newcombe's (1998) example, Table I, method 3."""
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)
