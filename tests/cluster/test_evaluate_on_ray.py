"""An evaluation on Ray workers: the numbers of one process, also after workers were killed."""

import contextlib
import os
import signal
import time
from functools import partial

import numpy as np
import pytest
import ray

from lasat_ray.cluster.evaluate_on_ray import evaluate_on_ray
from lasat_ray.errors import UserError
from lasat_ray.evaluation import EvaluationPlan, evaluate_net
from tests.support import evaluation_nets as nets
from tests.support.evaluation_nets import EPS

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("cluster")]

PLAN = EvaluationPlan(
    attacks=("clean", "fgsm", "pgd-8", "cw-8", "aa"), eps=0.3, chunk_size=4, n_examples=12, sanity_examples=4
)


@pytest.fixture(scope="module")
def images():
    return nets.digits(count=60)


@pytest.fixture(scope="module")
def alone(images, tmp_path_factory):
    """Flags and report of the same plan in this process."""
    out = tmp_path_factory.mktemp("alone")
    return flags(out, evaluate_net(nets.trained(), images, PLAN, out=out))


def flags(out, report):
    with np.load(out / "flags.npz") as arrays:
        return {name: arrays[name] for name in arrays}, report


@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_per_image_flags_do_not_depend_on_the_number_of_workers(images, alone, tmp_path, num_workers):
    run = partial(evaluate_on_ray, num_workers=num_workers)
    ours, report = flags(tmp_path, evaluate_net(nets.trained(), images, PLAN, out=tmp_path, run=run))
    assert {*ours} == {*alone[0]}
    assert all(np.array_equal(ours[name], alone[0][name]) for name in ours)
    for name, entry in report["attacks"].items():
        assert entry["accuracy"] == alone[1]["attacks"][name]["accuracy"]
        assert entry["forward_passes_per_image"] == alone[1]["attacks"][name]["forward_passes_per_image"]
    assert report["sanity"]["checks"] == alone[1]["sanity"]["checks"]


def test_the_worst_case_keeps_the_order_of_attacks_on_every_chunk(images, tmp_path):
    plan = EvaluationPlan(
        attacks=("clean", "pgd-8", "cw-8"), eps=EPS, chunk_size=7, worst_case=True, sanity_examples=0
    )
    here = flags(tmp_path / "a", evaluate_net(nets.trained(), images, plan, out=tmp_path / "a"))[0]
    run = partial(evaluate_on_ray, num_workers=2)
    there = flags(tmp_path / "b", evaluate_net(nets.trained(), images, plan, out=tmp_path / "b", run=run))[0]
    assert all(np.array_equal(here[name], there[name]) for name in here)


def test_a_killed_worker_costs_the_chunk_it_was_at(images, alone, tmp_path):
    killed, seen = [], []

    def listen(job, part, known):
        seen.append(job)
        if len(seen) in (3, 7):
            killed.append(part.pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(part.pid, signal.SIGKILL)

    run = partial(evaluate_on_ray, num_workers=2)
    report = evaluate_net(nets.trained(), images, PLAN, out=tmp_path, run=run, announce=lambda suite: listen)
    assert len(set(killed)) == 2
    assert len(seen) == len(set(seen))
    ours, _ = flags(tmp_path, report)
    assert all(np.array_equal(ours[name], alone[0][name]) for name in ours)


def test_too_many_lost_workers_end_it_in_one_line_and_the_same_call_continues(images, alone, tmp_path):
    def listen(job, part, known):
        os.kill(part.pid, signal.SIGKILL)

    run = partial(evaluate_on_ray, num_workers=1, max_failures=1)
    with pytest.raises(UserError, match=r"2 workers were lost .*; the same command continues") as caught:
        evaluate_net(nets.trained(), images, PLAN, out=tmp_path, run=run, announce=lambda suite: listen)
    assert "\n" not in str(caught.value)
    known = []
    report = evaluate_net(
        nets.trained(),
        images,
        PLAN,
        out=tmp_path,
        announce=lambda suite: lambda job, part, old: known.append(old),
    )
    assert known.count(True) == 2
    ours, _ = flags(tmp_path, report)
    assert all(np.array_equal(ours[name], alone[0][name]) for name in ours)


def test_a_net_that_cannot_be_evaluated_is_told_once_and_not_retried(images, tmp_path):
    net = nets.Broken(tmp_path / "processes")
    with pytest.raises(UserError, match=r"^net: gives nan or inf for test image") as caught:
        evaluate_net(net, images, PLAN, run=partial(evaluate_on_ray, num_workers=1))
    assert "\n" not in str(caught.value)
    workers = {*net.seen_by.read_text().split()} - {str(os.getpid())}
    assert len(workers) == 1


def test_workers_that_cannot_be_had_are_refused_in_seconds(images):
    began = time.perf_counter()
    run = partial(evaluate_on_ray, num_workers=2, cpus_per_worker=64)
    with pytest.raises(UserError, match="--num-workers: 2 workers of 64 CPUs need 128 CPUs"):
        evaluate_net(nets.trained(), images, PLAN, run=run)
    assert time.perf_counter() - began < 60


def test_a_start_that_takes_too_long_is_bounded(images):
    run = partial(evaluate_on_ray, num_workers=1, start_timeout=0.01)
    with pytest.raises(UserError, match=r"--start-timeout: 1 workers did not start in 0\.01 s"):
        evaluate_net(nets.trained(), images, PLAN, run=run)


def test_no_worker_is_left_behind_and_the_next_evaluation_can_start_at_once(images):
    plan = EvaluationPlan(attacks=("clean",), n_examples=10, chunk_size=5, sanity_examples=0)
    for _ in range(2):
        evaluate_net(nets.trained(), images, plan, run=partial(evaluate_on_ray, num_workers=2))
    every = ray.cluster_resources()["CPU"]
    for _ in range(100):
        if ray.available_resources().get("CPU", 0) == every:
            break
        time.sleep(0.1)
    assert ray.available_resources()["CPU"] == every
