"""An attack of your own for the evaluation: the worst of 20 random corners of the ball, no gradients.

python -m lasat_ray.evaluate RUN --attacks clean pgd-10 examples.own_attack:random_corners
"""

import torch
from torch import Tensor, nn

from lasat_ray.attacks.ball import BALLS, per_image
from lasat_ray.attacks.objectives import cross_entropy
from lasat_ray.evaluation.spec import AttackSpec
from lasat_ray.rng import RandomKey
from lasat_ray.types import Batch


@torch.no_grad()
def random_corners(net: nn.Module, batch: Batch, spec: AttackSpec, seed: int, chunk: int) -> Tensor:
    """x_adv [B,C,H,W] of the largest cross-entropy; each image's draws depend on its row alone."""
    x, eps = batch.x, torch.full_like(batch.x[:, :1, :1, :1], spec.eps)
    worst, worst_loss = x.clone(), cross_entropy(net(x), batch.y)
    for n in range(20):
        u = RandomKey.of(seed, "corners", n).uniform(batch.index, tuple(x.shape[1:]), x.dtype)
        x_adv = x + BALLS[spec.norm].project((2 * u - 1).sign() * eps, x, eps)
        loss = cross_entropy(net(x_adv), batch.y)
        better = loss > worst_loss
        worst = torch.where(per_image(better, x), x_adv, worst)
        worst_loss = torch.where(better, loss, worst_loss)
    return worst
