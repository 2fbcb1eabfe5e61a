"""A streamed data set read by Ray Data: other processes decode what the coming rounds need.

Ray Data knows neither which image a round wants nor where a resumed run stands; the stream's own
order does. So each item is one window of one worker, and Ray Data fetches windows in order, a few at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from lasat_ray.errors import UserError

_PART = 32  # windows of one Ray Data plan
_AT_ONCE = 2  # windows under way


def by_ray_data(
    work: Callable[[Any], tuple[Tensor, ...]], items: Iterator[Any]
) -> Iterator[tuple[Tensor, ...]]:
    """``work(item)``, in order; the processes that do it take no core from the workers' reservations.

    A user's mistake that ``work`` meets is raised here as the UserError it was there.
    """

    import ray.data  # seconds of start-up that only a stream needs

    def fetch(row: dict[str, Any]) -> dict[str, Any]:
        try:
            parts = work(tuple(row["item"]))
        except UserError as error:  # as a value: Ray Data would wrap it, and try again
            return {"error": str(error), "tensors": b""}
        tensors = {str(n): part.contiguous() for n, part in enumerate(parts)}
        return {"error": "", "tensors": save(tensors)}

    while part := list(islice(items, _PART)):
        windows = ray.data.from_items([{"item": list(item)} for item in part], override_num_blocks=len(part))
        windows.context.execution_options.preserve_order = True
        windows.context.enable_progress_bars = False
        for row in windows.map(fetch, num_cpus=0.01, concurrency=_AT_ONCE).iter_rows():
            if row["error"]:
                raise UserError(row["error"])
            tensors = load(row["tensors"])
            yield tuple(tensors[str(n)] for n in range(len(tensors)))
