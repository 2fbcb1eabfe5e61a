"""What a run leaves behind: its best net with the card to build it again, and the final figures."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from torch import nn

from lasat_ray.config import TrainConfig, grid_of
from lasat_ray.data import ImageDataset, Images
from lasat_ray.errors import UserError
from lasat_ray.methods.cat import next_strength
from lasat_ray.models import num_parameters
from lasat_ray.runs.checkpoint import save_checkpoint

if TYPE_CHECKING:
    from lasat_ray.training.loop import Trainer


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


def save_best(trainer: Trainer, record: dict[str, float]) -> None:
    """Keep the net as it is now, with the figures of its validation."""
    tree = {
        "target_net": trainer.deployed_net().state_dict(),
        "card": model_card(trainer.config, trainer.dataset),
        "round": trainer.env.round,
        **record,
    }
    save_checkpoint(trainer.place.folder.checkpoints / "best.safetensors", tree)


def validated(trainer: Trainer) -> dict[str, float]:
    """The epoch's accuracies; keeps the net where it is the most robust so far. Collective."""
    steps = trainer.config.evaluation.val_num_steps
    net = trainer.deployed_net()
    robust = _accuracy(trainer, net, trainer.val_images, steps)
    record = {
        "val_clean_acc": _accuracy(trainer, net, trainer.val_images, 0),
        f"val_robust_acc_pgd{steps}": robust,
        f"train_robust_acc_pgd{steps}": _accuracy(trainer, net, trainer.watched_images, steps),
    }
    if net is not trainer.env.net:
        own = _accuracy(trainer, trainer.env.net, trainer.val_images, steps)
        record[f"val_unaveraged_robust_acc_pgd{steps}"] = own
    if trainer.env.target.method.grows:
        record |= _grow(trainer)
    # >= : of equally robust epochs the later has trained longer.
    if robust >= trainer.best_robust:
        trainer.best_robust = robust
        trainer.by_first(lambda: save_best(trainer, record))
    return record


def _accuracy(trainer: Trainer, net: nn.Module, images: Images, num_steps: int) -> float:
    """Attacked by passes as training makes them: cheaper, and the same up to rounding."""
    # Compiled passes would be compiled anew for the sizes of these batches.
    view = trainer.env.attack_view if trainer.config.speed.compile == "none" else None
    return trainer.evaluate(net, images, num_steps, view)


def _grow(trainer: Trainer) -> dict[str, float]:
    """Raise the curriculum's strength where the net withstands the present one (CAT)."""
    target, config = trainer.env.target, trainer.config
    most = int(max(grid_of(config)["num_steps"]))
    accuracy = _accuracy(trainer, trainer.env.net, trainer.val_images, target.strength)
    before, threshold = target.strength, config.loss.cat_threshold
    target.strength = next_strength(before, accuracy, threshold, most)
    return {"curriculum_strength": before, "val_curriculum_acc": accuracy}


def evaluated_best(trainer: Trainer) -> dict[str, Any]:
    """Accuracy of the best net on the test set, which is opened here and nowhere else; collective."""
    config, env = trainer.config, trainer.env
    test = trainer.dataset.load_test()
    net, which = _best_net(trainer)
    summary: dict[str, Any] = {
        "method": config.method,
        "strategy": config.strategy,
        "seed": config.seed,
        "rounds": env.round,
        "epochs": config.epochs,
        "net": which,
        "parameters": num_parameters(net),
        "num_workers": trainer.place.world.size,
        "n_train": len(trainer.train_images),
        "n_test": len(test),
        "norm": config.evaluation.norm,
        "eps": config.evaluation.eps,
        "clean_acc": trainer.evaluate(net, test, 0),
    }
    for steps in config.evaluation.test_num_steps:
        summary[f"robust_acc_pgd{steps}"] = trainer.evaluate(net, test, steps)
    if env.target.pruning:
        summary["sparsity"] = env.target.pruning.sparsity(net)
    summary["train_seconds"] = trainer.train_seconds
    summary["img_per_second"] = trainer.img_per_second
    return summary


def _best_net(trainer: Trainer) -> tuple[nn.Module, str]:
    """The net of the best validation epoch; the last where nothing was validated or its file is damaged."""
    net = trainer.deployed_net()
    if trainer.best_robust < 0:
        return net, "last"
    trainer.place.world.barrier()  # the first worker may still be writing it
    try:
        net.load_state_dict(trainer.place.folder.load_best()["target_net"])
    except UserError as error:
        trainer.recorder.write({"kind": "warning", "round": trainer.env.round, "told": str(error)})
        return net, "last, since best.safetensors is damaged"
    return net, "best on validation"
