"""Each bad setting is refused in one line that names it as the command line spells it."""

import contextlib
import dataclasses

import pytest

from lasat_ray.cli.run_options import RunOptions, check_run
from lasat_ray.config import PolicyConfig, TrainConfig
from lasat_ray.config.traits import TRAITS, MethodTraits
from lasat_ray.errors import UsageError
from lasat_ray.learners import LEARNERS
from lasat_ray.methods import METHODS
from lasat_ray.recipes import RECIPES, get_recipe
from lasat_ray.validation import check
from lasat_ray.validation.learner import READS

from .refused import PAPER, changed, refusal


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_passes(name):
    given = dict.fromkeys((option[2:].replace("-", "_") for option in RECIPES[name].needs), "runs/a")
    check(changed(RECIPES[name].config, given), METHODS, LEARNERS)


def test_cuda_graphs_want_few_batch_sizes():
    told = refusal({"speed.compile": "cudagraphs"})
    assert told.startswith("--speed.compile: 'cudagraphs'") and "--speed.bucket 16" in told
    check(changed(get_recipe("digits").config, {"speed.compile": "cudagraphs", "speed.bucket": 16}))


def test_tf32_changes_nothing_in_float64():
    told = refusal({"speed.tf32": "none", "precision": "fp64"})
    assert told.startswith("--speed.tf32: 'none' has no effect with --precision fp64")
    check(changed(get_recipe("digits").config, {"speed.tf32": "all", "precision": "fp32"}))


@pytest.mark.parametrize("changes", [{"strategy": "fixed"}, {"strategy": "curriculum"}, {"method": "fat"}])
def test_attacks_are_balanced_only_where_their_steps_differ_and_are_known(changes):
    told = refusal({**changes, "speed.balance": True})
    assert told.startswith("--speed.balance: True has no effect with ") and told.endswith("leave it out")
    check(changed(get_recipe("digits").config, {"speed.balance": True}))


def test_batch_norm_is_not_synchronized_where_that_would_change_nothing():
    config = changed(get_recipe("digits").config, {"optim.sync_batch_norm": True})
    check(config)
    for kind, fits in {"graph": True, "inductor": False}.items():
        asked = changed(config, {"speed.compile": kind})
        with contextlib.nullcontext() if fits else pytest.raises(UsageError, match="which fixes what a pass"):
            check(asked)
    check_run(config, RunOptions(num_workers=2))
    check_run(config, RunOptions(resume="runs/of-two"))
    for workers in (0, 1):
        with pytest.raises(UsageError, match=r"--optim.sync-batch-norm: True has no effect in one process"):
            check_run(config, RunOptions(num_workers=workers))


GRID_CASES = [
    ({}, "nothing to choose"),
    ({"budget": (0.1,)}, "'budget' is not a field; choose from: eps, num_steps"),
    ({"eps": ()}, "'eps' has no values"),
    ({"eps": (0.1, 0.1)}, "eps=0.1 stands twice"),
    ({"eps": (0.1, 0.0)}, "eps=0 is out of range"),
    ({"eps": (3.5,)}, "eps=3.5 is out of range"),
    ({"step_size": (0.0,)}, "step_size=0 is out of range"),
    ({"num_steps": (0.0,)}, "num_steps=0 is out of range"),
    ({"num_steps": (2.5,)}, "num_steps=2.5 is out of range; give whole numbers"),
    ({"start_radius": (-0.1,)}, "start_radius=-0.1 is out of range"),
    ({"trades_beta": (-1.5,)}, "trades_beta=-1.5 is out of range"),
    ({"trades_beta": (5.5,)}, "'trades_beta' is no part of --method pgd-at"),
    ({"attack_loss": (4.0,)}, "attack_loss=4 is out of range; write some of ce,kl,margin"),
    ({"awp_gamma": (-0.1,)}, "awp_gamma=-0.1 is out of range"),
    ({"label_smoothing": (0.1, 1.0)}, "label_smoothing=1 is out of range"),
    ({"momentum": (0.0, 1.5)}, "momentum=1.5 is out of range"),
    ({"direction": (2.0,)}, "direction=2 is out of range; write some of sign,gradient"),
    ({"restarts": (1.0, 0.0)}, "restarts=0 is out of range; give whole numbers"),
    ({"augmix": (0.0, 1.5)}, "augmix=1.5 is out of range; give a number from 0 to 1"),
    ({"erasing": (0.0, 1.0)}, "erasing=1 is out of range; give shares of 0 or more and less than 1"),
]


FIELD_CASES = [
    ({"attack.grid": {"attack_loss": (0.0,)}, "attack.loss": "kl"}, "both say what the attack raises"),
    ({"attack.grid": {"attack_loss": (0.0,)}, "method": "dart"}, "convergence criterion"),
    ({"attack.grid": {"start_radius": (0.1,)}, "attack.start": "zero"}, "no effect with --attack.start zero"),
    ({"attack.grid": {"awp_gamma": (0.1,)}, "loss.awp_gamma": 0.1}, "both say how far"),
    ({"attack.grid": {"label_smoothing": (0.1,)}, "loss.label_smoothing": 0.1}, "both say how far"),
    (
        {"attack.grid": {"label_smoothing": (0.1,)}, "method": "adr"},
        "'label_smoothing' has no effect with --method adr",
    ),
    (
        {"attack.grid": {"direction": (1.0,)}, "attack.norm": "l2"},
        "'direction' has no effect with --attack.norm l2",
    ),
    ({"attack.direction": "gradient", "attack.norm": "l2"}, "--attack.direction: 'gradient' has no effect"),
    (
        {"attack.grid": {"direction": (1.0,)}, "method": "free"},
        "'direction' has no effect with --method free",
    ),
    ({"attack.direction": "gradient", "method": "free"}, "'gradient' has no effect with --method free"),
    ({"attack.grid": {"restarts": (1.0, 2.0)}, "attack.start": "zero"}, "'restarts' repeats the same attack"),
    ({"attack.restarts": 2, "strategy": "fixed", "attack.start": "zero"}, "--attack.restarts: 2 repeats"),
    ({"attack.grid": {"restarts": (1.0, 2.0)}, "method": "fat"}, "whose rule follows one attack"),
    ({"attack.restarts": 2, "method": "clean", "strategy": "fixed"}, "2 has no part in --method clean"),
    ({"attack.grid": {"erasing": (0.0, 0.2)}, "data.erasing": 0.5}, "0.5 both hide a part of an image"),
    ({"attack.grid": {"augmix": (0.0, 0.2)}, "data.policy": "augmix"}, "both say how far images are mixed"),
    ({"attack.grid": {"erasing": (0.0, 0.2)}, "method": "free"}, "'erasing' would vary an image anew"),
    ({"attack.norm": "l2", "method": "dart"}, "L-inf ball"),
    ({"attack.norm": "l2", "attack.eps": 101.0}, "at most 100"),
    ({"evaluation.norm": "l2", "evaluation.eps": 0.0}, "at most 100"),
    ({"evaluation.norm": "l2", "attack.eps": 1.5}, "at most 1,"),
]


@pytest.mark.parametrize(("changes", "told"), FIELD_CASES)
def test_a_field_that_would_change_nothing_is_refused(changes, told):
    assert told in refusal(changes)


def test_euclidean_budgets_may_be_longer_than_a_pixel():
    config = get_recipe("digits").config
    changes = {"attack.norm": "l2", "attack.eps": 2.0, "reward.ref_eps": 2.0}
    check(changed(config, {**changes, "attack.grid": {"eps": (1.0, 2.0)}}), METHODS, LEARNERS)


@pytest.mark.parametrize(("grid", "told"), GRID_CASES)
@pytest.mark.parametrize("strategy", ["learned", "random"])
def test_a_grid_that_cannot_be_chosen_from_is_refused(grid, told, strategy):
    message = refusal({"attack.grid": grid, "strategy": strategy})
    assert message.startswith("--attack.grid: ")
    assert told in message


def test_a_fixed_strategy_needs_no_grid_and_may_keep_one():
    base = get_recipe("gtsrb-las-trades").config
    check(changed(base, {"strategy": "fixed", "attack.grid": {}}), METHODS, LEARNERS)
    check(changed(base, {"strategy": "fixed", "method": "pgd-at"}), METHODS, LEARNERS)


NAME_CASES = [
    ({"method": "pgdat"}, "--method: 'pgdat' is unknown; choose one of: adr, "),
    ({"learner": "ppo2"}, "--learner: 'ppo2' is unknown; choose one of: a2c, curriculum, exp3"),
    ({"dataset": "mnist"}, "--dataset: 'mnist' is unknown; choose one of: "),
    ({"dataset": "digits:x"}, "--dataset: 'digits:x' is unknown"),
    ({"dataset": ""}, "--dataset: '' is unknown"),
    ({"dataset": "npz:"}, "--dataset: 'npz:' names no file; write npz:PATH"),
    ({"dataset": "parquet"}, "--dataset: 'parquet' names no file; write parquet:PATH"),
]


@pytest.mark.parametrize(("changes", "told"), NAME_CASES)
def test_an_unknown_name_is_told_with_what_is_known(changes, told):
    assert refusal(changes).startswith(told)


@pytest.mark.parametrize("dataset", ["digits", "cifar10", "imagefolder:a/b", "parquet:x", "npz:C:/x.npz"])
def test_known_datasets_pass(dataset):
    check(changed(TrainConfig(), {"dataset": dataset, "strategy": "fixed"}))


def test_outside_code_is_let_through_by_its_spelling():
    check(
        changed(get_recipe("digits").config, {"learner": "my:Class", "method": "my:METHOD"}),
        METHODS,
        LEARNERS,
    )


def test_names_are_left_unchecked_without_a_list():
    check(changed(get_recipe("digits").config, {"learner": "?", "method": "?"}))


def test_the_learner_matters_only_where_one_learns():
    check(changed(get_recipe("digits").config, {"learner": "?", "strategy": "random"}), METHODS, LEARNERS)


HYDRA = {"method": "hydra", "init_from": "runs/a"}
FINE = {"eps": tuple(n / 100 for n in range(1, 66)), "num_steps": tuple(range(1, 65))}
BATCH = {"reward.credit": "batch", "policy.baseline": "running"}
COMBINATIONS = [
    ({"method": "clean"}, "--strategy: 'learned' has no attack to choose"),
    ({"method": "hat"}, "--teacher: None leaves --method hat nobody to learn from"),
    ({"teacher": "runs/a"}, "--teacher: 'runs/a' has no part in --method pgd-at"),
    ({"method": "kd-swa", "teacher": "runs/a"}, "--robust-teacher: None leaves --method kd-swa without"),
    ({"robust_teacher": "runs/a"}, "--robust-teacher: 'runs/a' has no part in --method pgd-at"),
    ({"loss.kd_robust": 0.95}, "--loss.kd-robust: 0.95 and --loss.kd-plain 0.1 leave the true label"),
    ({"optim.swa_start": 3.0, "optim.ema_decay": 0.9}, "--optim.swa-start: 3 and --optim.ema-decay 0.9 are"),
    ({"optim.restart_epochs": 3.0}, "--optim.restart-epochs: 3 has no effect with --optim.schedule cosine"),
    ({"optim.swa_start": 20.0}, "--optim.swa-start: 20 leaves no epoch to average; give 19 or less"),
    ({"teacher_model": "resnet18"}, "--teacher-model: 'resnet18' is trained by lbgat alone"),
    ({"data.cutmix": True, "method": "fat"}, "--data.cutmix: True mixes labels, but --method fat asks"),
    ({"data.mixup": 0.2, "method": "fat"}, "--data.mixup: 0.2 mixes labels, but --method fat asks"),
    ({"data.mixup": 0.2, "data.cutmix": True}, "--data.cutmix: True stands beside --data.mixup"),
    ({"data.mixup": 0.2, "strategy": "margin"}, "--data.mixup: 0.2 mixes labels, of which --strategy margin"),
    ({"data.cutmix": True, "attack.loss": "margin"}, "--data.cutmix: True mixes labels, which a margin"),
    (
        {**BATCH, "data.cutmix": True, "reward.mode": "reference", "reward.lookahead": "copy"},
        "--data.cutmix: True mixes labels, but --reward.mode reference counts",
    ),
    ({"method": "trades", "attack.start": "zero"}, "--attack.start: 'zero' never moves"),
    ({"method": "score", "attack.start": "zero"}, "--attack.start: 'zero' never moves"),
    ({"method": "trades", "attack.start_radius": 0.1}, "--attack.start-radius: 0.1 has no effect"),
    ({"method": "mart", "attack.grid": {"start_radius": (0.1,)}}, "--attack.grid: 'start_radius' has no"),
    ({"method": "hydra"}, "--init-from: None leaves --method hydra nothing to prune"),
    ({**HYDRA, "loss.awp_gamma": 0.01}, "--loss.awp-gamma: 0.01 would move weights that --method hydra"),
    ({**HYDRA, "reward.lookahead": "copy"}, "--reward.lookahead: 'copy' steps a copy that knows nothing"),
    ({**HYDRA, "loss.hydra_epochs": 20}, "--epochs: 20 leaves no epoch to fine-tune"),
    ({"method": "dart", "attack.loss": "kl"}, "--attack.loss: 'kl' has no convergence criterion"),
    ({"attack.loss": "kl", "attack.start": "zero"}, "--attack.start: 'zero' never moves"),
    ({"method": "fat-trades", "attack.start": "zero"}, "--attack.start: 'zero' never moves"),
    ({"method": "cat", "data.val_fraction": 0.0}, "--data.val-fraction: 0 leaves CAT no images"),
    ({"loss.gairat_schedule": "linear"}, "--loss.gairat-schedule: 'linear' comes down from"),
    ({"loss.awp_warmup": 30}, "--loss.awp-warmup: 30 leaves no epoch with perturbed weights"),
    ({"loss.fat_milestones": (3.0, 2.0)}, "--loss.fat-milestones: 3 2 does not increase"),
    ({"loss.gairat_milestones": (0.0,)}, "--loss.gairat-milestones: 0 does not increase"),
    ({"data.extra_fraction": 0.5}, "--data.extra-fraction: 0.5 has nothing to draw from"),
    ({"data.extra": "npz:x.npz"}, "--data.extra: 'npz:x.npz' is never used"),
    ({"dataset": "stream:x", "data.max_train": 9}, "--data.max-train: 9 cannot be chosen from a stream"),
    ({"dataset": "stream:x", "data.cutmix": True}, "--data.cutmix: True needs any two training images"),
    ({"data.stream_window": 9}, "--data.stream-window: 9 has no effect without --dataset stream:URL"),
    ({"data.extra": "x.npz", "data.extra_fraction": 0.5}, "--data.extra: 'x.npz' is not a source"),
    ({"data.extra": "npz:", "data.extra_fraction": 0.5}, "--data.extra: 'npz:' is not a source"),
    ({"attack.start": "zero", "attack.start_radius": 0.1}, "--attack.start-radius: 0.1 has no effect"),
    ({"reward.mode": "reference"}, "--reward.credit: 'image' does not go with"),
    ({**BATCH, "reward.standardize": True}, "--reward.standardize: True makes every reward 0"),
    ({"reward.credit": "batch", "policy.baseline": "mean"}, "--policy.baseline: 'mean' cancels"),
    ({**BATCH, "policy.baseline": "leave-one-out"}, "--policy.baseline: 'leave-one-out' cancels"),
    ({"reward.copy_weight_decay": 5e-4}, "--reward.copy-weight-decay: 0.0005 has no effect"),
    ({"reward.copy_label_smoothing": 0.3}, "--reward.copy-label-smoothing: 0.3 has no effect"),
    ({"policy.optimizer": "adam", "policy.momentum": 0.9}, "--policy.momentum: 0.9 has no effect"),
    ({"policy.entropy_final": 0.1}, "--policy.entropy-final: 0.1 has no effect"),
    (
        {"policy.entropy_schedule": "linear", "policy.entropy_weight": 0.0},
        "--policy.entropy-schedule: 'linear' has no weight to change",
    ),
    ({"policy.baseline": "greedy"}, "--policy.baseline: 'greedy' needs a second reward"),
    (
        {"policy.baseline": "greedy", "reward.lookahead": "copy", "reward.standardize": True},
        "--policy.baseline: 'greedy' compares rewards of two rehearsals",
    ),
    ({**BATCH, "policy.normalize_advantage": True}, "--policy.normalize-advantage: True makes every"),
    ({"learner": "exp3"}, "--policy.min-exploration: 0 leaves exp3 no gamma"),
    (
        {
            "learner": "ucb",
            "attack.grid": {"eps": tuple(n / 100 for n in range(1, 66)), "num_steps": tuple(range(1, 65))},
        },
        "--learner: 'ucb' would have to try each of 4160 joint strategies",
    ),
    (
        {"learner": "reinforce", "policy.clip": 0.1},
        "--policy.clip: 0.1 has no effect with --learner reinforce",
    ),
    (
        {"learner": "ppo", "policy.mirror_step": 0.3},
        "--policy.mirror-step: 0.3 has no effect with",
    ),
    (
        {"learner": "a2c", "policy.baseline": "mean"},
        "--policy.baseline: 'mean' has no effect with",
    ),
    ({"learner": "thompson", "policy.lr": 0.01}, "--policy.lr: 0.01 has no effect with --learner thompson"),
    (
        {"learner": "sb3:PPO", "policy.min_exploration": 0.1},
        "--policy.min-exploration: 0.1 has no effect with",
    ),
    ({"learner": "sb3:PPO", "precision": "fp64"}, "--precision: 'fp64' has no effect"),
    ({"optim.nesterov": True, "optim.momentum": 0.0}, "--optim.nesterov: True needs momentum"),
    ({"optim.nesterov": True, "optim.optimizer": "adamw"}, "--optim.nesterov: True has no effect with"),
    ({"optim.beta2": 0.99}, "--optim.beta2: 0.99 has no effect with --optim.optimizer sgd"),
    ({"optim.lr_factors": ("fc",)}, "--optim.lr-factors: 'fc' is no PATTERN=FACTOR"),
    ({"optim.lr_factors": ("fc=0",)}, "--optim.lr-factors: 'fc=0' is no PATTERN=FACTOR"),
    ({"optim.freeze": ("fc",), **HYDRA}, "--optim.freeze: fc does not go with --method hydra"),
    ({"new_head": True}, "--new-head: True has no effect without --init-from"),
    ({"data.image_size": 32}, "--data.image-size: 32 has no effect with --dataset digits"),
    ({"data.fit": "crop"}, "--data.fit: 'crop' has no effect without --data.image-size"),
    ({"data.std": (0.0,)}, "--data.std: 0"),
    ({"data.mean": ()}, "--data.mean: nothing is no number"),
    ({"strategy_model": "timm:resnet18@pretrained"}, "--strategy-model: 'timm:resnet18@pretrained' names"),
    (
        {"reward.check_every": 2, "optim.optimizer": "adamw"},
        "--reward.check-every: 2 compares credit with plain SGD steps",
    ),
    ({"optim.milestones": (3.0, 3.0)}, "--optim.milestones: 3 3 does not increase"),
    ({"optim.milestones": (4.0, 3.0)}, "--optim.milestones: 4 3 does not increase"),
    ({"optim.milestones": (0.0, 3.0)}, "--optim.milestones: 0 3 does not increase"),
    ({"optim.lr_decay": (0.1, 0.0)}, "--optim.lr-decay: 0 is out of range"),
    ({"optim.lr_decay": (0.1, 0.1, 0.5)}, "--optim.lr-decay: 0.1 0.1 0.5 are 3 factors for 2 milestones"),
    ({"optim.warmup_epochs": 30.0}, "--optim.warmup-epochs: 30 leaves no epoch after it"),
    ({"evaluation.test_num_steps": (10, 0)}, "--evaluation.test-num-steps: 0 is out of range"),
    ({"evaluation.test_num_steps": (10, 10)}, "--evaluation.test-num-steps: 10 stands twice"),
]


@pytest.mark.parametrize(("changes", "told"), COMBINATIONS)
def test_settings_that_do_not_go_together_are_refused(changes, told):
    message = refusal(changes)
    assert message.startswith(told)
    assert ";" in message
    assert "\n" not in message


@pytest.mark.parametrize("learner", [*LEARNERS, "sb3:PPO", "sb3:A2C"])
def test_every_learner_goes_with_every_recipes_own_settings(learner):
    """A recipe may hold settings that only some learners read; exp3 needs one that none has."""
    explored = {"policy.min_exploration": 0.1} if learner == "exp3" else {}
    for recipe in ("digits", "cifar10-cpu", "table1-cifar10-resnet18-las-at-k40"):
        check(changed(get_recipe(recipe).config, {"learner": learner, **explored}), METHODS, LEARNERS)


def test_the_list_of_what_learners_read_is_complete():
    assert {name for name in READS if not name.startswith("sb3:")} == set(LEARNERS)
    assert set().union(*READS.values()) == {field.name for field in dataclasses.fields(PolicyConfig)}


def test_the_reference_reward_can_be_asked_for():
    changes = {
        **PAPER,
        **BATCH,
        "reward.mode": "reference",
        "reward.lookahead": "copy",
        "reward.copy_weight_decay": 5e-4,
    }
    check(changed(get_recipe("digits").config, changes), METHODS, LEARNERS)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_what_the_table_of_traits_says(name):
    method = METHODS[name]
    for field in dataclasses.fields(MethodTraits):
        assert getattr(method, field.name) == getattr(TRAITS[name], field.name)
    assert (method.rule is not None) == (method.rule_reads != "nothing")
    assert set(METHODS) == set(TRAITS)
