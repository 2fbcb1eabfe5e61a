"""The training loop: rounds, validation, checkpoints, final evaluation. The same in one process
and on every Ray worker; it prints nothing and imports no Ray."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from lasat_ray.config import TrainConfig, grid_of
from lasat_ray.data import ImageDataset
from lasat_ray.env.build import build_round
from lasat_ray.process_group import out_of_memory_told
from lasat_ray.rng import RandomKey
from lasat_ray.runs.action_log import FOLDER as ACTIONS
from lasat_ray.runs.action_log import ActionLog
from lasat_ray.runs.checkpoint import restoring
from lasat_ray.runs.recorder import Recorder
from lasat_ray.training.budget import budget_of, spent_passes, strategy_pass
from lasat_ray.training.context import RunContext
from lasat_ray.training.early_stopping import EarlyStopping
from lasat_ray.training.evaluator import Evaluator, model_card
from lasat_ray.training.inputs import Inputs, load_config_dataset, split_images
from lasat_ray.training.machine import (
    choose_arithmetic,
    keep_first_threads,
    machine_state,
    moved,
    note_first_machine,
)
from lasat_ray.training.overfitting_watch import watch_overfitting
from lasat_ray.training.policy_watch import watch_policy
from lasat_ray.training.recovery import Recovery
from lasat_ray.training.round import play_round
from lasat_ray.training.stopping import stopped
from lasat_ray.training.tracked_images import choose_tracked, inspect_tracked, watched
from lasat_ray.types import RoundReport


class Trainer:
    """One run. Builds everything from the config, continues from the folder's last checkpoint."""

    def __init__(self, config: TrainConfig, context: RunContext, dataset: ImageDataset | None = None):
        self.config = config
        self.context = context
        choose_arithmetic(config.speed.tf32, context.device)
        keep_first_threads(context)
        self.dataset = dataset or load_config_dataset(config)
        self.inputs = Inputs(config, self.dataset, context)
        images = split_images(config, self.dataset)
        self.train_images, self.val_images, self.num_images = images.train, images.val, images.count
        self.early_stopping = EarlyStopping(config)
        self.dataset = replace(self.dataset, train=self.train_images)  # no image is held twice
        self.env, self.learner = build_round(
            config,
            self.train_images,
            self.dataset.num_classes,
            group=context.group,
            device=context.device,
            prefetch=context.prefetch,
            classes=self.dataset.classes,
            outcome_images=images.outcome,
            begins=not context.folder.has_checkpoint(),
            trust=context.trust,
        )
        self.strategy_pass = strategy_pass(self.env, self.learner)
        self.budget = budget_of(config, self.num_images, self.strategy_pass)
        self.rounds_per_epoch = self.env.target.rounds_per_epoch
        self.recorder = Recorder(
            context.folder,
            context.group,
            self.rounds_per_epoch,
            context.listener,
            grid_of(config),
            context.device,
        )
        self.probe = choose_tracked(self.train_images, config.seed)
        self.watched_images = watched(self.train_images, len(self.val_images), config.seed)
        self.evaluator = Evaluator(
            config, self.dataset, self.env, context, self.recorder, self.val_images, self.watched_images
        )
        self.evaluator.test_facts = self.inputs.test
        self.recovery = Recovery(
            self.env,
            self.learner,
            context,
            self.recorder,
            restore=self.load_state_dict,
            save=self.save,
            budget=self.budget,
        )
        self.actions: ActionLog | None = None
        if config.learns and (context.log_actions or (context.folder.path / ACTIONS).is_dir()):
            self.actions = ActionLog(context.folder.path, grid_of(config), context.group.rank)
        self.train_seconds = 0.0
        self._clock = 0.0

    @property
    def total_rounds(self) -> int:
        """The rounds of all epochs; a run with a budget ends by what is spent."""
        return self.config.epochs * self.rounds_per_epoch

    def is_over(self, round: int) -> bool:
        """Whether the run ends before ``round``."""
        if self.early_stopping.is_over:
            return True
        return self.budget.is_over(round) if self.budget else round >= self.total_rounds

    @property
    def img_per_second(self) -> float:
        return self.env.round * self.config.batch_size / max(self.train_seconds, 1e-9)

    def run(self, stop_after: int | None = None) -> dict[str, Any]:
        """Train to the end (or through round ``stop_after`` - 1), evaluate, return the summary.

        UserError, on every worker, where numbers are not finite or files cannot be written; Stopped,
        with a checkpoint of the last round, where that was asked for."""
        self.restore()
        end = math.inf if stop_after is None else stop_after
        self._clock = time.perf_counter()
        with self._memory_told():
            while self.env.round < end and not self.is_over(self.env.round):
                self._play_next(end)
        if not self.is_over(self.env.round):
            with self._untimed():
                self.save()
            return {}
        with self._memory_told():
            return self.finish()

    def _play_next(self, end: float) -> None:
        """One round, and what is due after it; a round with nan may move ``env.round`` back."""
        round = self.env.round
        self.context.watchdog.beat()
        # Nets from outside may draw from torch's own generator; name those draws too.
        torch.manual_seed(RandomKey.of(self.config.seed, "torch", round, self.context.group.rank).low)
        self.recovery.keep()
        if self.budget:
            self.env.target.progress = self.budget.progress(round)
        began = time.perf_counter()
        self.recovery.add(self.play(), time.perf_counter() - began)
        every = self.context.checkpoint_every
        closes = (round + 1) % self.rounds_per_epoch == 0
        saves = bool(every) and (round + 1) % (every or 1) == 0
        self.recovery.drain(wait=closes or saves or round + 1 == end)
        if self.env.round != round + 1:
            return
        closes = closes or self.is_over(round + 1)
        if closes or saves or self.recovery.stop_asked:
            with self._untimed():
                self.recovery.drain(wait=True)
                if closes:
                    self.end_epoch(-(-(round + 1) // self.rounds_per_epoch))
                if (saves and not closes) or self.recovery.stop_asked:
                    self.save()
        if self.recovery.stop_asked:
            raise stopped(self.env.round, self.context.folder.path)

    def _memory_told(self) -> AbstractContextManager[None]:
        speed, evaluation = self.config.speed, self.config.evaluation
        return out_of_memory_told(self.config.batch_size, speed.bucket, evaluation.batch_size)

    @contextmanager
    def _untimed(self) -> Iterator[None]:
        """What happens in the block is not training."""
        self.train_seconds += time.perf_counter() - self._clock
        yield
        self._clock = time.perf_counter()

    def play(self) -> RoundReport:
        """One round; a study may measure around it."""
        return play_round(self.env, self.learner, self.actions.add if self.actions else None)

    def end_epoch(self, epoch: int) -> None:
        """Write the epoch's record; every ``evaluation.every`` epochs, and at the end, validate and save."""
        self.recorder.flush()
        record: dict[str, Any] = {
            "kind": "epoch",
            "round": self.env.round,
            "epoch": epoch,
            "epochs": self.config.epochs,
            "lr": self.env.target.rate(self.env.round - 1),
            "train_seconds": self.train_seconds,
            "img_per_second": self.img_per_second,
            "strategy_pass": self.strategy_pass,
            "options": self.env.space.per_field(self.recorder.sum_option_counts()),
        }
        self.recorder.option_counts = None
        if self.budget:
            record["budget_spent"] = self.budget.share
        if self.env.target.pruning:
            record["sparsity"] = self.env.target.pruning.sparsity(self.env.net)
        validate = epoch % self.config.evaluation.every == 0 or self.is_over(self.env.round)
        if validate:
            if len(self.val_images):
                record |= self.evaluator.validate()
            record |= self.early_stopping.hear(record, self.env.price)
        self.recorder.write(record)
        self.recorder.by_first(lambda: self._show_probe(epoch))
        self.recorder.by_first(partial(watch_overfitting, self.recorder, self.env.round))
        if self.config.learns:
            self.recorder.by_first(partial(watch_policy, self.recorder, self.env))
        if validate:
            self.save()
            if self.context.after_epoch:
                self.context.after_epoch(record)

    def _show_probe(self, epoch: int) -> None:
        """The probe's record and pictures; one worker looks, nothing of the run is touched."""
        key = RandomKey.of(self.config.seed, "probe", epoch)
        facts, pictures = inspect_tracked(self.probe, self.env.target.deployed, self.learner, self.env, key)
        self.recorder.write({"kind": "probe", "round": self.env.round, "epoch": epoch, **facts})
        self.recorder.events.pictures(pictures, self.env.round - 1)

    def save(self) -> None:
        """All the next process needs. Random numbers have no state: seed, round and image name them."""
        self.recorder.flush()
        self.recorder.events.flush()
        if self.actions:
            self.actions.save()
        counts = self.recorder.sum_option_counts()
        self.recorder.by_first(lambda: self._save({**self.state_dict(), "option_counts": counts}))

    def _save(self, state: dict[str, Any]) -> None:
        self.recorder.sync()
        path = self.context.folder.save_last(state)
        round, whole = self.env.round, self.env.round % self.rounds_per_epoch == 0
        epoch = round // self.rounds_per_epoch if whole else None
        self.recorder.tell({"kind": "checkpoint", "round": round, "epoch": epoch, "path": str(path)})

    def finish(self) -> dict[str, Any]:
        """Open the test set once, evaluate the best net, write summary.json."""
        self.recorder.flush()
        summary = {
            **self.evaluator.evaluate_best(),
            "train_seconds": self.train_seconds,
            "img_per_second": self.img_per_second,
        }
        done = self.env.round / self.total_rounds if self.budget is None else self.budget.share
        summary |= self.early_stopping.summary(done)
        metrics = self.context.folder.metrics
        spent = partial(spent_passes, self.config, metrics, self.num_images, self.strategy_pass)
        self.recorder.by_first(lambda: summary.update(spent()))
        self.recorder.write({"kind": "final", "round": self.env.round, **summary})
        self.recorder.by_first(self.recorder.sync)
        self.recorder.by_first(self.recorder.close)
        self.recorder.by_first(lambda: self.context.folder.write_json("summary.json", summary))
        return summary

    def state_dict(self) -> dict[str, Any]:
        return {
            "round": self.env.round,
            "world_size": self.context.group.size,
            **self.env.target.state_dict(),
            "learner": self.learner.state_dict(),
            "price": None if self.env.price is None else self.env.price.state_dict(),
            "best_robust": self.evaluator.best_robust,
            "train_seconds": self.train_seconds,
            "metrics_offset": self.recorder.offset,
            "numeric_faults": self.recovery.faults,
            "machine": machine_state(self.context.device),
            "budget": None if self.budget is None else self.budget.state_dict(),
            "early_stopping": self.early_stopping.state_dict(),
            "card": model_card(self.config, self.dataset),
            "data": self.inputs.fingerprint,
        }

    def restore(self) -> None:
        """Continue from the newest whole checkpoint, or begin. Every worker reads the same file."""
        state, damaged = self.context.folder.load_last()
        changed = self.inputs.compare(state, self.context)
        with restoring(self.context.folder.path):
            self._restore(state, changed)
        if state is None:
            for told in [*self.inputs.notes, *self.env.notes]:
                self.recorder.write({"kind": "data", "round": 0, "told": told})
        if changed:
            told = f"{changed} since the last checkpoint; accepted"
            self.recorder.write({"kind": "warning", "round": self.env.round, "told": told})
        for told in damaged:
            self.recorder.write({"kind": "warning", "round": self.env.round, "told": told})
        if state is None and self.config.numerics.on_nan == "rollback":
            self.save()  # else a nan in the first epoch would have nothing to go back to

    def _restore(self, state: dict[str, Any] | None, changed: str | None) -> None:
        if state is None:
            self.recorder.check_not_lost(self.config.evaluation.every * self.rounds_per_epoch)
        lost = self.recorder.rewind(*((state["metrics_offset"], state["round"]) if state else (0, 0)))
        self.context.group.barrier()  # all have read before the first one writes
        self.recorder.by_first(self._prepare_folder)
        if self.actions:
            self.recorder.by_first(partial(self.actions.rewind, state["round"] if state else 0))
        self.recorder.by_first(lambda: self.inputs.write_manifest(self.context, changed))
        if state is None:
            self.recorder.by_first(partial(note_first_machine, self.context))
        for warning in [*lost, *moved(state, self.context)]:
            self.recorder.write(warning)
        if state is not None:
            self.load_state_dict(state)

    def _prepare_folder(self) -> None:
        self.context.folder.sweep()
        self.probe.save(self.context.folder, self.dataset.class_names)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned and go to its round."""
        if self.actions:
            self.actions.forget()
        self.env.target.load_state_dict(state)
        self.learner.load_state_dict(state["learner"])
        if self.env.price is not None:
            self.env.price.load_state_dict(state["price"], self.context.device)
        if self.budget is not None:
            self.budget.load_state_dict(state["budget"])
        if state.get("early_stopping"):  # older runs had none
            self.early_stopping.load_state_dict(state["early_stopping"])
        self.evaluator.best_robust = state["best_robust"]
        self.train_seconds = state["train_seconds"]
        # Of an older checkpoint the faults that led back to it count on.
        self.recovery.faults = max(self.recovery.faults, state.get("numeric_faults", 0))
        self.recorder.option_counts = None
        if state["option_counts"]:
            counts = torch.tensor(state["option_counts"], device=self.context.device)
            self.recorder.option_counts = counts if self.context.group.is_first else torch.zeros_like(counts)
        self.env.seek(state["round"])
