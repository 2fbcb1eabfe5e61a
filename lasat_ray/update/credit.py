"""Which image's strategy helped? The influence of each image on the looked-ahead net's losses.

L2 and L3 depend on the whole batch through the updated weights. To first order the part that is
due to image n is exact and cheap: the update moved the weights by -(lr/N) grad L1_n on its behalf,
so it changed alpha L2 + beta L3 by (lr/N) ``<v, grad L1_n>`` with
v = grad_w [alpha CE(x_ref) + beta CE(x)].
All N inner products come from one forward-mode product of the per-image losses with v.
This credit is the project's own; docs/method.md places it beside the paper's.
"""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.autograd.forward_ad as fwd
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from lasat_ray.config import LossConfig
from lasat_ray.errors import Fallback, UserError, one_line
from lasat_ray.models import eval_mode, full_precision
from lasat_ray.plugins import of_the_machine
from lasat_ray.process_group import ProcessGroup
from lasat_ray.update.task import Task

Weights = dict[str, Tensor]
LossOfWeights = Callable[[Weights], Tensor]
"""Weights by name -> loss of each image, [B]."""
_NO_FORWARD_MODE = re.compile(r"forward[- ](ad|mode|grad)|\bjvp\b|tangent|dual|derivative", re.IGNORECASE)
"""What PyTorch says, as a mere RuntimeError, of an operation without a forward derivative."""


def influence(
    net: nn.Module,
    task: Task,
    outcome_B: Tensor,
    loss_config: LossConfig,
    group: ProcessGroup,
    *,
    outcome_size: int | None = None,
    reach: Callable[[Weights], Weights] = lambda direction: direction,
) -> Tensor:
    """``<v, grad_w L_n>`` of every image, [B], L the loss the target was trained with; eval mode.

    ``outcome_B`` [B], or of held-out images [H]: alpha L2 + beta L3, still tied to the weights, so that
    its forward passes are the reward's own; its mean is over ``outcome_size`` images (default: those of the
    global batch). Up to the common factor lr/N the result is what training on image n's x_adv added to
    the mean outcome. ``reach``: the part of v that updates can take, where a method holds
    weights fast.
    """
    direction = reach(
        outcome_gradient(net, outcome_B, outcome_size or task.attacked.batch.global_size, group)
    )
    with eval_mode(net, task.companion):
        return directional_derivative(
            lambda weights: task.loss_of(lambda x: functional_call(net, weights, (x,)), loss_config),
            {name: p.detach() for name, p in net.named_parameters() if name in direction},
            direction,
        )


def outcome_gradient(net: nn.Module, outcome_B: Tensor, global_size: int, group: ProcessGroup) -> Weights:
    """v: the gradient of -outcome = alpha CE(x_ref) + beta CE(x), mean over the global batch; by name.

    ``outcome_B`` [B]: alpha L2 + beta L3, tied to the weights; each gradient has its weight's shape.
    Weights that the maker of the net froze have no gradient and no part in the update.
    """
    learning = {name: p for name, p in net.named_parameters() if p.requires_grad}
    names, parameters = zip(*learning.items(), strict=True)
    found = torch.autograd.grad(-outcome_B.sum() / global_size, parameters, allow_unused=True)
    gradient = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]
    group.sum_in_place(gradient)
    return dict(zip(names, gradient, strict=True))


@torch.no_grad()
def directional_derivative(loss: LossOfWeights, weights: Weights, direction: Weights) -> Tensor:
    """d/dt loss(weights + t direction) at 0 for each image, [B]: forward mode, or, where a layer
    has none, a central difference. Any other failure is raised as it is."""
    with full_precision(), _plain_attention():
        try:
            with fwd.dual_level(), warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # PyTorch's own, about its forward formulas
                duals = {name: fwd.make_dual(w, direction[name]) for name, w in weights.items()}
                tangent = fwd.unpack_dual(loss(duals)).tangent
            assert tangent is not None
            return tangent
        except (RuntimeError, UserError) as error:
            cause = error.__cause__ if isinstance(error, UserError) else error  # of a net from outside
            if cause is None or not _lacks_forward_mode(cause):
                raise
            _tell_fallback(one_line(str(cause))[:120])
            return central_difference(loss, weights, direction)


def _lacks_forward_mode(error: BaseException) -> bool:
    """Whether an operation has no forward derivative; failures of memory, hardware or the net itself are
    none, and a difference would only hide them."""
    if of_the_machine(error) or not isinstance(error, RuntimeError):
        return False
    return isinstance(error, NotImplementedError) or bool(_NO_FORWARD_MODE.search(str(error)))


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Attention by its formula inside the block: the fused kernels have no forward derivative."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


@functools.cache
def _tell_fallback(cause: str) -> None:
    """Once a process, for warnings forget what they told whenever a filter changes."""
    told = f"--reward.credit: a layer has no forward derivative ({cause}); a central difference is used"
    warnings.warn(told, Fallback, stacklevel=3)


@torch.no_grad()
def central_difference(loss: LossOfWeights, weights: Weights, direction: Weights) -> Tensor:
    """The same from two forward passes, [B]; on smooth nets the error is of second order in the step."""
    some = next(iter(weights.values()))
    size = torch.sqrt(sum((d.double() ** 2).sum() for d in direction.values()))  # type: ignore[arg-type]
    scale = torch.sqrt(sum((w.double() ** 2).sum() for w in weights.values()))  # type: ignore[arg-type]
    # A smooth loss wants the cube root of the rounding unit, where truncation and rounding balance. Nets of
    # ReLU have kinks, and a step that crosses them is wrong by far more than rounding is: on a trained
    # ResNet with BatchNorm 200 % off at the power 1/3, 27 % at 1/2, 2 % at 0.6 in float32 (2 %, 2e-4 and
    # 1e-9 in float64).
    step = (torch.finfo(some.dtype).eps ** 0.6 * (scale + 1) / (size + 1e-30)).to(some.dtype)
    ahead = loss({name: w + step * direction[name] for name, w in weights.items()})
    behind = loss({name: w - step * direction[name] for name, w in weights.items()})
    return (ahead - behind) / (2 * step)
