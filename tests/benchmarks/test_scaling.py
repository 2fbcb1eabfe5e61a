"""The arithmetic of docs/scaling.md on numbers small enough to do by hand, and what it counts."""

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.common import read_record
from benchmarks.scaling.scaling import messages, summed_bytes
from benchmarks.scaling.scaling_model import (
    Cluster,
    Net,
    attack_seconds,
    balanced,
    policies,
    simulate,
    step_counts,
    sum_seconds,
    uniform,
    update_seconds,
)
from lasat_ray.models import build_classifier

ROOT = Path(__file__).parents[2]
VOTE = 3 * 8
"""Bytes: three counts in float64."""
NET = Net(flops=1e9, kernels=10, gradient_bytes=40_000_000, small_messages=2.0, strategy_flops=5e8)
FAST = Cluster(tflops=1.0, launch_us=0.0, node_gbytes=100.0, network_gbytes=10.0, latency_us=0.0)


def layers_of(model):
    """How many BatchNorm layers a net has."""
    with torch.device("meta"):
        net = build_classifier(model, num_classes=10, image_shape=(3, 32, 32))
    return sum(isinstance(layer, torch.nn.BatchNorm2d) for layer in net.modules())


def test_an_attack_costs_two_passes_for_each_step_that_an_image_takes():
    images_RWS = np.array([[[0, 2, 0, 1], [0, 0, 0, 3]]])  # 2 x 1 + 3, and 3 x 3 steps
    assert attack_seconds(images_RWS, NET, FAST)[0] == pytest.approx([0.010, 0.018])
    slow = Cluster(tflops=1e9, launch_us=5.0)  # no step is quicker than its kernels start
    assert attack_seconds(images_RWS, NET, slow)[0] == pytest.approx([3 * 1e-4, 3 * 1e-4])


def test_an_update_costs_three_passes_and_a_share_of_the_reward():
    assert update_seconds(4, NET, FAST) == pytest.approx(0.012)
    assert update_seconds(4, NET, FAST, 40) == pytest.approx(4e-3 * (3 + 0.5 + (22 + 2) / 40))


def test_a_sum_crosses_links_as_often_as_rings_do():
    assert sum_seconds(4e7, 1, FAST) == 0
    assert sum_seconds(4e7, 8, FAST) == pytest.approx(2 * 7 / 8 * 4e7 / 1e11)
    assert sum_seconds(4e7, 32, FAST) == pytest.approx(2 * 7 / 8 * 4e7 / 1e11 + 2 * 3 / 4 * 5e6 / 1e10)
    assert sum_seconds(0.0, 32, Cluster(latency_us=1.0)) == pytest.approx(10e-6)


def test_alone_nobody_waits_and_together_the_slowest_decides():
    one = simulate(NET, FAST, uniform(), workers=1, images=16, rounds=50, image_bytes=1)
    assert one["adversarial"] == one["plain"] == 1 and one["wait"] == pytest.approx(0)
    many = simulate(NET, FAST, uniform(), workers=64, images=16, rounds=50, image_bytes=1)
    assert many["wait"] > 3 * many["wait_balanced"] > 0
    round_ms = many["alone_ms"] * (1 + many["wait"]) + many["sent_ms"]
    assert many["adversarial"] == pytest.approx(many["alone_ms"] / round_ms)
    assert many["plain"] == pytest.approx(48 / (48 + many["sent_ms"]))  # 16 images, 3 passes of 1 ms


def test_balancing_moves_images_and_loses_none():
    drawn_RWS = step_counts(uniform(), 20, 8, 16)
    after_RWS, lent, _ = balanced(drawn_RWS)
    assert (after_RWS.sum(1) == drawn_RWS.sum(1)).all() and (after_RWS >= 0).all() and 0 < lent < 4


def test_policies_are_distributions():
    found = policies([3, 9], [30, 10])
    assert all(p_S.sum() == pytest.approx(1) for p_S in found.values())
    assert found["learned on digits"][[3, 9]].tolist() == [0.75, 0.25]


def test_one_message_carries_gradients_and_batch_statistics():
    sent = messages("small_cnn_bn", "small_cnn")
    assert sent["trains"] == [summed_bytes("small_cnn_bn"), VOTE]
    assert sent["rewarded"][0] == sent["trains"][0] and len(sent["rewarded"]) > 2


def test_the_page_tells_as_many_messages_as_a_round_sends():
    """At the nets of the page, whose strategy net has BatchNorm layers: their statistics are one message."""
    sent = messages("resnet18")
    assert sent == read_record("scaling")["messages"]
    page = " ".join((ROOT / "docs" / "scaling.md").read_text().split())
    trains, rewarded = len(sent["trains"]), len(sent["rewarded"])
    assert f"A round sends {trains} messages, a rewarded one {rewarded} (ResNet-18)" in page
    assert (trains, rewarded) == (2, 5)


def test_synchronized_batch_norm_sends_two_messages_a_layer():
    plain, synced = (messages("small_cnn_bn", "small_cnn", synced=s)["trains"] for s in (False, True))
    layers = {name: layers_of(name) for name in ("small_cnn_bn", "resnet18", "wrn-34-10")}
    assert len(synced) - len(plain) == 2 * layers["small_cnn_bn"]
    page = " ".join((ROOT / "docs" / "scaling.md").read_text().split())
    assert f"A ResNet-18 has {layers['resnet18']} such layers" in page
    assert f"sends {2 * layers['resnet18']} small messages" in page
    assert f"a WRN-34-10 with its {layers['wrn-34-10']} layers {2 * layers['wrn-34-10']}" in page
