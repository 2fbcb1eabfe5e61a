"""What the strategist sees of a round: the images, or what a rival that is no net looks at instead."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lasat_ray.config import TrainConfig
from lasat_ray.models import frozen_eval
from lasat_ray.process_group import ProcessGroup
from lasat_ray.types import Batch


def observed(
    config: TrainConfig, batch: Batch, net: nn.Module, num_classes: int, group: ProcessGroup
) -> Tensor:
    """What a learner's ``act`` and ``update`` are given for a batch of images [B,C,H,W].

    The images themselves; for ``class-wise`` their labels, one-hot [B,N,1,1]; for ``margin`` the place
    of each image's margin among those of the global batch, from 0 (smallest) up to below 1, [B,1,1,1].
    The last costs a forward pass of the target ``net`` an image, and is collective over ``group``.
    """
    if config.strategy == "class-wise":
        classes = torch.arange(num_classes, device=batch.y.device)
        own_BN = batch.y[:, None] == classes  # one_hot would make the host wait for the GPU
        return own_BN.to(batch.x.dtype)[:, :, None, None]
    if config.strategy == "margin":
        return _place(margins(net, batch), batch.global_size, group).to(batch.x.dtype)[:, None, None, None]
    return batch.x


def observation_shape(
    config: TrainConfig, image_shape: tuple[int, int, int], num_classes: int
) -> tuple[int, int, int]:
    """The shape of what is observed of one image."""
    shapes = {"class-wise": (num_classes, 1, 1), "margin": (1, 1, 1)}
    return shapes.get(config.strategy, image_shape)


@torch.no_grad()
def margins(net: nn.Module, batch: Batch) -> Tensor:
    """The probabilistic margin of each clean image, p(y) - max over the other classes of p, from -1 to 1; [B]
    (PM of the natural data in Wang et al. 2021, Probabilistic margins for instance reweighting)."""
    with frozen_eval(net):
        p = net(batch.x).softmax(1)
    own = p.gather(1, batch.y[:, None])[:, 0]
    return own - p.scatter(1, batch.y[:, None], -1.0).amax(1)


def _place(value_B: Tensor, global_size: int, group: ProcessGroup) -> Tensor:
    """The share of the global batch that lies below each of this worker's values [B] (equal ones count in
    their order); [B] float64."""
    whole = group.gather(value_B, global_size)
    place = torch.empty(len(whole), dtype=torch.float64, device=whole.device)
    order = whole.argsort(stable=True)
    place[order] = torch.arange(len(whole), dtype=torch.float64, device=whole.device) / len(whole)
    first, end = group.shard_bounds(global_size)
    return place[first:end] if len(whole) > len(value_B) else place
