"""A sweep's files in a folder and under a URL: the same calls, and trials that survive their machine."""

from __future__ import annotations

import multiprocessing
import os
import uuid

import pytest

from lasat_ray.errors import UserError
from lasat_ray.runs.folder import RunFolder
from lasat_ray.runs.lock import InUse
from lasat_ray.tune.storage import TRIALS, Store
from lasat_ray.tune.trainable import OUTCOME, TrialResources, run_trial
from lasat_ray.tune.trial import Outcome, Trial
from tests.support.helpers import small_config


@pytest.fixture(params=["path", "file", "memory"])
def store(request, tmp_path):
    name = uuid.uuid4().hex
    return Store(
        {"path": str(tmp_path / name), "file": f"file://{tmp_path}/{name}", "memory": f"memory://{name}"}[
            request.param
        ]
    )


def test_files_are_written_whole_and_read_back(store):
    assert not store.exists() and store.read("a/b.json") is None and store.read_json("x") is None
    store.write_json("a/b.json", {"k": [1, 2]})
    assert store.exists() and store.read_json("a/b.json") == {"k": [1, 2]}
    store.write("a/b.json", b"{")
    with pytest.raises(UserError, match="is not JSON"):
        store.read_json("a/b.json")


def test_a_trial_that_was_lost_goes_on_from_the_last_epoch_of_the_store(store):
    """The first process dies after its first epoch, with its scratch folder; the second starts there."""
    trial = Trial(row="k", config=small_config(precision="fp64", epochs=3))
    place = TrialResources(out=store.out, cwd=os.getcwd())
    heard: list[Outcome] = []

    class Died(BaseException):
        pass

    def die(outcome):
        heard.append(outcome)
        if len(outcome.curve) == 2:
            raise Died

    with pytest.raises(Died):
        run_trial(trial, place, die)
    assert store.read_json(f"{TRIALS}/{trial.name}/{OUTCOME}") is None
    resumed = run_trial(trial, place, heard.append)
    # Told at once how it stands (two epochs), then the third: nothing was trained twice.
    assert [len(outcome.curve) for outcome in heard] == [1, 2, 2, 3]
    calm = run_trial(trial, TrialResources(out=f"memory://{uuid.uuid4().hex}", cwd=os.getcwd()), heard.append)
    same = ("clean_acc", "robust_acc_pgd2", "robust_acc_pgd3", "rounds")
    assert {k: resumed.summary[k] for k in same} == {k: calm.summary[k] for k in same}
    assert (resumed.curve, resumed.target_passes, resumed.chosen) == (
        calm.curve,
        calm.target_passes,
        calm.chosen,
    )
    assert Outcome.from_json(store.read_json(f"{TRIALS}/{trial.name}/{OUTCOME}")) == resumed
    again = run_trial(trial, place, lambda _: pytest.fail("a finished trial was run again"))
    assert again == resumed


def test_a_stretch_goes_on_from_its_parents_checkpoint_under_its_own_strategy(store):
    config = small_config(strategy="fixed", precision="fp64")
    place = TrialResources(out=store.out, cwd=os.getcwd())
    first = Trial(row="PBT", config=config, stop_epoch=1)
    same = Trial(row="PBT", config=config, parent=first.name, stop_epoch=2)
    other = Trial(
        row="PBT",
        config=small_config(strategy="fixed", precision="fp64", attack__num_steps=1),
        parent=first.name,
        stop_epoch=2,
    )
    told = [run_trial(trial, place, lambda _: None) for trial in (first, same, other)]
    whole = run_trial(Trial(row="x", config=config), place, lambda _: None)
    assert told[0].summary is None and [epoch for epoch, *_ in told[0].curve] == [1]
    # The same settings in two stretches are one run, and each stretch counts its own cost alone.
    assert told[1].summary["robust_acc_pgd3"] == whole.summary["robust_acc_pgd3"]
    assert told[1].curve == whole.curve
    assert told[0].target_passes + told[1].target_passes == whole.target_passes
    assert told[2].target_passes == 3 * 32 * 5 and told[1].target_passes == 3 * 32 * 7
    assert told[2].curve[0] == told[0].curve[0]


def test_a_half_made_folder_is_made_again(tmp_path):
    trial = Trial(row="k", config=small_config(epochs=1))
    path = tmp_path / "s" / TRIALS / trial.name
    (path / "checkpoints").mkdir(parents=True)
    outcome = run_trial(trial, TrialResources(out=str(tmp_path / "s"), cwd="."), lambda _: None)
    assert outcome.status == "finished" and RunFolder.open(path).summary() == outcome.summary


def _hold(out, held, leave):
    with Store(out).folder("a"):
        held.set()
        leave.wait(30)


def test_a_trial_in_use_by_another_process_is_waited_for_and_then_refused(tmp_path):
    context = multiprocessing.get_context("spawn")
    held, leave = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(str(tmp_path), held, leave))
    other.start()
    assert held.wait(60)
    store = Store(str(tmp_path))
    with pytest.raises(UserError, match="is in use by another process"), store.folder("a", 0.3):
        pass
    other.kill()  # the system gives back what a dead process held
    other.join()
    with Store(str(tmp_path)).folder("a", 5.0) as path:
        assert path == tmp_path / TRIALS / "a"


def test_two_commands_do_not_work_on_one_sweep(tmp_path):
    out = tmp_path / "new" / "s"
    with pytest.raises(ValueError), Store(str(out)).alone("sweep.json"):  # noqa: PT012 - the block is what fails
        with (
            pytest.raises(InUse, match=r"s: another run is writing here \(process"),
            Store(str(out)).alone("x"),
        ):
            pass
        raise ValueError  # refused before it began
    assert not (tmp_path / "new").exists()
    with Store(str(out)).alone("sweep.json"):
        (out / "sweep.json").touch()
    assert (out / "sweep.json").exists()


def test_a_url_that_nothing_here_can_open_is_one_line():
    with pytest.raises(UserError, match=r"--out: nosuch://x: 'nosuch' is no protocol that is read"):
        Store("nosuch://x")
