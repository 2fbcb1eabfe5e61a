"""The attack benchmark compares the same work: equal images from the plain loop and from ours."""

import torch

from benchmarks.speed.attack_speed import EXACT, OURS, Options, make_case, make_net, measure, plain_attack
from lasat_ray.attacks import attack_batch
from lasat_ray.models import AttackView
from lasat_ray.rng import RandomKey

TINY = Options(model="resnet18-8", batch_size=12, threads=1, repeats=1)


def test_the_plain_loop_and_ours_make_the_same_images():
    batch, strategy = make_case(TINY)
    plain = plain_attack(make_net(TINY, EXACT), batch, strategy, torch.zeros_like(batch.x))
    for name, speed in OURS.items():
        view = AttackView(speed)(make_net(TINY, speed), batch.x)
        ours = attack_batch(view, batch, strategy, RandomKey.of(0), loss="ce", start_kind="zero")
        # Where a gradient is next to nothing, its sign is a matter of rounding.
        same = (ours - plain).abs() < 1e-6
        assert same.double().mean() > 0.99, name
        assert ours.ne(batch.x).double().mean() > 0.9


def test_every_variant_is_timed():
    found = measure(TINY)
    assert set(found) == {"plain loop", *OURS, "plain loop, bf16", "+ both, bf16"}
    assert all(row["median"] > 0 and len(row["seconds"]) == 1 for row in found.values())
