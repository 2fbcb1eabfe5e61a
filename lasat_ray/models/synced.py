"""BatchNorm over the images of all workers: what one process would compute on the whole batch.

``torch.nn.SyncBatchNorm`` does this on GPUs alone, and would change the classes of a net's layers; here the
function that every BatchNorm calls is answered otherwise for the time of a training pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lasat_ray.process_group import ProcessGroup


class _SumOverWorkers(torch.autograd.Function):
    """The sum over workers of a tensor of any shape. Each worker's loss is its part of one sum, so that the
    gradient of a part is the sum of all workers' gradients of the total."""

    @staticmethod
    def forward(part: Tensor, group: ProcessGroup) -> Tensor:
        return group.sum(part)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ProcessGroup], output: Tensor) -> None:
        ctx.group = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _SumOverWorkers.apply(grad, ctx.group), None


def statistics(x: Tensor, group: ProcessGroup) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance (of N, not N - 1) of each channel over the images of all workers, [C], and how many
    numbers N they are of, 0-d; x [B,C,...], B may be 0.

    One message: means and squared deviations of each worker come together (Chan et al. 1979), since a
    variance from sums of squares would cancel.
    """
    over = [dim for dim in range(x.dim()) if dim != 1]
    count = x.numel() // x.shape[1]
    mean = x.sum(over) / max(count, 1)
    spread = ((x - _shaped(mean, x)) ** 2).sum(over)
    mine = torch.cat([mean, spread, mean.new_full((1,), float(count))])
    rows = [mine if rank == group.rank else torch.zeros_like(mine) for rank in range(group.size)]
    told = _SumOverWorkers.apply(torch.stack(rows), group)
    means, spreads, counts = told.split([len(mean), len(mean), 1], dim=1)
    total = counts.sum()
    mean = (counts * means).sum(0) / total
    variance = (spreads + counts * (means - mean) ** 2).sum(0) / total
    return mean, variance, total.detach()


def _shaped(value_C: Tensor, x: Tensor) -> Tensor:
    return value_C.view(1, -1, *[1] * (x.dim() - 2))


class SyncedBatchNorm(TorchFunctionMode):
    """Inside the block every BatchNorm in train mode normalizes by the batch of all workers, who all have to
    make the same passes; one in eval mode is as ever."""

    def __init__(self, group: ProcessGroup) -> None:
        super().__init__()
        self.group = group

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        called = self.batch_norm if func is F.batch_norm else func
        return called(*args, **(kwargs or {}))

    def batch_norm(
        self,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        """As ``torch.nn.functional.batch_norm``, [B,C,...] -> [B,C,...]."""
        if not training:
            return F.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
        x = input.float() if input.dtype in (torch.bfloat16, torch.float16) else input
        mean, variance, count = statistics(x, self.group)
        if running_mean is not None and running_var is not None:
            with torch.no_grad():
                running_mean.lerp_(mean.to(running_mean), momentum)
                running_var.lerp_((variance * count / (count - 1)).to(running_var), momentum)
        scale = torch.rsqrt(variance + eps)
        if weight is not None:
            scale = scale * weight
        y = (x - _shaped(mean, x)) * _shaped(scale, x)
        return (y if bias is None else y + _shaped(bias, x)).to(input.dtype)
