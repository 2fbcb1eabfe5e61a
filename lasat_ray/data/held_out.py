"""Images that no update ever sees: what an update is worth is measured on them."""

from __future__ import annotations

import torch

from lasat_ray.data.images import Images, TrainingImages
from lasat_ray.errors import UsageError
from lasat_ray.process_group import ProcessGroup, to_device
from lasat_ray.rng import RandomKey
from lasat_ray.types import Batch

_FIRST_INDEX = 1 << 40
"""Where the rows of held-out images begin: none shares its random numbers with a training image."""


def split_outcome(
    images: TrainingImages, fraction: float, at_least: int, seed: int
) -> tuple[TrainingImages, Images]:
    """(what is trained on, the held-out images): ``fraction`` of them, chosen by the seed, or ``at_least``
    so many, which a small set has to give up so that a rewarded round finds its images.

    UsageError where too few would be left to train on.
    """
    share = round(len(images) * fraction)
    if share >= len(images):
        raise UsageError(
            f"--reward.outcome-fraction: {fraction:g} of {len(images)} images leaves none to train on; "
            "lower it"
        )
    if at_least > max(share, len(images) // 2):
        raise UsageError(
            f"--reward.outcome-images: {at_least} is more than half of the {len(images)} training images; "
            f"lower it to {max(1, len(images) // 2)} or less"
        )
    return images.hold_out(max(share, at_least), seed, "outcome")


class OutcomeBatches:
    """``per_round`` held-out images a rewarded round, this worker's share of them, never varied.

    ``images`` are at least ``per_round``. UsageError where ``per_round`` is less than there are workers.
    """

    def __init__(
        self,
        images: Images,
        per_round: int,
        *,
        group: ProcessGroup,
        device: torch.device,
        dtype: torch.dtype,
    ):
        if per_round < group.size:
            raise UsageError(
                f"--reward.outcome-images: {per_round} images cannot feed {group.size} workers; "
                f"give {group.size} or more"
            )
        self.images, self.per_round, self.group = images, per_round, group
        self.device, self.dtype = device, dtype

    def batch(self, seed: int, round: int) -> Batch:
        """This worker's images of a round: ``x`` [H,C,H,W] in [0,1], ``global_size`` ``per_round``."""
        order = RandomKey.of(seed, "outcome", round).permutation(len(self.images))[: self.per_round]
        first, end = self.group.shard_bounds(self.per_round)
        rows = order[first:end]
        mine = self.images.take(rows)
        x, y, index = (to_device(part, self.device) for part in (mine.x, mine.y, rows + _FIRST_INDEX))
        return Batch(x=x.to(self.dtype) / 255, y=y, index=index, global_size=self.per_round)
