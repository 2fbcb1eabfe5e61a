"""Builds the game from a configuration: for the trainer, and for ``gymnasium.make``."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import torch
from torch import nn

from lasat_ray.config import DataConfig, TrainConfig, grid_of
from lasat_ray.config.json_io import flag
from lasat_ray.cost import relative_costs
from lasat_ray.data import (
    Batches,
    Images,
    OutcomeBatches,
    Prefetcher,
    Reading,
    ReadOptions,
    TrainingImages,
    load_dataset,
    load_extra,
    split_outcome,
    thread_prefetch,
)
from lasat_ray.data.classes import Classes, check_same, classes_of_names
from lasat_ray.env.attack_strategy import AttackStrategyVectorEnv
from lasat_ray.env.observation import observation_shape
from lasat_ray.env.one_image import AttackStrategyEnv
from lasat_ray.env.trial import check_for_training, check_replaced
from lasat_ray.errors import UsageError
from lasat_ray.learners import Learner, LearnerContext, seeded_learner
from lasat_ray.methods import find_method
from lasat_ray.models import FrozenNet, FrozenNets, build_classifier
from lasat_ray.process_group import ProcessGroup, indexed
from lasat_ray.recipes import get_recipe
from lasat_ray.rng import RandomKey
from lasat_ray.runs.load import fill, load_checkpointed
from lasat_ray.strategy import StrategySpace
from lasat_ray.update.target_step import TargetStep


def read_options(data: DataConfig) -> ReadOptions:
    """The settings that say how files are read."""
    return ReadOptions(
        image_column=data.image_column, label_column=data.label_column, background=data.background
    )


def dtype_of(config: TrainConfig) -> torch.dtype:
    """The dtype of images and weights; bf16 concerns the forward passes alone."""
    return torch.float64 if config.precision == "fp64" else torch.float32


def build_target_net(
    config: TrainConfig,
    num_classes: int,
    image_shape: tuple[int, int, int],
    classes: Classes | None = None,
    num_workers: int = 1,
) -> nn.Module:
    """The target net with its first weights: those of --init-from, else decided by the seed alone.

    ``classes`` of the training images: UserError where the net of --init-from tells others apart, or the net
    does not stand training on ``num_workers``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RandomKey.of(config.seed, "target init").low)
        net = build_classifier(
            config.model,
            num_classes=num_classes,
            image_shape=image_shape,
            precision=config.precision,
            field="--model",
            channels_last=config.speed.channels_last,
        )
    check_for_training(net, "--model", config.model, image_shape, config, num_workers)
    if config.init_from is not None:
        known, card = load_checkpointed(config.init_from)
        _check_card("--init-from", config.init_from, card, classes)
        fill(net, known.state_dict(), config.init_from)
    return net


def _check_card(option: str, path: str, card: dict[str, Any], classes: Classes | None) -> None:
    """UserError where a net from elsewhere numbers other classes than the training images do."""
    if classes is None:
        return
    theirs = classes_of_names(card.get("class_names", ()), card["num_classes"])
    remedy = "name a net that was trained on the same classes"
    check_same(theirs, classes, f"{option}: '{path}'", "the training images", remedy=remedy)


def build_companion(
    config: TrainConfig,
    num_classes: int,
    image_shape: tuple[int, int, int],
    classes: Classes | None = None,
) -> nn.Module | None:
    """The method's second net: fresh from the seed where it is trained, else read from --teacher; None where
    it follows the target."""
    kind = find_method(config.method).companion
    if kind in ("none", "average"):
        return None
    if kind == "frozen":
        teacher = frozen_teacher(config, num_classes, image_shape, classes)
        if find_method(config.method).companions == 1:
            return teacher
        second = frozen_teacher(config, num_classes, image_shape, classes, "robust_teacher")
        return FrozenNets([teacher, second])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RandomKey.of(config.seed, "companion init").low)
        return build_classifier(
            config.teacher_model or config.model,
            num_classes=num_classes,
            image_shape=image_shape,
            precision=config.precision,
            field="--teacher-model",
            channels_last=config.speed.channels_last,
        )


def frozen_teacher(
    config: TrainConfig,
    num_classes: int,
    image_shape: tuple[int, int, int],
    classes: Classes | None = None,
    field: str = "teacher",
) -> nn.Module:
    """The net of --teacher (or another ``field``), frozen for good; UsageError where none is named or it is
    of other images, UserError where its file is missing or damaged, or it numbers other ``classes``."""
    path, option = getattr(config, field), flag(field)
    if path is None:
        raise UsageError(f"{option}: --method {config.method} learns from a net; name its run folder")
    net, card = load_checkpointed(path)
    theirs, ours = (card["num_classes"], tuple(card["image_shape"])), (num_classes, tuple(image_shape))
    if theirs != ours:
        told = f"'{path}' tells {theirs[0]} classes of {theirs[1]} images apart, not {ours[0]} of"
        raise UsageError(f"{option}: {told} {ours[1]}; name a net of this data set")
    _check_card(option, path, card, classes)
    return FrozenNet(net.to(dtype_of(config)))


def build_game(
    config: TrainConfig,
    images: TrainingImages,
    num_classes: int,
    *,
    group: ProcessGroup,
    device: torch.device,
    train_target: bool = True,
    prefetch: Prefetcher = thread_prefetch,
    outcome_images: Images | None = None,
    classes: Classes | None = None,
) -> AttackStrategyVectorEnv:
    """The env that the trainer steps, on this worker's share of every batch.

    ``outcome_images``: what was held out for the reward by ``split_outcome``; where the settings ask for
    such images and none are given, they are split off here. ``classes`` of the images: what nets and extra
    images from elsewhere are compared with.
    """
    if holds_out(config) and outcome_images is None:
        fraction, at_least = config.reward.outcome_fraction, config.reward.outcome_images
        images, outcome_images = split_outcome(images, fraction, at_least, config.seed)
    shape, device, options = images.image_shape, indexed(device), read_options(config.data)
    extra = None
    if config.data.extra:
        extra = load_extra(config.data.extra, shape, classes or num_classes, options)
    make_batches = partial(_make_batches, config, images, extra, group, device, prefetch)
    net = build_target_net(config, num_classes, shape, classes, group.size).to(device)
    rounds_per_epoch = make_batches(config.seed).rounds_per_epoch
    companion = build_companion(config, num_classes, shape, classes)
    target = TargetStep(
        net, config, group, rounds_per_epoch, companion.to(device) if companion is not None else None
    )
    space = StrategySpace.of(grid_of(config), device=device, dtype=dtype_of(config))
    outcome = None
    if outcome_images is not None:
        outcome = OutcomeBatches(
            outcome_images,
            config.reward.outcome_images,
            group=group,
            device=device,
            dtype=dtype_of(config),
        )
    return AttackStrategyVectorEnv(
        target,
        make_batches,
        space,
        config,
        num_classes=num_classes,
        train_target=train_target,
        outcome=outcome,
    )


def holds_out(config: TrainConfig) -> bool:
    """Whether a run sets training images aside to measure the reward on."""
    return config.learns and config.reward.outcome == "heldout"


def build_round(
    config: TrainConfig,
    images: TrainingImages,
    num_classes: int,
    *,
    group: ProcessGroup,
    device: torch.device,
    prefetch: Prefetcher = thread_prefetch,
    outcome_images: Images | None = None,
    classes: Classes | None = None,
) -> tuple[AttackStrategyVectorEnv, Learner]:
    """The two sides of ``training.round.play_round``: the env, and the learner that acts in it."""
    device = indexed(device)
    env = build_game(
        config,
        images,
        num_classes,
        group=group,
        device=device,
        prefetch=prefetch,
        outcome_images=outcome_images,
        classes=classes,
    )
    context = LearnerContext(
        space=env.space,
        image_shape=observation_shape(config, images.image_shape, num_classes),
        config=config,
        group=group,
        device=device,
        total_rounds=config.epochs * env.target.rounds_per_epoch,
        progress=lambda: env.target.progress,
        step_costs=relative_costs(config, grid_of(config)["num_steps"]),
    )
    return env, seeded_learner(context)


def _make_batches(
    config: TrainConfig,
    images: TrainingImages,
    extra: TrainingImages | None,
    group: ProcessGroup,
    device: torch.device,
    prefetch: Prefetcher,
    seed: int,
) -> Batches:
    return Batches(
        images,
        batch_size=config.batch_size,
        seed=seed,
        group=group,
        device=device,
        dtype=dtype_of(config),
        augment=config.data,
        extra=extra,
        extra_fraction=config.data.extra_fraction,
        reading=Reading(config.data.stream_window, config.data.stream_lanes, prefetch),
    )


def make_vector_env(
    num_envs: int = 32,
    recipe: str = "digits",
    seed: int | None = None,
    train_target: bool = False,
    config: TrainConfig | None = None,
    device: str | torch.device = "cpu",
) -> AttackStrategyVectorEnv:
    """Entry point of ``gymnasium.make_vec``: torch tensors on ``device``, ``num_envs`` images a step.

    The target net starts from its first weights and, with ``train_target``, learns as the game is
    played; without, each reward looks ahead on a copy. ``config`` replaces the recipe's; its seed and its
    precision hold, unless ``seed`` is given. Whoever steps the env is the strategist and is paid for every
    step, so that UsageError tells of a batch size or an update interval that somebody set otherwise. A single
    image has no batch to be compared with, and is paid its own terms, not standardized.
    """
    base = config or get_recipe(recipe).config
    if config is not None:
        check_replaced(config, "batch_size", num_envs, f"num_envs={config.batch_size}")
        check_replaced(config, "update_interval", 1, "update_interval=1: every step is paid")
    seed = base.seed if seed is None else seed
    reward = base.reward if train_target else dataclasses.replace(base.reward, lookahead="copy")
    if num_envs == 1 and reward.standardize:
        reward = dataclasses.replace(reward, credit="image", standardize=False)
    base = dataclasses.replace(base, strategy="learned", update_interval=1, reward=reward)
    base = dataclasses.replace(base, seed=seed, batch_size=num_envs)
    data = base.data
    dataset = load_dataset(
        base.dataset,
        root=data.root,
        max_train=data.max_train,
        max_test=data.max_test,
        seed=seed,
        options=read_options(data),
    )
    return build_game(
        base,
        dataset.train,
        dataset.num_classes,
        group=ProcessGroup(),
        device=torch.device(device),
        train_target=train_target,
        classes=dataset.classes,
    )


def make_env(
    recipe: str = "digits",
    seed: int | None = None,
    train_target: bool = False,
    config: TrainConfig | None = None,
    device: str | torch.device = "cpu",
) -> AttackStrategyEnv:
    """Entry point of ``gymnasium.make``: NumPy, one image an episode whatever the config's batch size."""
    if config is not None:
        config = dataclasses.replace(config, batch_size=1)
    core = make_vector_env(1, recipe, seed, train_target, config, device)
    return AttackStrategyEnv(core)
