"""A streamed data set read by Ray Data: other processes decode what the coming rounds need.

Ray Data knows neither which image a round wants nor where a resumed run stands; the stream's own
order does. So each item is one window of one worker, and Ray Data fetches a few windows at once. A plan is
those few and no more: Ray Data holds back by the object store's size alone, and of a longer plan it had
decoded every window before the second was used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from lasat_ray.data.prefetch import thread_prefetch
from lasat_ray.errors import UserError

_AT_ONCE = 2  # windows of one plan; the next plan runs while these are used


def ray_data_prefetch(
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

    def run(part: list[Any]) -> list[dict[str, Any]]:
        windows = ray.data.from_items([{"item": list(item)} for item in part], override_num_blocks=len(part))
        windows.context.execution_options.preserve_order = True
        windows.context.enable_progress_bars = False
        tasks = ray.data.TaskPoolStrategy(size=_AT_ONCE)
        return windows.map(fetch, num_cpus=0.01, compute=tasks).take_all()

    for rows in thread_prefetch(run, iter(lambda: list(islice(items, _AT_ONCE)), [])):
        while rows:
            row = rows.pop(0)  # gone when its tensors are
            if row["error"]:
                raise UserError(row["error"])
            tensors = load(row["tensors"])
            yield tuple(tensors[str(n)] for n in range(len(tensors)))
