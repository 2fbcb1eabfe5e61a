"""Real trials on Ray: results, failures, ASHA, workers, a dead or stopped driver, two machines."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping

import psutil
import pytest

from lasat_ray.cluster.local import train_here
from lasat_ray.runs.folder import RunFolder
from lasat_ray.tune.storage import TRIALS
from lasat_ray.tune.trainable import OUTCOME
from lasat_ray.tune.trial import Outcome, Trial
from tests.support.machines import ray_machines
from tests.support.ray_runs import new_folder, tiny
from tests.support.trials import TINY, finished, run_trials

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]
SAME = ("clean_acc", "robust_acc_pgd2", "rounds")


def figures(outcome: Outcome) -> tuple:
    assert outcome.summary is not None
    return {key: outcome.summary[key] for key in SAME}, outcome.curve, outcome.passes, outcome.chosen


@pytest.mark.usefixtures("cluster")
def test_trials_compute_what_the_trainer_does_and_one_that_raises_does_not_sink_the_others(tmp_path):
    good = [Trial(row="good", config=tiny(seed=seed)) for seed in (0, 1)]
    bad = Trial(row="bad", config=tiny(dataset=f"npz:{tmp_path}/absent.npz"))
    outcomes = run_trials(tmp_path / "s", [good[0], bad, good[1]], cpus_per_trial=0.5)
    for trial in good:
        alone = train_here(trial.config, new_folder(tmp_path / trial.name, trial.config), device="cpu")
        summary = outcomes[trial.name].summary
        assert summary is not None and {k: summary[k] for k in SAME} == {k: alone[k] for k in SAME}
    failed = outcomes[bad.name]
    assert (
        failed.status == "failed"
        and "absent.npz" in (failed.error or "")
        and "\n" not in (failed.error or "")
    )
    detail = json.loads((tmp_path / "s" / TRIALS / f"{bad.name}.failed.json").read_text())
    assert "Traceback" in detail["traceback"]


@pytest.mark.usefixtures("cluster")
def test_trials_of_two_workers_stop_at_an_epoch_and_compute_what_one_process_does(tmp_path):
    first = Trial(row="a", config=tiny(), stop_epoch=1)
    second = Trial(row="a", config=tiny(), parent=first.name, stop_epoch=2)

    def sweep(outcomes):
        return [first, second] if first.name in outcomes else [first]

    outcomes = run_trials(tmp_path / "s", sweep, num_workers=2)
    assert outcomes[first.name].summary is None and len(outcomes[first.name].curve) == 1
    alone = train_here(tiny(), new_folder(tmp_path / "alone", tiny()), device="cpu")
    summary = outcomes[second.name].summary
    assert summary is not None and {k: summary[k] for k in SAME} == {k: alone[k] for k in SAME}
    assert summary["num_workers"] == 2


@pytest.mark.usefixtures("cluster")
def test_asha_stops_what_validates_badly_but_never_what_is_timed(tmp_path):
    """Trials of a learning rate that learns nothing come last; a rate of zero cannot be good."""
    fine = dataclasses.replace(tiny(), epochs=3)
    idle = dataclasses.replace(fine, optim=dataclasses.replace(fine.optim, lr=1e-12))
    trials = [Trial(row="fine", config=dataclasses.replace(fine, seed=seed)) for seed in (0, 1, 2)]
    slow = Trial(row="idle", config=dataclasses.replace(idle, seed=5))
    timed = Trial(row="timed", config=dataclasses.replace(idle, seed=6), timed=True)
    known = {}
    for trial in trials:  # an earlier process finished the good ones: the rungs know them
        folder = RunFolder.create(tmp_path / "s" / TRIALS / trial.name, trial.config)
        known[trial.name] = finished(curve=((1, 0.9, 0.9), (2, 0.9, 0.9), (3, 0.9, 0.9)))
        folder.write_json(OUTCOME, known[trial.name].to_json())
    outcomes = run_trials(tmp_path / "s", [*trials, slow, timed], asha=True, max_concurrent=1)
    assert {name: outcomes[name] for name in known} == known
    assert outcomes[slow.name].status == "stopped" and len(outcomes[slow.name].curve) < 3
    assert outcomes[timed.name].status == "finished" and len(outcomes[timed.name].curve) == 3
    kept = json.loads((tmp_path / "s" / TRIALS / slow.name / OUTCOME).read_text())
    assert kept["status"] == "stopped", "a resumed sweep must not run it again"


def sweep_k(*argv: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """The command, in a process group of its own, as a shell starts it."""
    command = [sys.executable, "-m", "tuning.sweep_k", *argv]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=env, text=True, start_new_session=True, **pipes)


def wait_until(there: Callable[[], bool], driver: subprocess.Popen[str], seconds: float = 200) -> None:
    """Until something is there that the driver brings about."""
    deadline = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < deadline and driver.poll() is None, driver.communicate()
        time.sleep(0.02)


def test_a_killed_driver_goes_on_and_ends_with_the_results_of_an_undisturbed_sweep(tmp_path):
    out = tmp_path / "s"
    settings = [*TINY, "--epochs", "3", "--ks", "2", "5", "--max-concurrent", "1"]
    command = [*settings, "--resume-or-start", "--out", str(out)]
    driver = sweep_k(*command)
    trials = out / TRIALS

    def second_has_begun() -> bool:
        """The first trial is finished and the second has its first checkpoint."""
        return all(
            list(trials.glob(name)) for name in (f"pgd-at-*/{OUTCOME}", "k-2-*/checkpoints/last.safetensors")
        )

    try:
        wait_until(second_has_begun, driver)
    finally:
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
    (first,) = trials.glob(f"pgd-at-*/{OUTCOME}")
    stamp, half = first.stat().st_mtime_ns, next(p for p in trials.glob("k-2-*") if p.is_dir())
    assert not (out / "results.json").exists()
    resumed = sweep_k(*command)
    told, errors = resumed.communicate(timeout=250)
    assert resumed.returncode == 0, errors
    assert "(1 are finished)" in told and first.stat().st_mtime_ns == stamp, "a finished trial was run again"
    record = json.loads((out / "results.json").read_text())
    assert [trial["row"] for trial in record["trials"]] == ["PGD-AT", "k=2", "k=5"]
    for trial in record["trials"]:
        folder = RunFolder.open(trials / trial["name"])
        alone = new_folder(tmp_path / trial["name"], folder.config())
        expected = train_here(folder.config(), alone, device="cpu")
        assert {k: trial["summary"][k] for k in SAME} == {k: expected[k] for k in SAME}
    rounds = [json.loads(line) for line in (half / "metrics.jsonl").read_text().splitlines()]
    assert [r["round"] for r in rounds if r["kind"] == "round"] == list(range(3 * 3)), "each round once"
    for words in (["--resume", str(out)], command):  # complete: the tables again, without Ray, in seconds
        again = sweep_k(*words)
        told, errors = again.communicate(timeout=100)
        assert again.returncode == 0 and "Plan:" not in told and "k=5" in told, errors


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_sweep_that_is_stopped_tells_in_one_line_how_to_go_on_and_leaves_no_process(
    number, status, tmp_path
):
    out = tmp_path / "s"
    driver = sweep_k(*TINY, "--epochs", "2000", "--ks", "2", "--max-concurrent", "1", "--out", str(out))
    try:
        wait_until(lambda: bool(list(out.glob(f"{TRIALS}/*/checkpoints/last.safetensors"))), driver)
        processes = psutil.Process(driver.pid).children(recursive=True)
        assert {"gcs_server", "raylet"} <= {process.name() for process in processes}
        if number == signal.SIGINT:
            os.killpg(driver.pid, number)  # a terminal's Ctrl-C goes to the whole group
        else:
            driver.send_signal(number)
        _, errors = driver.communicate(timeout=200)
    finally:
        driver.kill()
    told = "each trial is saved up to its last epoch, go on with --resume"
    how = "interrupted" if number == signal.SIGINT else f"stopped by {number.name}"
    assert errors == f"lasat-ray: error: {how}; {told} {out}\n"
    assert driver.returncode == status
    _, alive = psutil.wait_procs(processes, timeout=20)
    assert not alive


def test_two_machines_share_the_trials(tmp_path):
    """Each has one core and a trial takes one: two at a time only fit side by side."""
    out = tmp_path / "s"
    argv = [*TINY, "--epochs", "30", "--ks", "2", "5"]  # long beside how much later the second may start
    argv += ["--max-concurrent", "2", "--cpus-per-trial", "1"]
    with ray_machines(1, 1, token="a" * 64) as machines:
        argv += ["--address", machines.address, "--out", str(out)]
        for _ in range(60):  # the second machine needs a moment to be seen
            done = sweep_k(*argv, env=machines.env)
            told, errors = done.communicate(timeout=250)
            if "do not fit" not in errors:
                break
            time.sleep(1)
    assert done.returncode == 0, errors
    assert "2 at a time, each 1 CPU; Ray has 2 CPU on 2 machines" in told.replace(", 0 GPU", "")
    record = json.loads((out / "results.json").read_text())
    assert len({trial["place"]["node"] for trial in record["trials"]}) == 2
    assert {trial["status"] for trial in record["trials"]} == {"finished"}


def test_trials_go_to_machines_with_the_labels_that_are_asked_for(tmp_path):
    """The head has room for both trials; the one machine with the label takes them in turn."""
    argv = [*TINY, "--ks", "2", "5", "--max-failures", "0"]
    with ray_machines(2) as machines:
        machines.join(1, labels="disk=fast")
        argv += ["--address", machines.address]
        refused = sweep_k(
            *argv, "--node-labels", "disk=tape", "--out", str(tmp_path / "no"), env=machines.env
        )
        _, errors = refused.communicate(timeout=250)
        assert errors.startswith("lasat-ray: error: --node-labels: 'disk=tape' fits none of the ")
        assert refused.returncode == 2 and not (tmp_path / "no").exists()
        out = tmp_path / "s"
        for _ in range(60):  # the second machine needs a moment to be seen
            done = sweep_k(*argv, "--node-labels", "disk=fast", "--out", str(out), env=machines.env)
            told, errors = done.communicate(timeout=250)
            if "fits none of" not in errors:
                break
            time.sleep(1)
    assert done.returncode == 0, errors
    assert "Ray has 1 CPU on 1 machine" in told.replace(", 0 GPU", "")
    record = json.loads((out / "results.json").read_text())
    assert {trial["status"] for trial in record["trials"]} == {"finished"}
    assert len({trial["place"]["node"] for trial in record["trials"]}) == 1
    assert {tuple(trial["place"]["placement"]["node_labels"].items()) for trial in record["trials"]} == {
        (("disk", "fast"),)
    }
