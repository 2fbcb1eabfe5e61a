"""One update of the target net on adversarial images: forward, loss, gradients over workers, step."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from lasat_ray.config import TrainConfig
from lasat_ray.methods import Method, find_method
from lasat_ray.methods.awp import WeightPerturbation, awp_perturbation, perturbed
from lasat_ray.methods.hydra import Pruning, search_epochs, stage_of
from lasat_ray.models import Classifier, FollowingNet, begin_step, compiled, eval_mode
from lasat_ray.models.patterns import lr_factors
from lasat_ray.models.synced import SyncedBatchNorm
from lasat_ray.process_group import ProcessGroup
from lasat_ray.types import AttackedBatch, StepReport
from lasat_ray.update.optim import average_of, learning_rate, make_optimizer, set_rate, step_size
from lasat_ray.update.task import Net, Task, backward, forward, plain_step


class TargetStep:
    """The target net with everything that moves it. ``net`` is the one object that learns, and
    with it ``companion`` where the method trains one, or has one follow; ``strength`` is the curriculum's
    state, ``memory`` what the method keeps beside nets."""

    def __init__(
        self,
        net: nn.Module,
        config: TrainConfig,
        group: ProcessGroup,
        rounds_per_epoch: int,
        companion: nn.Module | None = None,
    ):
        self.net = net
        self.config = config
        self.group = group
        self.rounds_per_epoch = rounds_per_epoch
        self.method: Method = find_method(config.method)
        self.companion = companion
        self.memory = self.method.memory(config.loss) if self.method.memory else None
        self.strength = 0
        self.rate_factor = 1.0
        """Every rollback after a nan makes it smaller."""
        self.progress: float | None = None
        """Share in [0,1) of the run's budget that schedules go by; None: they go by rounds."""
        # Label smoothing belongs to training alone: the reward's L1 is the method's loss without it.
        self.unsmoothed = dataclasses.replace(config.loss, label_smoothing=0.0)
        self.trained: nn.Module = net
        if companion is not None:
            group.broadcast_from_first(companion)
            if self.method.companion == "trained":
                self.trained = nn.ModuleList([net, companion])
        group.broadcast_from_first(net)
        if self.method.companion == "average":
            self.companion = FollowingNet(net)
        self.pruning = Pruning(net, config.loss.hydra_keep) if self.method.prunes else None
        if self.pruning:
            self.trained = nn.ModuleList([net, self.pruning])
        factors = self._by_layer()
        self.optimizer = make_optimizer(self.trained, config.optim, factors)
        self._scaled = bool(factors) or config.optim.optimizer != "sgd"
        self.average = average_of(net, config.optim)
        self._compiled: Net | None = None

    def _by_layer(self) -> dict[int, float]:
        """What --optim.lr-factors asks of which parameters, by ``id``."""
        if not self.config.optim.lr_factors:
            return {}
        assert isinstance(self.net, Classifier)
        return lr_factors(self.net, self.config.optim.lr_factors, option="--optim.lr-factors")

    @property
    def passes(self) -> Net:
        """The net for training passes, compiled where the settings ask for it."""
        if self.config.speed.compile in ("none", "graph"):
            return self.net
        if self._compiled is None:
            self._compiled = compiled(self.net, self.config.speed)
        return self._compiled

    def rate(self, round: int) -> float:
        """The learning rate of a round."""
        epochs, factor = self.config.epochs, 1.0
        epoch = round / self.rounds_per_epoch if self.progress is None else self.progress * epochs
        if self.pruning:
            epoch, epochs, factor = stage_of(self.config.loss, epoch, epochs)
        return self.rate_factor * factor * learning_rate(self.config.optim, epoch, epochs)

    def epoch(self, round: int) -> int:
        """The epoch that a round belongs to by the schedules, counted from 0."""
        if self.progress is not None:
            return int(self.progress * self.config.epochs)
        return round // self.rounds_per_epoch

    def share(self, round: int) -> float:
        """The share in [0,1) of the run that is over at a round."""
        total = self.rounds_per_epoch * self.config.epochs
        return round / total if self.progress is None else self.progress

    def _averages(self, round: int) -> bool:
        """Whether the net after a round goes into the weight average."""
        start = self.config.optim.swa_start
        closes = (round + 1) % self.rounds_per_epoch == 0
        return start is None or (closes and self.epoch(round) >= start)

    def _searches(self, round: int) -> bool:
        """Whether a round of HYDRA still learns which weights to keep."""
        return self.epoch(round) < search_epochs(self.config.loss, self.config.epochs)

    def reach(self, direction: dict[str, Tensor]) -> dict[str, Tensor]:
        """The part of a direction in weight space (by parameter name, any shape) that updates can take, and
        how far they go along it, up to a common factor."""
        if self._scaled:
            named = dict(self.net.named_parameters())
            direction = {name: d * step_size(self.optimizer, named[name]) for name, d in direction.items()}
        return self.pruning.reach(direction) if self.pruning else direction

    def awp_gamma(self, round: int) -> float:
        """Relative size of the weight perturbation in a round; 0 before its warm-up is over."""
        settings = self.config.loss
        if self.epoch(round) < settings.awp_warmup:
            return 0.0
        return self.method.awp_gamma if settings.awp_gamma is None else settings.awp_gamma

    def synced(self) -> AbstractContextManager[Any]:
        """What training passes are made in: BatchNorm over all workers where the settings ask for it."""
        together = self.config.optim.sync_batch_norm and self.group.size > 1
        return SyncedBatchNorm(self.group) if together else contextlib.nullcontext()

    @property
    def deployed(self) -> nn.Module:
        """The net that is evaluated and kept: the weight average where there is one by now."""
        return self.average.net if self.average and self.average.started else self.net

    def remembered(self, round: int) -> dict[str, Tensor]:
        """What the method's memory tells losses and attacks of a round, by name; of any shape."""
        return self.memory.tensors(self.epoch(round)) if self.memory else {}

    def task(self, attacked: AttackedBatch) -> Task:
        """The method's loss on what was attacked."""
        return Task(
            method=self.method,
            attacked=attacked,
            epoch=self.epoch(attacked.round),
            epochs=self.config.epochs,
            companion=self.beside(attacked.round),
            memory=self.remembered(attacked.round),
        )

    def beside(self, round: int) -> nn.Module | None:
        """The second net that the loss of a round is shown beside the target; None where an average is still
        the target itself."""
        waits = self.method.companion == "average" and self.method.companion_sees != "before"
        return None if waits and not self._decay(round) else self.companion

    def _decay(self, round: int) -> float:
        return self.method.follow(self.config.loss, self.epoch(round), self.config.epochs)

    def __call__(self, attacked: AttackedBatch) -> StepReport:
        """Minimize the method's mean loss over the global batch by one optimizer step (LAS-AT, eq. 9)."""
        batch, round = attacked.batch, attacked.round
        set_rate(self.optimizer, self.rate(round))
        task = self.task(attacked)
        self.trained.train()
        if self.pruning:
            self.pruning.searching = self._searches(round)
        begin_step(self.config.speed)
        perturbation, l1 = self._weight_perturbation(task, self.net)
        if self.method.reuses:
            # A leaf of its own: perturbing the weights leaves no gradient in it.
            tracked = attacked.x_adv.detach().requires_grad_(True)
            attacked = dataclasses.replace(attacked, x_adv=tracked)
        with self.synced(), perturbed(self.net, perturbation):
            logits = forward(self.passes, self.method, attacked, task.companion)
            loss_B = task.loss(logits, self.config.loss)
            grad_norm = self._descend(loss_B, batch.global_size)
        if self.average and self._averages(round):
            self.average.update(self.net)
            if self.pruning:
                self.pruning.sparsify(self.average.net)
        if isinstance(self.companion, FollowingNet):
            self.companion.follow(self.net, self._decay(round))
        if self.memory:
            self.memory.learn(batch, logits.detach(), self.group)
            if (remember := getattr(self.memory, "remember", None)) is not None:
                remember(attacked, attacked.x_adv.grad, self.group)
        with torch.no_grad():
            if l1 is None:
                l1 = task.unsmoothed().loss(logits.detach(), self.unsmoothed)
            correct = logits.adv.argmax(1) == batch.y
            # amax passes nan on, so one number per image tells of all its logits.
            size = torch.stack([value.abs().flatten(1).amax(1) for _, value in logits.items()]).amax(0)
        return StepReport(
            l1=l1, loss=loss_B.detach(), grad_norm=grad_norm, adv_correct=correct, max_logit=size
        )

    def attack_strength(self, attacked: AttackedBatch) -> tuple[Tensor, Tensor]:
        """L1 [B] and correctness [B] of x_adv in eval mode, without touching the net (for lookahead copy)."""
        task = self.task(attacked)
        with torch.no_grad(), eval_mode(self.net, self.companion):
            logits = forward(self.net, self.method, attacked, task.companion)
            l1 = task.unsmoothed().loss(logits, self.unsmoothed)
        return l1, logits.adv.argmax(1) == attacked.batch.y

    def stepped_copy(self, attacked: AttackedBatch) -> nn.Module:
        """A copy of the net after one plain SGD step on x_adv (LAS-AT, eq. 9; no momentum).

        With weight perturbation the step is taken at perturbed weights, as LAS-AWP does."""
        reward = self.config.reward
        settings = dataclasses.replace(self.config.loss, label_smoothing=reward.copy_label_smoothing)
        task = self.task(attacked)
        copied = copy.deepcopy(self.net).train()
        with eval_mode(self.companion):
            perturbation, _ = self._weight_perturbation(task, copied)
            with self.synced(), perturbed(copied, perturbation):
                return plain_step(
                    copied,
                    task,
                    settings,
                    lr=self.rate(attacked.round),
                    weight_decay=reward.copy_weight_decay,
                    group=self.group,
                )

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs of the target's side."""
        average, companion = self.average, self.companion
        return {
            "target_net": self.net.state_dict(),
            "target_optimizer": self.optimizer.state_dict(),
            "average": average and {"net": average.net.state_dict(), "updates": average.updates},
            "companion": None if companion is None else companion.state_dict(),
            "strength": self.strength,
            "rate_factor": self.rate_factor,
            "pruning": self.pruning and self.pruning.state_dict(),
            "memory": self.memory and self.memory.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned, for nets of the same settings."""
        self.net.load_state_dict(state["target_net"])
        self.optimizer.load_state_dict(state["target_optimizer"])
        if self.average and state["average"]:
            self.average.net.load_state_dict(state["average"]["net"])
            self.average.updates = state["average"]["updates"]
        # Checkpoints from before there were companions and curricula have neither.
        if self.companion is not None:
            self.companion.load_state_dict(state["companion"])
        self.strength = state.get("strength", self.strength)
        self.rate_factor = state.get("rate_factor", self.rate_factor)
        if self.pruning:
            self.pruning.load_state_dict(state["pruning"])
            self.pruning.refresh()
        if self.memory and state.get("memory"):
            self.memory.load_state_dict(state["memory"], next(self.net.parameters()).device)

    def _weight_perturbation(self, task: Task, net: nn.Module) -> tuple[WeightPerturbation, Tensor | None]:
        """The weight perturbation of this round and, where there is one, L1 at the unperturbed weights."""
        round, size = task.attacked.round, task.attacked.batch.global_size
        gamma: float | Tensor = self.awp_gamma(round)
        chosen = task.attacked.strategy.awp_gamma
        if chosen is not None and self.epoch(round) >= self.config.loss.awp_warmup:
            # All images share the weights, so the mean of what was chosen for each perturbs them.
            gamma = self.group.sum(chosen.sum()) / size
        elif not gamma:
            return {}, None
        frozen, plain = [] if self.companion is None else [self.companion], task.unsmoothed()
        with self.synced():
            return awp_perturbation(
                net, lambda: plain.loss_of(net, self.unsmoothed), gamma, size, self.group, frozen=frozen
            )

    def _descend(self, loss_B: Tensor, global_size: int) -> Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        backward(self.trained, loss_B, global_size, self.group)
        if self.pruning:
            self.pruning.route(self.net)
        parameters = list(self.trained.parameters())
        grad_norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if self.config.optim.grad_clip:
            nn.utils.clip_grads_with_norm_(parameters, self.config.optim.grad_clip, grad_norm)
        self.optimizer.step()
        if self.pruning:
            self.pruning.write(self.net)
        return grad_norm
