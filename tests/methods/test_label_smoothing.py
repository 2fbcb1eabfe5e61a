"""Label smoothing as a field of the strategy: what an image trains with, and what it is paid."""

import math

import pytest
import torch

from lasat_ray.config import LossConfig
from lasat_ray.env.build import build_round
from lasat_ray.env.observation import margins, observed
from lasat_ray.methods import METHODS
from lasat_ray.methods.losses import smoothed_cross_entropy
from lasat_ray.models import eval_mode
from lasat_ray.process_group import ProcessGroup
from lasat_ray.training.round import play_round
from tests.support.helpers import CPU, close, inputs_of, make_images, small_config, strategy_of
from tests.support.method_runs import trainer_in

SHARES = (0.0, 0.2, 0.4)
GRID = {"eps": (0.1, 0.2), "label_smoothing": SHARES}
ALONE = ProcessGroup()


def a_round(**changes):
    config = small_config(**{"precision": "fp64", "batch_size": 16, "attack__grid": GRID, **changes})
    return build_round(config, make_images(48), 4, group=ALONE, device=CPU)


LOGITS = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
OWN = torch.tensor([0.0, 0.1, 0.25, 0.4, 0.6, 0.9], dtype=torch.float64)
WEIGHTS = {"pgd-at": 1.0, "te": 1.0, "rebat": 1.0, "kd-swa": 0.3}
"""Methods -> what the smoothed cross-entropy at x_adv counts in them where nothing else is asked."""


def target_of(y):
    """1 - s on the true class of each image and s / (N - 1) on every other."""
    target = (OWN / 4)[:, None].repeat(1, 5)
    target[torch.arange(6), y] = 1 - OWN
    return target


def test_value_and_gradient_of_each_images_share_by_hand():
    logits, y = LOGITS.clone().requires_grad_(True), torch.arange(6) % 5
    loss = smoothed_cross_entropy(logits, y, OWN)
    for n in range(6):
        log_p = [float(v) - math.log(sum(math.exp(float(w)) for w in LOGITS[n])) for v in LOGITS[n]]
        true, others = log_p[int(y[n])], sum(log_p) - log_p[int(y[n])]
        close(loss[n].detach(), -(1 - float(OWN[n])) * true - float(OWN[n]) / 4 * others)
    (grad,) = torch.autograd.grad(loss.sum(), logits)
    close(grad, LOGITS.softmax(1) - target_of(y))


@pytest.mark.parametrize("method", WEIGHTS)
def test_a_method_learns_each_images_own_label(method):
    """The gradient of the logits is that of cross-entropy against the image's own label."""
    logits, y, ones = LOGITS.clone().requires_grad_(True), torch.arange(6) % 5, torch.ones_like(OWN)
    strategy = strategy_of(ones, ones.long(), ones, label_smoothing=OWN)
    config, companion = LossConfig(label_smoothing=0.5), None
    if method == "kd-swa":  # its teachers agree with the net: they pull nowhere
        companion = torch.stack([LOGITS, LOGITS], 1)
    inputs = inputs_of(y, strategy, config, adv=logits, companion=companion)
    (grad,) = torch.autograd.grad(METHODS[method].loss(inputs).sum(), logits)
    close(grad, WEIGHTS[method] * (LOGITS.softmax(1) - target_of(y)))


def test_trades_and_ikl_smooth_the_label_of_the_clean_image():
    clean, y, ones = LOGITS.clone().requires_grad_(True), torch.arange(6) % 5, torch.ones_like(OWN)
    strategy = strategy_of(ones, ones.long(), ones, label_smoothing=OWN)
    for method in ("trades", "ikl"):
        # Nothing was changed by the attack: the other terms are at their minimum.
        inputs = inputs_of(y, strategy, LossConfig(), adv=LOGITS, clean=clean)
        (grad,) = torch.autograd.grad(METHODS[method].loss(inputs).sum(), clean)
        close(grad, LOGITS.softmax(1) - target_of(y))


@pytest.mark.parametrize("lookahead", ["real", "copy"])
def test_an_image_trains_with_its_share_and_is_paid_without(lookahead):
    env, _ = a_round(reward__lookahead=lookahead)
    action = torch.zeros(16, 4, dtype=torch.int64)
    field = env.space.names.index("label_smoothing")
    action[:, field] = torch.arange(16) % 3
    share = torch.tensor(SHARES, dtype=torch.float64)[action[:, field]]
    x_adv, y = env.attack_as_chosen(env.space.decode(action)).x_adv, env.batch.y
    with torch.no_grad(), eval_mode(env.net):  # the net has no BatchNorm: one answer in every mode
        logits = env.net(x_adv)
    played = env.play(action)
    close(played.update.loss, smoothed_cross_entropy(logits, y, share))
    plain = torch.nn.functional.cross_entropy(logits, y, reduction="none")
    close(played.update.l1, plain)
    close(played.rewarded.terms.l1, plain)


def test_by_difficulty_the_images_nearest_to_another_class_get_the_first_share():
    env, learner = a_round(strategy="margin", attack__grid={"label_smoothing": (0.4, 0.2, 0.1, 0.0)})
    with torch.no_grad():
        margin = margins(env.net, env.batch)
    seen = observed(env.config, env.batch, env.net, 4, ALONE)
    chosen = env.space.decode(learner.act(seen, env.batch.index, None).index).label_smoothing
    order = margin.argsort()
    close(chosen[order], torch.tensor([0.4] * 4 + [0.2] * 4 + [0.1] * 4 + [0.0] * 4, dtype=torch.float64))
    play_round(env, learner)


def test_a_learned_strategy_may_choose_it_and_its_mean_is_recorded(tmp_path):
    config = small_config(attack__grid=GRID, epochs=1, precision="fp64")
    trainer_in(tmp_path / "run", config).run()
    text = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert '"label_smoothing":' in text
