"""The training loop: rounds, validation, checkpoints, final evaluation. The same in one process
and on every Ray worker; it prints nothing and imports no Ray."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from envs.build import build_game, dtype_of
from lasat_ray.checkpoint import restoring, save_checkpoint
from lasat_ray.config import TrainConfig, grid_of
from lasat_ray.data import Ahead, ImageDataset, Images, by_thread, load_dataset, split_validation
from lasat_ray.evaluation import accuracy
from lasat_ray.folder import RunFolder
from lasat_ray.learners import LearnerContext, seeded_learner
from lasat_ray.methods.cat import next_strength
from lasat_ray.models import num_parameters
from lasat_ray.probe import choose_probe, look, watched
from lasat_ray.recorder import Listener, Recorder
from lasat_ray.rng import Stream
from lasat_ray.round import play_round
from lasat_ray.types import RoundReport
from lasat_ray.world import World

AfterEpoch = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where this copy of the loop runs, and what it writes to."""

    world: World
    device: torch.device
    folder: RunFolder
    listener: Listener | None = None
    """Hears every record as it is written; first worker only."""
    after_epoch: AfterEpoch | None = None
    """Called on every worker with the validation record, for example to report to Ray."""
    checkpoint_every: int | None = None
    """Rounds between checkpoints beyond those after each validation."""
    ahead: Ahead = by_thread
    """Who reads a streamed data set before its rounds come."""


class Trainer:
    """One run. Builds everything from the config, continues from the folder's last checkpoint."""

    def __init__(self, config: TrainConfig, place: Place, dataset: ImageDataset | None = None):
        self.config = config
        self.place = place
        if place.device.type == "cuda":
            torch.backends.cudnn.deterministic = True  # a resumed run has the same bits
        self.dataset = dataset or load_config_dataset(config)
        self.train_images, self.val_images = split_validation(
            self.dataset.train, config.data.val_fraction, config.seed
        )
        self.env = build_game(
            config,
            self.train_images,
            self.dataset.num_classes,
            world=place.world,
            device=place.device,
            ahead=place.ahead,
        )
        self.rounds_per_epoch = self.env.target.rounds_per_epoch
        self.learner = seeded_learner(
            LearnerContext(
                space=self.env.space,
                image_shape=self.dataset.image_shape,
                config=config,
                world=place.world,
                device=place.device,
                total_rounds=self.total_rounds,
            )
        )
        self.recorder = Recorder(
            place.folder, place.world, self.rounds_per_epoch, place.listener, grid_of(config)
        )
        self.probe = choose_probe(self.train_images, config.seed)
        self.watched_images = watched(self.train_images, len(self.val_images), config.seed)
        self.best_robust = -1.0
        self.train_seconds = 0.0
        self.warnings: list[str] = []

    @property
    def total_rounds(self) -> int:
        return self.config.epochs * self.rounds_per_epoch

    @property
    def img_per_second(self) -> float:
        return self.env.round * self.config.batch_size / max(self.train_seconds, 1e-9)

    def run(self, stop_after: int | None = None) -> dict[str, Any]:
        """Train to the end (or through round ``stop_after`` - 1), evaluate, return the summary."""
        self.restore()
        end = self.total_rounds if stop_after is None else min(stop_after, self.total_rounds)
        began = time.perf_counter()
        while self.env.round < end:
            round = self.env.round
            # Nets from outside may draw from torch's own generator; name those draws too.
            torch.manual_seed(Stream.of(self.config.seed, "torch", round, self.place.world.rank).low)
            self.recorder.add(self.play())
            if (round + 1) % self.rounds_per_epoch == 0:
                self.train_seconds += time.perf_counter() - began
                self.end_epoch((round + 1) // self.rounds_per_epoch)
                began = time.perf_counter()
            elif self.place.checkpoint_every and (round + 1) % self.place.checkpoint_every == 0:
                self.train_seconds += time.perf_counter() - began
                self.save()
                began = time.perf_counter()
        if self.env.round < self.total_rounds:
            self.train_seconds += time.perf_counter() - began
            self.save()
            return {}
        return self.finish()

    def play(self) -> RoundReport:
        """One round; a study may measure around it."""
        return play_round(self.env, self.learner)

    def end_epoch(self, epoch: int) -> None:
        """Write the epoch's record; every ``evaluation.every`` epochs validate and checkpoint."""
        self.recorder.flush()
        record: dict[str, Any] = {
            "kind": "epoch",
            "round": self.env.round,
            "epoch": epoch,
            "epochs": self.config.epochs,
            "lr": self.env.target.rate(self.env.round - 1),
            "train_seconds": self.train_seconds,
            "img_per_second": self.img_per_second,
            "options": self.env.space.per_field(self.recorder.sum_option_counts()),
        }
        self.recorder.option_counts = None
        if self.env.target.pruning:
            record["sparsity"] = self.env.target.pruning.sparsity(self.env.net)
        validate = epoch % self.config.evaluation.every == 0 or epoch == self.config.epochs
        if validate and len(self.val_images):
            record |= self._validate()
        self.recorder.write(record)
        self._show_probe(epoch)
        if validate:
            self.save()
            if self.place.after_epoch:
                self.place.after_epoch(record)

    def _show_probe(self, epoch: int) -> None:
        """The probe's record and pictures; one worker looks, nothing of the run is touched."""
        if self.place.world.is_first:
            stream = Stream.of(self.config.seed, "probe", epoch)
            facts, pictures = look(self.probe, self.deployed_net(), self.learner, self.env, stream)
            self.recorder.write({"kind": "probe", "round": self.env.round, "epoch": epoch, **facts})
            self.recorder.events.pictures(pictures, self.env.round - 1)

    def deployed_net(self) -> nn.Module:
        """The net that is evaluated and kept: the weight average where there is one."""
        average = self.env.target.average
        return average.net if average else self.env.net

    def evaluate(self, net: nn.Module, images: Images, num_steps: int) -> float:
        """Accuracy of ``net`` in [0,1] under PGD with so many steps; 0 means clean."""
        setting = self.config.evaluation
        return accuracy(
            net,
            images,
            num_steps=num_steps,
            eps=setting.eps,
            step_size=setting.step_size,
            seed=self.config.seed,
            batch_size=setting.batch_size,
            world=self.place.world,
            device=self.place.device,
            dtype=dtype_of(self.config),
            norm=setting.norm,
        )

    def _validate(self) -> dict[str, float]:
        steps = self.config.evaluation.val_num_steps
        net = self.deployed_net()
        robust = self.evaluate(net, self.val_images, steps)
        record = {
            "val_clean_acc": self.evaluate(net, self.val_images, 0),
            f"val_robust_acc_pgd{steps}": robust,
            f"train_robust_acc_pgd{steps}": self.evaluate(net, self.watched_images, steps),
        }
        if net is not self.env.net:
            record[f"val_unaveraged_robust_acc_pgd{steps}"] = self.evaluate(
                self.env.net, self.val_images, steps
            )
        if self.env.target.method.grows:
            record |= self._grow()
        # >= : of equally robust epochs the later has trained longer.
        if robust >= self.best_robust:
            self.best_robust = robust
            self._save_best(record)
        return record

    def _grow(self) -> dict[str, float]:
        """Raise the curriculum's strength where the net withstands the present one (CAT)."""
        target = self.env.target
        most = int(max(grid_of(self.config)["num_steps"]))
        accuracy = self.evaluate(self.env.net, self.val_images, target.strength)
        before, threshold = target.strength, self.config.loss.cat_threshold
        target.strength = next_strength(before, accuracy, threshold, most)
        return {"curriculum_strength": before, "val_curriculum_acc": accuracy}

    def finish(self) -> dict[str, Any]:
        """Open the test set once, evaluate the best net, write summary.json."""
        self.recorder.flush()
        test = self.dataset.load_test()
        net, which = self._best_net()
        summary: dict[str, Any] = {
            "method": self.config.method,
            "strategy": self.config.strategy,
            "seed": self.config.seed,
            "rounds": self.env.round,
            "epochs": self.config.epochs,
            "net": which,
            "parameters": num_parameters(net),
            "num_workers": self.place.world.size,
            "n_train": len(self.train_images),
            "n_test": len(test),
            "norm": self.config.evaluation.norm,
            "eps": self.config.evaluation.eps,
            "clean_acc": self.evaluate(net, test, 0),
        }
        for steps in self.config.evaluation.test_num_steps:
            summary[f"robust_acc_pgd{steps}"] = self.evaluate(net, test, steps)
        if self.env.target.pruning:
            summary["sparsity"] = self.env.target.pruning.sparsity(net)
        summary["train_seconds"] = self.train_seconds
        summary["img_per_second"] = self.img_per_second
        self.recorder.write({"kind": "final", "round": self.env.round, **summary})
        self.recorder.close()
        if self.place.world.is_first:
            self.place.folder.write_json("summary.json", summary)
        return summary

    def _best_net(self) -> tuple[nn.Module, str]:
        """The net of the best validation epoch; the last where nothing was validated."""
        net = self.deployed_net()
        if self.best_robust < 0:
            return net, "last"
        self.place.world.barrier()  # the first worker may still be writing it
        net.load_state_dict(self.place.folder.load_best()["target_net"])
        return net, "best on validation"

    def _save_best(self, record: dict[str, float]) -> None:
        if self.place.world.is_first:
            tree = {
                "target_net": self.deployed_net().state_dict(),
                "card": self.model_card(),
                "round": self.env.round,
                **record,
            }
            save_checkpoint(self.place.folder.checkpoints / "best.safetensors", tree)

    def model_card(self) -> dict[str, Any]:
        """What ``load_model`` needs to build the net again."""
        return {
            "model": self.config.model,
            "precision": self.config.precision,
            "num_classes": self.dataset.num_classes,
            "image_shape": list(self.dataset.image_shape),
            "class_names": list(self.dataset.class_names),
            "evaluation": asdict(self.config.evaluation),
        }

    def save(self) -> None:
        """Everything the next process needs, at a round boundary. Random numbers need no state:
        they are named by seed, round and image."""
        self.recorder.flush()
        self.recorder.events.flush()
        counts = self.recorder.sum_option_counts()
        if self.place.world.is_first:
            self.place.folder.save_last({**self.state_dict(), "option_counts": counts})

    def state_dict(self) -> dict[str, Any]:
        return {
            "round": self.env.round,
            "world_size": self.place.world.size,
            **self.env.target.state_dict(),
            "learner": self.learner.state_dict(),
            "best_robust": self.best_robust,
            "train_seconds": self.train_seconds,
            "metrics_offset": self.recorder.offset,
            "card": self.model_card(),
        }

    def restore(self) -> None:
        """Continue from the newest whole checkpoint, or begin. Every worker reads the same file."""
        state, faults = self.place.folder.load_last()
        self.warnings += faults
        with restoring(self.place.folder.path):
            self._restore(state)

    def _restore(self, state: dict[str, Any] | None) -> None:
        self.recorder.rewind(*((state["metrics_offset"], state["round"]) if state else (0, 0)))
        if self.place.world.is_first:
            self.probe.save(self.place.folder, self.dataset.class_names)
        self.place.world.barrier()
        if state is None:
            return
        self.env.target.load_state_dict(state)
        self.learner.load_state_dict(state["learner"])
        self.best_robust = state["best_robust"]
        self.train_seconds = state["train_seconds"]
        if state["option_counts"]:
            counts = torch.tensor(state["option_counts"], device=self.place.device)
            self.recorder.option_counts = counts if self.place.world.is_first else torch.zeros_like(counts)
        self.env.seek(state["round"])


def load_config_dataset(config: TrainConfig) -> ImageDataset:
    """The data set that a configuration names; the test part stays closed."""
    data = config.data
    limits = {"max_train": data.max_train, "max_test": data.max_test}
    return load_dataset(config.dataset, root=data.root, seed=config.seed, **limits)
