"""HYDRA: which weights a robust net keeps is learned, then the kept ones are fine-tuned
(Sehwag et al. 2020, sections 3.2 and 3.3), here with TRADES as the robust objective.

The target net always holds the weights that count, pruned ones as exact zeros: attacks, rewards and
checkpoints see a plain net. Beside it stand the pretrained weights and a score for each of them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lasat_ray.config import LossConfig
from lasat_ray.methods import trades
from lasat_ray.methods.awp import perturbed_parameters
from lasat_ray.methods.base import known_method

PUBLISHED_SEARCH, PUBLISHED_EPOCHS = 20, 120  # epochs in which the published runs learn scores, and all


def search_epochs(config: LossConfig, epochs: int) -> int:
    """How many epochs learn scores: the settings', else the published share of the run, at least 1."""
    return config.hydra_epochs or max(1, round(epochs * PUBLISHED_SEARCH / PUBLISHED_EPOCHS))


def stage_of(config: LossConfig, epoch: float, epochs: int) -> tuple[float, int, float]:
    """(epoch within the stage, its length, its factor on the learning rate): each of the two stages
    runs through the whole learning-rate course, fine-tuning at a lower rate."""
    search = search_epochs(config, epochs)
    if epoch < search:
        return epoch, search, 1.0
    return epoch - search, epochs - search, config.hydra_tune_rate


def first_scores(weight: Tensor) -> Tensor:
    """sqrt(6 / fan-in) w / max |w|: scaled initialization, so that magnitude decides at first; any shape."""
    fan_in = weight[0].numel()
    return math.sqrt(6 / fan_in) * weight / weight.abs().max().clamp_min(torch.finfo(weight.dtype).tiny)


def top_mask(score: Tensor, keep: float) -> Tensor:
    """1 where |score| (any shape) is among the largest n - int((1 - keep) n) of the layer's n, else 0."""
    pruned = min(int((1 - keep) * score.numel()), score.numel() - 1)
    order = score.abs().flatten().argsort(stable=True)
    mask = torch.ones_like(score).flatten()
    mask[order[:pruned]] = 0.0
    return mask.view_as(score)


class Pruning(nn.Module):
    """Scores and pretrained weights (any shape) of every layer of ``net`` with more than one dimension.

    ``searching``: scores move and weights stand still; else kept weights move and the choice stands.
    """

    def __init__(self, net: nn.Module, keep: float):
        super().__init__()
        self.names = list(perturbed_parameters(net))
        self.keep = keep
        self.searching = True
        weights = [parameter.detach() for parameter in self._weights(net)]
        self.scores = nn.ParameterList([first_scores(weight) for weight in weights])
        for n, weight in enumerate(weights):
            self.register_buffer(f"pretrained{n}", weight.clone())
        self.refresh()
        self.write(net)

    def refresh(self) -> None:
        """Form the masks anew; after scores were loaded."""
        self.masks = [top_mask(score.detach(), self.keep) for score in self.scores]

    @torch.no_grad()
    def route(self, net: nn.Module) -> None:
        """Send the gradient of the net's weights where this stage learns.

        Searching: straight through the mask, d/d score = g w sign(score), w the pretrained weight;
        weights and biases of pruned layers stand still. Then: to the kept weights alone.
        """
        parameters = dict(net.named_parameters())
        for n, (name, weight) in enumerate(zip(self.names, self._weights(net), strict=True)):
            assert weight.grad is not None
            if not self.searching:
                self.scores[n].grad = None
                weight.grad *= self.masks[n]
                continue
            self.scores[n].grad = weight.grad * self._pretrained(n) * self.scores[n].sign()
            weight.grad = None
            if (bias := parameters.get(_bias_of(name))) is not None:
                bias.grad = None

    @torch.no_grad()
    def write(self, net: nn.Module) -> None:
        """Give ``net`` the weights that its stage has arrived at, exact zeros for pruned ones."""
        if self.searching:
            self.refresh()
        for n, weight in enumerate(self._weights(net)):
            weight.copy_((self._pretrained(n) if self.searching else weight) * self.masks[n])

    @torch.no_grad()
    def sparsify(self, net: nn.Module) -> None:
        """Zeros where the choice stands at present, for a net beside the target (its average)."""
        for weight, mask in zip(self._weights(net), self.masks, strict=True):
            weight.mul_(mask)

    def reach(self, direction: dict[str, Tensor]) -> dict[str, Tensor]:
        """The part of a direction in weight space that an update can take, by parameter name: what a
        step along the gradient does to a loss with that gradient's own direction (credit)."""
        out = dict(direction)
        for n, name in enumerate(self.names):
            if self.searching:
                out[name] = direction[name] * self._pretrained(n) ** 2
                if (bias := _bias_of(name)) in out:
                    out[bias] = torch.zeros_like(direction[bias])
            else:
                out[name] = direction[name] * self.masks[n]
        return out

    def sparsity(self, net: nn.Module) -> float:
        """Share of exact zeros among the weights of the pruned layers of ``net``, in [0,1]."""
        weights = self._weights(net)
        zeros = sum(int((weight == 0).sum()) for weight in weights)
        return zeros / sum(weight.numel() for weight in weights)

    def _weights(self, net: nn.Module) -> list[nn.Parameter]:
        parameters = dict(net.named_parameters())
        return [parameters[name] for name in self.names]

    def _pretrained(self, n: int) -> Tensor:
        return self.get_buffer(f"pretrained{n}")


def _bias_of(name: str) -> str:
    return name.removesuffix("weight") + "bias"


METHOD = known_method("hydra", trades.loss)
