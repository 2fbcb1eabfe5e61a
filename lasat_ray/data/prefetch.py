"""Work that is done before its result is asked for: in this process by a thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

Prefetcher = Callable[[Callable[[Any], Any], Iterator[Any]], Iterator[Any]]
"""(work, items without end) -> the results in order, computed a little ahead of their use."""

DEPTH = 1


def thread_prefetch(work: Callable[[Any], Any], items: Iterator[Any]) -> Iterator[Any]:
    """One result is ready or under way while the one before is in use.

    The thread works for a result that was asked for or is next; it ends with the iterator.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as pool:
        under_way: deque[Future[Any]] = deque()
        try:
            for item in items:
                under_way.append(pool.submit(work, item))
                if len(under_way) > DEPTH:
                    yield under_way.popleft().result()
        finally:
            for future in under_way:
                future.cancel()
