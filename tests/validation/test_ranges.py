"""Every number of the config has a bound, and a number beyond it is refused in one line."""

import math

import pytest

from lasat_ray.config import TrainConfig
from lasat_ray.config.json_io import flag, leaves
from lasat_ray.validation import BOUNDS
from lasat_ray.validation.grid import length_bounds

from .refused import refusal

OPTIONAL_NUMBERS = {
    *("data.max_train", "data.max_test", "attack.start_radius", "loss.awp_gamma", "loss.fat_omega"),
    *("loss.gairat_lambda_max", "loss.dart_epochs", "loss.sat_epochs", "loss.hydra_epochs"),
    *("policy.target_kl", "optim.swa_start", "data.image_size", "loss.atas_warmup"),
    "loss.rebat_start",
}


OUT_OF_RANGE = {
    **dict.fromkeys(
        ("epochs", "batch_size", "update_interval", "attack.num_steps", "attack.restarts"), (0, -1)
    ),
    **dict.fromkeys(("reward.ref_num_steps", "reward.ref_restarts", "data.max_test"), (0,)),
    **dict.fromkeys(("evaluation.every", "evaluation.val_num_steps", "evaluation.batch_size"), (0,)),
    "data.max_train": (1, 0),
    **dict.fromkeys(
        ("seed", "data.crop_padding", "data.crop_shift", "data.cutout", "reward.check_every"), (-1,)
    ),
    **dict.fromkeys(("data.val_fraction", "data.extra_fraction"), (1.0, -0.1)),
    **dict.fromkeys(("data.stream_window", "data.stream_lanes"), (0, -1)),
    **dict.fromkeys(("loss.label_smoothing", "reward.copy_label_smoothing"), (1.0, -0.1)),
    **dict.fromkeys(("attack.eps", "reward.ref_eps", "evaluation.eps"), (0.0, -0.1, 8.0)),
    **dict.fromkeys(("attack.step_size", "reward.ref_step_size", "evaluation.step_size"), (0.0, -0.1, 2.0)),
    "attack.start_radius": (-0.1, 8.0),
    "reward.outcome_images": (0,),
    **dict.fromkeys(("budget_passes", "budget_minutes"), (-1.0,)),
    "stop_patience": (0,),
    "reward.outcome_fraction": (0.0, 1.0),
    **dict.fromkeys(("data.mixup", "attack.momentum"), (-0.1, 1.1)),
    **{"data.erasing": (-0.1, 1.1), "data.erasing_area": (0.01, 1.1)},
    "reward.cost_target": (-1.0,),
    **dict.fromkeys(("loss.trades_beta", "reward.alpha", "reward.beta", "reward.l1_weight"), (-1.0,)),
    **dict.fromkeys(("reward.copy_weight_decay", "reward.r2_factor", "reward.r3_factor"), (-1.0,)),
    **dict.fromkeys(("policy.weight_decay", "policy.grad_clip", "policy.entropy_weight"), (-1.0,)),
    **dict.fromkeys(("optim.weight_decay", "optim.grad_clip", "optim.warmup_epochs"), (-1.0,)),
    **dict.fromkeys(("reward.clamp", "policy.lr", "optim.lr"), (0.0, -1.0)),
    **dict.fromkeys(("policy.momentum", "optim.momentum", "optim.ema_decay", "optim.beta2"), (1.0, -0.1)),
    "data.image_size": (0, 5000),
    "optim.warmup_start": (0.0, 1.5),
    **dict.fromkeys(("policy.entropy_final", "policy.value_weight", "policy.exploration"), (-1.0,)),
    **dict.fromkeys(("policy.clip", "policy.target_kl", "policy.mirror_step"), (0.0, -1.0)),
    **dict.fromkeys(("policy.update_epochs", "policy.minibatches"), (0,)),
    "policy.min_exploration": (-0.1, 1.0),
    "policy.initial_price": (-0.1,),
    "policy.discount": (0.0, 1.5),
    **dict.fromkeys(("loss.awp_gamma", "loss.dart_epochs", "loss.sat_epochs"), (0.0, -1.0)),
    **dict.fromkeys(("loss.ltd_temperature", "loss.ikl_temperature"), (0.0, -1.0)),
    **dict.fromkeys(("loss.ikl_alpha", "loss.te_weight"), (-1.0,)),
    **dict.fromkeys(("loss.adr_decay", "loss.kd_plain", "loss.kd_robust", "loss.te_decay"), (1.0, -0.1)),
    **{"loss.atas_c": (0.0, -1.0), "loss.atas_decay": (1.0, -0.1), "loss.atas_warmup": (-1,)},
    **{"loss.rebat_decay": (1.0, -0.1), "loss.rebat_weight": (-1.0,), "loss.rebat_start": (-1.0,)},
    "loss.kd_temperature": (0.0, -1.0),
    "optim.swa_start": (-1.0,),
    "optim.restart_epochs": (0.0, -1.0),
    "optim.restart_factor": (0.5, 101.0),
    **dict.fromkeys(("loss.awp_warmup", "loss.fat_omega", "loss.dart_fosc", "loss.hat_gamma"), (-1,)),
    **dict.fromkeys(("loss.gairat_lambda", "loss.gairat_lambda_max"), (-101.0, 101.0)),
    "loss.sat_start": (-1.1, 1.1),
    **dict.fromkeys(("loss.cat_threshold", "loss.hydra_keep", "loss.hydra_tune_rate"), (0.0, 1.1)),
    "loss.hydra_epochs": (0, -1),
    "numerics.max_faults": (0, -1),
    "numerics.rollback_factor": (0.0, 1.0),
    "speed.bucket": (-1,),
}
RANGE_CASES = [(path, value) for path, values in OUT_OF_RANGE.items() for value in values]


@pytest.mark.parametrize(("path", "value"), RANGE_CASES)
def test_a_number_out_of_range_is_named(path, value):
    message = refusal({path: value})
    assert message.startswith(f"{flag(path)}: ")
    assert "is out of range; give " in message


def test_every_bound_has_a_bad_value_here():
    assert set(OUT_OF_RANGE) == {*BOUNDS, *length_bounds(TrainConfig())}


def test_every_number_of_the_config_has_a_bound():
    numbers = {p for p, v in leaves(TrainConfig()) if isinstance(v, (int, float)) and not isinstance(v, bool)}
    assert numbers | OPTIONAL_NUMBERS == {*BOUNDS, *length_bounds(TrainConfig())}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("path", [p for p, v in leaves(TrainConfig()) if isinstance(v, float)])
def test_no_number_that_is_not_one_gets_through(path, value):
    assert refusal({path: value}).startswith(f"{flag(path)}: {value} is not a finite number")


def test_numbers_inside_lists_and_grids_are_looked_at():
    assert refusal({"optim.milestones": (3.0, math.nan)}).startswith("--optim.milestones: nan")
    assert refusal({"attack.grid": {"eps": (0.1, math.inf)}}).startswith("--attack.grid: inf")
