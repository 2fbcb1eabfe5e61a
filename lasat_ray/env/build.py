"""Builds the game from a configuration: for the trainer, and for ``gymnasium.make``."""

from __future__ import annotations

import dataclasses
from functools import partial

import torch

from lasat_ray.config import DataConfig, TrainConfig, grid_of
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
from lasat_ray.data.classes import Classes
from lasat_ray.env.attack_strategy import AttackStrategyVectorEnv
from lasat_ray.env.nets import build_companion, build_target_net, dtype_of
from lasat_ray.env.observation import observation_shape
from lasat_ray.env.one_image import AttackStrategyEnv
from lasat_ray.env.trial import check_replaced
from lasat_ray.learners import Learner, LearnerContext, seeded_learner
from lasat_ray.process_group import ProcessGroup, indexed
from lasat_ray.recipes import get_recipe
from lasat_ray.strategy import StrategySpace
from lasat_ray.update.cost import relative_costs
from lasat_ray.update.target_step import TargetStep
from lasat_ray.validation.method import check_restarts


def read_options(data: DataConfig) -> ReadOptions:
    """The settings that say how files are read."""
    return ReadOptions(
        image_column=data.image_column,
        label_column=data.label_column,
        background=data.background,
        image_size=data.image_size,
        fit=data.fit,
    )


def build_game(
    config: TrainConfig,
    images: TrainingImages,
    num_classes: int,
    *,
    group: ProcessGroup,
    device: torch.device,
    train_target: bool = True,
    raw_reward: bool = False,
    prefetch: Prefetcher = thread_prefetch,
    outcome_images: Images | None = None,
    classes: Classes | None = None,
    begins: bool = True,
    trust: bool = False,
) -> AttackStrategyVectorEnv:
    """The env that the trainer steps, on this worker's share of every batch.

    ``outcome_images``: what was held out for the reward by ``split_outcome``; where the settings ask for
    such images and none are given, they are split off here. ``classes`` of the images: what nets and extra
    images from elsewhere are compared with. ``begins``: False where a checkpoint will be loaded, so that
    first weights are not looked for. ``trust``: teachers may be code that the user named nowhere.
    """
    if holds_out(config) and outcome_images is None:
        fraction, at_least = config.reward.outcome_fraction, config.reward.outcome_images
        images, outcome_images = split_outcome(images, fraction, at_least, config.seed)
    shape, device, options = images.image_shape, indexed(device), read_options(config.data)
    extra = None
    if config.data.extra:
        extra = load_extra(config.data.extra, shape, classes or num_classes, options)
    make_batches = partial(_make_batches, config, images, extra, group, device, prefetch)
    classes = classes or Classes.numbered(num_classes)
    net, notes = build_target_net(config, classes, shape, group.size, images if begins else None)
    net = net.to(device)
    rounds_per_epoch = make_batches(config.seed).rounds_per_epoch
    companion = build_companion(config, classes, shape, trust)
    target = TargetStep(
        net, config, group, rounds_per_epoch, companion.to(device) if companion is not None else None
    )
    ours = target.method
    check_restarts(config, ruled=ours.rule is not None or ours.adversary is not None)
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
        raw_reward=raw_reward,
        outcome=outcome,
        notes=notes,
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
    begins: bool = True,
    trust: bool = False,
) -> tuple[AttackStrategyVectorEnv, Learner]:
    """The two sides of ``training.round.play_round``: the env, made by ``build_game``, and the learner."""
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
        begins=begins,
        trust=trust,
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
    raw_reward: bool = False,
) -> AttackStrategyVectorEnv:
    """Entry point of ``gymnasium.make_vec``: torch tensors on ``device``, ``num_envs`` images a step.

    The target net starts from its first weights and, with ``train_target``, learns as the game is
    played; without, each reward looks ahead on a copy. ``config`` replaces the recipe's; its seed and its
    precision hold, unless ``seed`` is given. Whoever steps the env is the strategist and is paid for every
    step, so that UsageError tells of a batch size, an update interval, a strategy or a lookahead that
    somebody set otherwise. A single
    image has no batch to be compared with, and is paid its own terms, not standardized. ``raw_reward``: nor
    are those of any batch, so that a curve of mean returns tells whether a policy improves.
    """
    base = config or get_recipe(recipe).config
    if config is not None:
        check_replaced(config, "batch_size", num_envs, f"num_envs={config.batch_size}")
        check_replaced(config, "update_interval", 1, "update_interval=1: every step is paid")
        check_replaced(config, "strategy", "learned", "strategy='learned': you choose, by the images")
        if not train_target:
            remedy = "reward.lookahead='copy', or train_target=True"
            check_replaced(config, "reward.lookahead", "copy", remedy)
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
        raw_reward=raw_reward,
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
