"""Accuracies of a run's nets while it trains and at its end, and the best net that it leaves behind."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Literal

from torch import nn

from lasat_ray.config import TrainConfig, grid_of
from lasat_ray.data import ImageDataset, Images
from lasat_ray.data.fingerprint import count_shared
from lasat_ray.data.images import TestFacts
from lasat_ray.data.subsets import coverage
from lasat_ray.env.attack_strategy import AttackStrategyVectorEnv
from lasat_ray.env.build import dtype_of
from lasat_ray.errors import UserError
from lasat_ray.evaluation.accuracy import View, accuracy
from lasat_ray.methods.cat import next_strength
from lasat_ray.models import num_parameters
from lasat_ray.runs.checkpoint import save_checkpoint
from lasat_ray.runs.recorder import Recorder
from lasat_ray.training.context import RunContext


def model_card(config: TrainConfig, dataset: ImageDataset) -> dict[str, Any]:
    """What ``load_model`` needs to build the net again."""
    return {
        "model": config.model,
        "precision": config.precision,
        "num_classes": dataset.num_classes,
        "image_shape": list(dataset.image_shape),
        "class_names": list(dataset.class_names),
        "evaluation": asdict(config.evaluation),
    }


class Evaluator:
    """Measures the nets of a run; collective, every worker on its share of the images.

    ``best_robust``: the highest robust accuracy on the validation images so far, of the net in
    ``best.safetensors``; negative before the first validation.
    """

    def __init__(
        self,
        config: TrainConfig,
        dataset: ImageDataset,
        env: AttackStrategyVectorEnv,
        context: RunContext,
        recorder: Recorder,
        val_images: Images,
        watched_images: Images,
    ):
        self.config, self.dataset, self.env = config, dataset, env
        self.context, self.recorder = context, recorder
        self.val_images, self.watched_images = val_images, watched_images
        self.best_robust = -1.0
        self.test_facts: TestFacts | None = None

    def accuracy(
        self, net: nn.Module, images: Images, num_steps: int | Literal["fgsm"], view: View | None = None
    ) -> float:
        """Accuracy of ``net`` in [0,1] after so many steps of PGD (0: clean), which sees it by ``view``."""
        return accuracy(
            net,
            images,
            num_steps,
            self.config.evaluation,
            seed=self.config.seed,
            group=self.context.group,
            device=self.context.device,
            dtype=dtype_of(self.config),
            beat=self.context.watchdog.beat,
            view=view,
        )

    def validate(self) -> dict[str, float]:
        """The epoch's accuracies; keeps the net where it is the most robust so far."""
        steps, target = self.config.evaluation.val_num_steps, self.env.target
        net = target.deployed
        robust = self._validated(net, self.val_images, steps)
        record = {
            "val_clean_acc": self._validated(net, self.val_images, 0),
            f"val_robust_acc_pgd{steps}": robust,
            f"train_robust_acc_pgd{steps}": self._validated(net, self.watched_images, steps),
            "train_fgsm_acc": self._validated(net, self.watched_images, "fgsm"),
        }
        if net is not self.env.net:
            own = self._validated(self.env.net, self.val_images, steps)
            record[f"val_unaveraged_robust_acc_pgd{steps}"] = own
        if target.method.grows:
            record |= self._grow()
        # >= : of equally robust epochs the later has trained longer.
        if robust >= self.best_robust:
            self.best_robust = robust
            self.recorder.by_first(lambda: self._save_best(record))
        return record

    def evaluate_best(self) -> dict[str, Any]:
        """Accuracy of the best net on the test set, which is opened here and nowhere else."""
        config, env = self.config, self.env
        test = self.dataset.load_test()
        net, which = self._best_net()
        summary: dict[str, Any] = {
            "method": config.method,
            "strategy": config.strategy,
            "seed": config.seed,
            "rounds": env.round,
            "epochs": config.epochs,
            "net": which,
            "parameters": num_parameters(net),
            "num_workers": self.context.group.size,
            "n_train": len(self.dataset.train),
            "n_test": len(test),
            "norm": config.evaluation.norm,
            "eps": config.evaluation.eps,
            "test_images": coverage(
                test.y,
                self.dataset.class_names,
                self.test_facts.coverage["of"] if self.test_facts else len(test),
            ),
            "clean_acc": self.accuracy(net, test, 0),
        }
        if shared := count_shared(self.dataset.train, test):
            summary["n_test_in_training"] = shared
        for steps in config.evaluation.test_num_steps:
            summary[f"robust_acc_pgd{steps}"] = self.accuracy(net, test, steps)
        if env.target.pruning:
            summary["sparsity"] = env.target.pruning.sparsity(net)
        return summary

    def _validated(self, net: nn.Module, images: Images, num_steps: int | Literal["fgsm"]) -> float:
        """Attacked by passes as training makes them: cheaper, and the same up to rounding."""
        # Compiled passes would be compiled anew for the sizes of these batches.
        view = self.env.attack_view if self.config.speed.compile == "none" else None
        return self.accuracy(net, images, num_steps, view)

    def _grow(self) -> dict[str, float]:
        """Raise the curriculum's strength where the net withstands the present one (CAT)."""
        target = self.env.target
        max_steps = int(max(grid_of(self.config)["num_steps"]))
        accuracy = self._validated(self.env.net, self.val_images, target.strength)
        before, threshold = target.strength, self.config.loss.cat_threshold
        target.strength = next_strength(before, accuracy, threshold, max_steps)
        return {"curriculum_strength": before, "val_curriculum_acc": accuracy}

    def _save_best(self, record: dict[str, float]) -> None:
        tree = {
            "target_net": self.env.target.deployed.state_dict(),
            "card": model_card(self.config, self.dataset),
            "round": self.env.round,
            **record,
        }
        save_checkpoint(self.context.folder.checkpoints / "best.safetensors", tree)

    def _best_net(self) -> tuple[nn.Module, str]:
        """The net of the best validation epoch; the last where none was validated or its file is damaged."""
        net = self.env.target.deployed
        if self.best_robust < 0:
            return net, "last"
        self.context.group.barrier()  # the first worker may still be writing it
        try:
            net.load_state_dict(self.context.folder.load_best()["target_net"])
        except UserError as error:
            self.recorder.write({"kind": "warning", "round": self.env.round, "told": str(error)})
            return net, "last, since best.safetensors is damaged"
        return net, "best on validation"
