"""What is tried or refused before a round is built."""

from __future__ import annotations

from operator import attrgetter

from torch import nn

from lasat_ray.config import TrainConfig
from lasat_ray.errors import UsageError, refusal
from lasat_ray.models import batch_norm_buffers, check_trainable
from lasat_ray.plugins import Plugin
from lasat_ray.recipes import RECIPES


def check_for_training(
    net: nn.Module,
    option: str,
    name: str,
    image_shape: tuple[int, int, int],
    config: TrainConfig,
    num_workers: int,
) -> None:
    """UserError where a net does not stand what training does with it; nets of ours are tried only where a
    worker has one image, of which BatchNorm makes no statistics. UsageError where there is no BatchNorm to
    synchronize."""
    synced = config.optim.sync_batch_norm
    if synced and not batch_norm_buffers(net):
        what = f"has nothing to do for {option} {name}, which has no BatchNorm"
        raise refusal("--optim.sync-batch-norm", "True", what, "leave it out")
    share = config.batch_size if synced else config.batch_size // num_workers
    if ":" in name or share == 1:
        check_trainable(net, image_shape, share, Plugin(option, name))


def check_replaced(config: TrainConfig, name: str, value: int | str, remedy: str) -> None:
    """UsageError where the env decides a setting, by its dotted name, that somebody chose otherwise; a
    recipe's own gives way."""
    find, known = attrgetter(name), RECIPES.get(config.recipe)
    asked = find(config)
    if asked not in (value, find(known.config) if known else value):
        raise UsageError(f"config.{name}: {asked} would be replaced by {value}; give {remedy}")
