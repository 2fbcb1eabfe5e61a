"""One update of the target net on adversarial images: forward, loss, gradients over workers, step."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor, nn

from lasat_ray.config import LossConfig, TrainConfig
from lasat_ray.methods import Method, find_method
from lasat_ray.models import batch_norm_buffers
from lasat_ray.optim import WeightAverage, learning_rate, make_optimizer
from lasat_ray.types import Batch, Logits, StepReport, Strategy
from lasat_ray.world import World, gradients


class TargetStep:
    """The target net with everything that moves it. ``net`` is the one object that learns."""

    def __init__(self, net: nn.Module, config: TrainConfig, world: World, rounds_per_epoch: int):
        self.net = net
        self.config = config
        self.world = world
        self.rounds_per_epoch = rounds_per_epoch
        self.method: Method = find_method(config.method)
        # The reward's L1 is the method's loss itself: smoothing is a habit of training, not of the paper.
        self.unsmoothed = dataclasses.replace(config.loss, label_smoothing=0.0)
        world.share(net)
        self.optimizer = make_optimizer(net, config.optim)
        decay = config.optim.ema_decay
        self.average = WeightAverage(net, decay) if decay else None

    def rate(self, round: int) -> float:
        """The learning rate of a round."""
        return learning_rate(self.config.optim, round / self.rounds_per_epoch, self.config.epochs)

    def __call__(self, batch: Batch, x_adv: Tensor, strategy: Strategy, round: int) -> StepReport:
        """Minimize the method's mean loss over the global batch by one optimizer step."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(round)
        self.net.train()
        logits = forward(self.net, self.method, batch.x, x_adv)
        loss_B = self.method.loss(logits, batch.y, strategy, self.config.loss)
        grad_norm = self._descend(loss_B, batch.global_size)
        with torch.no_grad():
            l1 = self.method.loss(logits.detach(), batch.y, strategy, self.unsmoothed)
            correct = logits.adv.argmax(1) == batch.y
        return StepReport(l1=l1, loss=loss_B.detach(), grad_norm=grad_norm, adv_correct=correct)

    def attack_strength(self, batch: Batch, x_adv: Tensor, strategy: Strategy) -> tuple[Tensor, Tensor]:
        """L1 [B] and correctness [B] in eval mode, without touching the net (lookahead on a copy)."""
        was_training = self.net.training
        self.net.eval()
        with torch.no_grad():
            logits = forward(self.net, self.method, batch.x, x_adv)
            l1 = self.method.loss(logits, batch.y, strategy, self.unsmoothed)
        self.net.train(was_training)
        return l1, logits.adv.argmax(1) == batch.y

    def stepped_copy(self, batch: Batch, x_adv: Tensor, strategy: Strategy, round: int) -> nn.Module:
        """A copy of the net after one plain SGD step on this batch (LAS-AT, eq. 9; no momentum)."""
        reward = self.config.reward
        settings = dataclasses.replace(self.config.loss, label_smoothing=reward.copy_label_smoothing)
        return plain_step(
            copy.deepcopy(self.net),
            self.method,
            batch,
            x_adv,
            strategy,
            settings,
            lr=self.rate(round),
            weight_decay=reward.copy_weight_decay,
            world=self.world,
        )

    def _descend(self, loss_B: Tensor, global_size: int) -> Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        _backward(self.net, loss_B, global_size, self.world)
        parameters = list(self.net.parameters())
        grad_norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if self.config.optim.grad_clip:
            nn.utils.clip_grads_with_norm_(parameters, self.config.optim.grad_clip, grad_norm)
        self.optimizer.step()
        if self.average:
            self.average.update(self.net)
        return grad_norm


def forward(net: Callable[[Tensor], Tensor], method: Method, x: Tensor, x_adv: Tensor) -> Logits:
    """The forward passes a method's loss reads; clean and adversarial images pass separately, so
    that BatchNorm sees each kind by itself, as the published code of TRADES does."""
    clean = net(x) if method.needs_clean else None
    return Logits(adv=net(x_adv), clean=clean)


def plain_step(
    net: nn.Module,
    method: Method,
    batch: Batch,
    x_adv: Tensor,
    strategy: Strategy,
    settings: LossConfig,
    *,
    lr: float,
    weight_decay: float,
    world: World,
) -> nn.Module:
    """w <- w - lr (grad of the mean loss + weight_decay w), in train mode; returns the same net."""
    net.train().zero_grad(set_to_none=True)
    loss_B = method.loss(forward(net, method, batch.x, x_adv), batch.y, strategy, settings)
    _backward(net, loss_B, batch.global_size, world)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.grad is None:
                continue  # frozen by its maker
            parameter.sub_(parameter.grad + weight_decay * parameter, alpha=lr)
    return net


def _backward(net: nn.Module, loss_B: Tensor, global_size: int, world: World) -> None:
    """Gradients of the mean over the *global* batch, and BatchNorm statistics averaged over workers."""
    (loss_B.sum() / global_size).backward()
    buffers = batch_norm_buffers(net)
    if world.size > 1:
        for buffer in buffers:
            # Each rank saw its own shard; equal statistics keep the attack in eval mode equal everywhere.
            buffer.mul_(len(loss_B) / global_size)
    world.sum_in_place(gradients(net.parameters()) + buffers)
