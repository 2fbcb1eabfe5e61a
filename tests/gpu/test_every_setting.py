"""Every choice, switch, learner and strategy field of a run plays on the pretended GPU as on the CPU, and in
a round the host waits for the device once.

The cases are derived from the settings themselves: each value of each choice and switch that is not the
default, and one value (``SWITCHED_ON``) of each number that is off by default. A new setting is a case, or
fails here.
"""

from __future__ import annotations

import types
from dataclasses import replace
from typing import Any, Literal, Union, get_args, get_origin

import pytest
import torch

from benchmarks.gpu.launches import counted_round
from lasat_ray.config import TrainConfig
from lasat_ray.config.json_io import flags_of, leaves
from lasat_ray.env.build import build_round
from lasat_ray.learners import LEARNERS, SB3_LEARNERS
from lasat_ray.methods import METHODS
from lasat_ray.process_group import ProcessGroup
from lasat_ray.training.round import play_round
from lasat_ray.validation import check
from lasat_ray.validation.grid import FIELDS
from tests.learners.test_every_learner import HAS_SB3
from tests.support.helpers import make_images, small_config
from tests.support.pretended_card import PretendedGPU
from tests.support.pretended_gpu import pretended_gpu

TYPES = {flag[2:].replace("-", "_"): hint for flag, hint in flags_of(TrainConfig).items()}
DEFAULTS = dict(leaves(TrainConfig()))
NO_ROUND = {
    "data.background": "images are decoded on the host",
    "data.fit": "images are decoded on the host",
    "data.extra": "images are read on the host",
    "data.extra_fraction": "images are read on the host",
    "data.image_column": "images are read on the host",
    "data.label_column": "images are read on the host",
    "data.image_size": "images are decoded on the host",
    "data.max_train": "images are read on the host",
    "data.max_test": "images are read on the host",
    "init_from": "test_commands.py",
    "new_head": "test_commands.py",
    "teacher": "test_pretended_gpu.py, with the methods that have one",
    "robust_teacher": "test_pretended_gpu.py, with the methods that have one",
    "budget_minutes": "benchmarks/gpu/first_contest.py on the card that pretends",
    "budget_passes": "test_commands.py",
    "stop_on": "of validated numbers, on the host",
    "evaluation.norm": "test_commands.py",
    "speed.tf32": "test_pretended_gpu.py",
    "speed.balance": "of several workers",
    "optim.sync_batch_norm": "of several workers",
    "numerics.on_nan": "test_pretended_gpu.py",
    "loss.hydra_epochs": "test_pretended_gpu.py, with hydra",
    "attack.grid": "in every case that learns",
    "seed": "names random numbers",
}
"""Settings that no round of one worker reads, and who does."""
SWITCHED_ON: dict[str, Any] = {
    "data.cutout": 3,
    "data.crop_shift": 2,
    "data.erasing": 0.5,
    "data.mixup": 0.5,
    "attack.start_radius": 0.1,
    "attack.momentum": 0.5,
    "loss.label_smoothing": 0.1,
    "loss.awp_gamma": 0.01,
    "loss.awp_warmup": 1,
    "loss.fat_milestones": (1.0,),
    "loss.fat_omega": 0.1,
    "loss.gairat_milestones": (1.0,),
    "loss.gairat_lambda_max": 0.0,
    "loss.dart_epochs": 2.0,
    "loss.sat_start": 1.0,
    "loss.sat_epochs": 2.0,
    "loss.te_epochs": (1.0, 2.0),
    "loss.rebat_start": 0.0,
    "loss.atas_warmup": 1,
    "reward.cost_target": 5.0,
    "reward.check_every": 1,
    "reward.copy_weight_decay": 5e-4,
    "reward.copy_label_smoothing": 0.3,
    "policy.momentum": 0.9,
    "policy.weight_decay": 1e-3,
    "policy.entropy_weight": 0.01,
    "policy.entropy_final": 0.001,
    "policy.min_exploration": 0.1,
    "policy.initial_price": 1.0,
    "policy.target_kl": 0.01,
    "optim.freeze": ("convs.0*",),
    "optim.lr_factors": ("convs.0*=0.5",),
    "optim.warmup_epochs": 1.0,
    "optim.grad_clip": 0.5,
    "optim.ema_decay": 0.9,
    "optim.swa_start": 0.0,
    "speed.bucket": 8,
    "teacher_model": "tiny_cnn",
}
COPY = {"reward__lookahead": "copy"}
BLENDED = {"reward__credit": "influence", "reward__standardize": True}
NEEDS: dict[str, dict[str, Any]] = {
    "teacher_model": {"method": "lbgat"},
    "loss.gairat_schedule=linear": {"loss__gairat_lambda_max": 4.0},
    "loss.awp_gamma": {"method": "at-awp"},
    "loss.awp_warmup": {"method": "at-awp"},
    "loss.atas_warmup": {
        "attack__grid": {"eps": (0.1, 0.2, 0.3), "num_steps": (2.0,), "step_size": (0.05, 0.1)}
    },
    "reward.cost_target": {"reward__objective": "rate"},
    "reward.outcome=heldout": {**BLENDED, "reward__outcome_images": 4},
    "reward.mode=reference": {"reward__credit": "batch"},
    "reward.credit=influence": BLENDED,
    "reward.copy_weight_decay": COPY,
    "reward.copy_label_smoothing": COPY,
    "policy.baseline=greedy": COPY,
    "policy.entropy_schedule": {"policy__entropy_weight": 0.1},
    "policy.entropy_final": {"policy__entropy_weight": 0.1, "policy__entropy_schedule": "linear"},
    "policy.target_kl": {"learner": "ppo"},
    "speed.fold_batch_norm=False": {"model": "small_cnn_bn"},
    "speed.compile": {"model": "small_cnn_bn", "speed__bucket": 8},
    "speed.bucket": {"model": "small_cnn_bn"},
}
"""What a setting asks for beside it, by its path or by ``path=value``."""


def _choices(hint: Any) -> tuple[Any, ...]:
    """The values of a choice or a switch, those of an optional one too; none of anything else."""
    if hint is bool:
        return (False, True)
    if get_origin(hint) in (Union, types.UnionType):
        return tuple(value for part in get_args(hint) for value in _choices(part))
    return get_args(hint) if get_origin(hint) is Literal else ()


def _cases() -> dict[str, dict[str, Any]]:
    found = {}
    for path, hint in TYPES.items():
        on = (SWITCHED_ON[path],) if path in SWITCHED_ON else ()
        for value in () if path in NO_ROUND else (*_choices(hint), *on):
            name = f"{path}={value}"
            if value != DEFAULTS[path] or isinstance(value, bool) != isinstance(DEFAULTS[path], bool):
                word = path.removeprefix("loss.").partition("_")[0]
                method = {"method": word} if path.startswith("loss.") and word in METHODS else {}
                needs = method | NEEDS.get(path, {}) | NEEDS.get(name, {})
                found[name] = {**needs, path.replace(".", "__"): value}
    return found


CASES = _cases()


def config_of(changes: dict[str, Any]) -> TrainConfig:
    config = small_config(**{"precision": "fp64", "batch_size": 8, **changes})
    check(config, METHODS, LEARNERS)
    return config


def test_every_setting_is_a_case_or_has_its_place():
    off = [path for path, value in DEFAULTS.items() if not value and not _choices(TYPES[path])]
    missing = [path for path in off if path not in SWITCHED_ON and path not in NO_ROUND]
    assert not missing, "give each a value in SWITCHED_ON, or say in NO_ROUND who reads it"
    unknown = {*SWITCHED_ON, *NO_ROUND, *(name.partition("=")[0] for name in NEEDS)} - set(TYPES)
    assert not unknown


def states_after(
    config: TrainConfig, device: str, gpu: PretendedGPU | None = None, most_waits: int = 1
) -> dict[str, torch.Tensor]:
    """Target and learner after two rounds on 16 random images of 4 classes, on the host; waits of the second
    are counted on a ``gpu``."""
    images = make_images(16, (3 if config.data.policy != "none" else 1, 8, 8))  # those vary colours
    torch.manual_seed(0)
    env, learner = build_round(config, images, 4, group=ProcessGroup(), device=torch.device(device))
    if gpu is None:
        for _ in range(2):
            play_round(env, learner)
    else:
        counts = counted_round(env, learner, gpu, before=1)
        assert counts.num_waits <= most_waits, counts.waits
    found = {f"target {name}": value.cpu() for name, value in env.net.state_dict().items()}
    for name, value in learner.state_dict().items():
        if isinstance(value, torch.Tensor):
            found[f"learner {name}"] = value.cpu()
    return found


def played_alike(config: TrainConfig, most_waits: int = 1) -> None:
    """Rounds on the card end with the numbers of the CPU's; nothing in them mixes devices, or waits oftener
    than it may."""
    with pretended_gpu() as gpu:
        ours = states_after(config, "cuda:0", gpu, most_waits)
    # On the pretended card a compiled function is the function itself; here it would be built.
    plain = replace(config, speed=replace(config.speed, compile="none"))
    theirs = states_after(plain, "cpu")
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=0, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")


MORE_WAITS = {
    "reward.lookahead=copy": 2,  # two attacks, the second of an action that the first one's reward taught
    "policy.baseline=greedy": 3,  # and one of the likeliest strategies
    "policy.target_kl=0.01": 3,  # each epoch but the last is followed by the question whether to stop
    "reward.copy_weight_decay=0.0005": 2,
    "reward.copy_label_smoothing=0.3": 2,
    "ucb": 2,  # images are served one after the other, by numbers of the round before
    "augmix": 2,  # the host sorts the images by their operations
}
"""How often the host may wait in a rewarded round where once is not enough; in one without a reward the first
attack or two are not made, and nothing is learned."""


FIELD_VALUES: dict[str, tuple[float, ...]] = {
    "eps": (0.1, 0.2),
    "num_steps": (1.0, 3.0),
    "step_size": (0.05, 0.1),
    "start_radius": (0.05, 0.1),
    "trades_beta": (2.0, 6.0),
    "attack_loss": (0.0, 1.0, 2.0, 3.0),
    "awp_gamma": (0.0, 0.01),
    "momentum": (0.0, 0.5),
    "direction": (0.0, 1.0),
    "restarts": (1.0, 2.0),
    "label_smoothing": (0.0, 0.3),
    "augmix": (0.0, 0.5),
    "erasing": (0.0, 0.3),
}
"""Values of every field of a strategy; a new one is a case, or fails here."""


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_of_a_strategy_plays_as_on_the_cpu(field: str):
    method = {"method": "trades"} if field == "trades_beta" else {}
    played_alike(
        config_of({"attack__grid": {field: FIELD_VALUES[field]}, **method}), MORE_WAITS.get(field, 1)
    )


OWN_ROUNDING = ("precision", "reward.credit=influence", "reward.outcome=heldout", "reward.check_every")
"""bf16 rounds, and forward mode gives way to a difference on the card: here rounds are only played."""


@pytest.mark.parametrize("name", CASES)
def test_every_setting_plays_as_on_the_cpu(name: str):
    config = config_of(CASES[name])
    if name.startswith(OWN_ROUNDING):
        with pretended_gpu() as gpu:
            assert all(value.isfinite().all() for value in states_after(config, "cuda:0", gpu).values())
    else:
        played_alike(config, MORE_WAITS.get(name, 1))


HAVE_A_RATE = ("reinforce", "a2c", "ppo", "mirror-descent", *SB3_LEARNERS)
"""The learners with a net; a rate would be refused with any other."""


@pytest.mark.parametrize(
    "name",
    [
        *LEARNERS,
        *(
            pytest.param(name, marks=pytest.mark.skipif(not HAS_SB3, reason="needs [sb3]"))
            for name in SB3_LEARNERS
        ),
    ],
)
def test_every_learner_plays_as_on_the_cpu(name: str):
    control = name in get_args(TYPES["strategy"])
    needs = {} if name in HAVE_A_RATE else {"policy__lr": DEFAULTS["policy.lr"]}
    needs |= {"policy__min_exploration": 0.1} if name == "exp3" else {}
    needs |= {"precision": "fp32"} if name in SB3_LEARNERS else {}
    config = config_of({"strategy" if control else "learner": name, **needs})
    if name not in SB3_LEARNERS:
        return played_alike(config, MORE_WAITS.get(name, 1))
    with pretended_gpu():  # float32 alone, and another library's order of sums and waits
        assert all(value.isfinite().all() for value in states_after(config, "cuda:0").values())


RATE = {"reward__objective": "rate"}
HELD_OUT = {**BLENDED, "reward__outcome": "heldout", "reward__outcome_images": 4}
TOGETHER: dict[str, dict[str, Any]] = {
    "class-wise for the rate": {"strategy": "class-wise", **RATE},
    "the rate by held-out images": {**RATE, **HELD_OUT},
    "a budget of several restarts": {
        **RATE,
        "attack__grid": {"num_steps": (1.0, 3.0), "restarts": (1.0, 2.0)},
    },
}


@pytest.mark.parametrize("name", TOGETHER)
def test_choices_together_wait_once(name: str):
    with pretended_gpu() as gpu:
        found = states_after(config_of(TOGETHER[name]), "cuda:0", gpu)
    assert all(value.isfinite().all() for value in found.values())
