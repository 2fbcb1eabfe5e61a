"""An evaluation on Ray actors: each holds the net and the images, the driver hands out chunks.

The driver alone writes the parts, so a lost worker costs the chunk it was at, and so does a lost
driver. Ray retries nothing: a lost worker is replaced here, a bounded number of times.
"""

from __future__ import annotations

import os
from typing import Any

import ray
import torch
from ray.exceptions import GetTimeoutError, RayActorError, RayError
from torch import Tensor, nn

from lasat_ray.cluster.session import find_modules_in, module_folders, packed, wait_free, worker_resources
from lasat_ray.data import Images
from lasat_ray.errors import UsageError, UserError
from lasat_ray.evaluation.part import Part, PartStore, run_job
from lasat_ray.evaluation.progress import JobListener, JobQueue
from lasat_ray.evaluation.spec import Job, Suite
from lasat_ray.process_group import indexed

JobResult = Part | tuple[str, int]
"""A result, or (message, exit status) of an error that is the user's to mend."""


class EvaluationWorker:
    """One process with its own copy of the net, which comes ``packed``."""

    def __init__(
        self, modules: list[str], net: bytes, images: Images, suite: Suite, device: str, threads: int
    ) -> None:
        torch.set_num_threads(threads)
        find_modules_in(modules)
        self.device = indexed(device)
        self.net = ray.cloudpickle.loads(net).to(self.device)
        self.images, self.suite = images, suite

    def ready(self) -> int:
        """The process id, once the worker can work."""
        return os.getpid()

    def run(self, job: Job, alive: Tensor) -> JobResult:
        try:
            return run_job(self.net, self.images, job, self.suite, alive, self.device)
        except UserError as error:
            return str(error), error.status


class WorkerPool:
    """The workers, and who is at which job."""

    def __init__(
        self, *, count: int, resources: dict[str, float], arguments: tuple[Any, ...], start_timeout: float
    ) -> None:
        self._resources, self._arguments, self._timeout = resources, arguments, start_timeout
        self._hired: list[Any] = []
        self.busy: dict[Any, tuple[Any, Job]] = {}
        self.idle = self._started([self._new() for _ in range(count)])

    def add_worker(self) -> None:
        """One worker in place of a lost one."""
        self.idle += self._started([self._new()])

    def give(self, job: Job, alive: Tensor) -> None:
        worker = self.idle.pop()
        self.busy[worker.run.remote(job, alive)] = (worker, job)

    def shutdown(self) -> None:
        for worker in self._hired:
            ray.kill(worker)

    def _new(self) -> Any:
        cpus, gpus = self._resources["CPU"], self._resources.get("GPU", 0.0)
        actor = ray.remote(num_cpus=cpus, num_gpus=gpus, max_restarts=0)(EvaluationWorker)
        self._hired.append(actor.remote(*self._arguments))
        return self._hired[-1]

    def _started(self, workers: list[Any]) -> list[Any]:
        try:
            ray.get([worker.ready.remote() for worker in workers], timeout=self._timeout)
        except GetTimeoutError as error:
            self.shutdown()
            raise UserError(
                f"--start-timeout: {len(workers)} workers did not start in {self._timeout:g} s; "
                "ask for fewer workers or give more seconds"
            ) from error
        except RayError as error:
            self.shutdown()
            raise UserError(
                f"--num-workers: a worker could not start ({_last_line(error)}); try --num-workers 0"
            ) from error
        return workers


def evaluate_on_ray(
    suite: Suite,
    net: nn.Module,
    images: Images,
    *,
    num_workers: int,
    store: PartStore | None = None,
    listener: JobListener | None = None,
    device: str | torch.device = "cpu",
    cpus_per_worker: float | None = None,
    max_failures: int = 3,
    start_timeout: float = 120.0,
) -> JobQueue:
    """``run_here`` on a connected Ray, the same numbers; ``device`` cuda gives each worker a GPU.

    UserError in one line when workers cannot be had or started, or more than ``max_failures`` are
    lost; what was finished is in the store.
    """
    queue = JobQueue(suite, store, listener)
    if queue.finished:
        return queue
    use_gpu = torch.device(device).type == "cuda"
    num_workers = min(num_workers, queue.unfinished)
    resources = worker_resources(num_workers, cpus_per_worker, use_gpu)
    wait_free(num_workers, resources)
    threads = 1 if not use_gpu and cpus_per_worker is None else max(1, int(resources["CPU"]))
    sent = packed(f"net {type(net).__name__}", net.cpu())
    shared = (module_folders(), ray.put(sent), ray.put(images), suite, str(device), threads)
    pool = WorkerPool(count=num_workers, resources=resources, arguments=shared, start_timeout=start_timeout)
    try:
        _work(queue, pool, max_failures)
    finally:
        pool.shutdown()
    return queue


def _work(queue: JobQueue, pool: WorkerPool, max_failures: int) -> None:
    """Keep every worker busy until the book is full."""
    lost = 0
    while not queue.finished:
        while pool.idle and (taken := queue.take()) is not None:
            pool.give(*taken)
        (done,), _ = ray.wait(list(pool.busy), num_returns=1)
        worker, job = pool.busy.pop(done)
        try:
            told: JobResult = ray.get(done)
        except RayActorError as error:
            lost += 1
            if lost > max_failures:
                raise UserError(
                    f"evaluation: {lost} workers were lost ({_last_line(error)}); the same command continues"
                ) from error
            queue.put_back(job)
            pool.add_worker()
            continue
        if isinstance(told, tuple):
            message, status = told
            raise (UsageError if status == UsageError.status else UserError)(message)
        pool.idle.append(worker)
        queue.done(job, told)


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
