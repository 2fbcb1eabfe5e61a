"""What is tried or refused before a round is built."""

from __future__ import annotations

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


def check_replaced(config: TrainConfig, name: str, value: int, remedy: str) -> None:
    """UsageError where the env decides a setting that somebody chose otherwise; a recipe's own gives way."""
    asked = getattr(config, name)
    known = RECIPES.get(config.recipe)
    if asked not in (value, getattr(known.config, name) if known else value):
        raise UsageError(f"config.{name}: {asked} would be replaced by {value}; give {remedy}")
