"""Label smoothing as a field of the strategy: what an image trains with, and what it is paid."""

import pytest
import torch

from lasat_ray.env.build import build_round
from lasat_ray.env.observation import margins, observed
from lasat_ray.methods.losses import smoothed_cross_entropy
from lasat_ray.models import eval_mode
from lasat_ray.process_group import ProcessGroup
from lasat_ray.training.round import play_round
from tests.support.helpers import CPU, close, make_images, small_config
from tests.support.method_runs import trainer_in

SHARES = (0.0, 0.2, 0.4)
GRID = {"eps": (0.1, 0.2), "label_smoothing": SHARES}
ALONE = ProcessGroup()


def a_round(**changes):
    config = small_config(**{"precision": "fp64", "batch_size": 16, "attack__grid": GRID, **changes})
    return build_round(config, make_images(48), 4, group=ALONE, device=CPU)


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
