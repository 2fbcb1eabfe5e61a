"""What only the net itself can tell: accuracy against eps, predictions by class, attacked images.

Computed once a run from its best checkpoint, and kept in the report's folder under a name made of
the weights, so that a report drawn again asks nothing that it knows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lasat_ray.attacks.strong import PGDSpec, run_pgd
from lasat_ray.config import EvalConfig, TrainConfig
from lasat_ray.config.units import field_name, format_threat, format_value
from lasat_ray.data import ordered_batches
from lasat_ray.data.subsets import even_order
from lasat_ray.env.observation import observed
from lasat_ray.errors import UserError
from lasat_ray.evaluation.part import check_logits
from lasat_ray.evaluation.report import images_sha256
from lasat_ray.evaluation.subject import EvaluationTarget, from_run
from lasat_ray.methods import AttackContext, Method, find_method
from lasat_ray.methods.attack import attack_by_method
from lasat_ray.models import dtype_of, frozen_eval
from lasat_ray.process_group import ProcessGroup
from lasat_ray.reporting.study import Record, Run, Study
from lasat_ray.rng import RandomKey
from lasat_ray.runs.checkpoint import load_checkpoint, save_checkpoint
from lasat_ray.runs.folder import RunFolder
from lasat_ray.runs.load import checkpoint_file, load_checkpointed
from lasat_ray.runs.trust import names_code
from lasat_ray.training.tracked_images import strategy_shares
from lasat_ray.training.trained_policy import load_policy
from lasat_ray.types import Batch, Strategy

FORMAT = 2
"""Raised whenever a change of this file changes what it finds."""
LEVELS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
"""Budgets of the curve, in units of the run's own."""
STEPS = 10
GALLERY = 4


def evaluate_nets_for_report(
    study: Study, cache: Path, *, n_examples: int, trust: bool, warn: Callable[[str], None]
) -> Study:
    """The study with what its nets say; a run without a net, or with one that cannot be asked, is
    told in one line and left out."""
    for run in study.runs:
        try:
            study.nets[run.name] = _cached(run, cache, n_examples, trust)
        except UserError as error:
            warn(f"{run.name}: its net is left out: {error}")
    return study


def _cached(run: Run, cache: Path, n: int, trust: bool) -> Record:
    weights = hashlib.sha256(checkpoint_file(run.path).read_bytes()).hexdigest()
    subject = from_run(run.path, which="best", dataset=None, root=None, max_test=n, trust=trust)
    images = images_sha256(subject.images)
    key = hashlib.sha256(f"{FORMAT} {weights} {n} {images}".encode()).hexdigest()[:16]
    file = cache / f"{run.name}-{key}.safetensors"
    if file.is_file():
        try:
            return load_checkpoint(file)
        except UserError:  # torn: found anew below
            pass
    found = evaluate_net_for_report(run, n, trust, subject)
    cache.mkdir(parents=True, exist_ok=True)
    save_checkpoint(file, found)
    return found


def evaluate_net_for_report(run: Run, n: int, trust: bool, subject: EvaluationTarget | None = None) -> Record:
    """Everything the figures want of one net; on the CPU, ``n`` test images, even over the classes.

    ``subject``: the net and its images where they are at hand. UserError where there is no checkpoint, no
    data, or a net of another version.
    """
    if subject is None:
        subject = from_run(run.path, which="best", dataset=None, root=None, max_test=n, trust=trust)
    _, card = load_checkpointed(run.path, trust=trust)
    assert subject.config is not None
    settings, net = subject.config.evaluation, subject.net
    eps = settings.eps
    batch = first_batch(subject, n)
    with frozen_eval(net):
        with torch.no_grad():
            logits = net(batch.x)
        check_logits(logits, batch.y, batch.index)
        predicted = logits.argmax(1)
        accuracies, predicted_adv = _curve(net, batch, predicted, settings, subject.config.seed)
        shown = _rows(batch, even_order(batch.y)[:GALLERY])
        gallery = _gallery(run, subject, shown, logits.shape[1], trust)
    return {
        "n": len(batch.y),
        "norm": settings.norm,
        "budget": format_threat(settings.norm, eps),
        "attack": f"PGD-{STEPS} on cross-entropy, step eps/4, one random start",
        "class_names": list(card["class_names"]),
        "eps": [0.0, *(level * eps for level in LEVELS)],
        "accuracy": accuracies,
        "y": batch.y.tolist(),
        "predicted": predicted.tolist(),
        "predicted_adv": predicted_adv.tolist(),
        "gallery": {**gallery, "class_names": list(card["class_names"])},
    }


def first_batch(subject: EvaluationTarget, n: int) -> Batch:
    """``n`` test images in the net's own precision: the first of ``even_order``, as everywhere."""
    # of images that were cut to n already these are all, in the order they were cut in
    rows = even_order(subject.images.y)[:n] if n < len(subject.images) else torch.arange(len(subject.images))
    images = subject.images.take(rows)
    (batch,) = ordered_batches(images, batch_size=len(images), device="cpu", dtype=dtype_of(subject.net))
    return batch


def _rows(batch: Batch, rows: Any) -> Batch:
    index = batch.index[rows]
    return Batch(x=batch.x[rows], y=batch.y[rows], index=index, global_size=len(index))


def _curve(
    net: nn.Module, batch: Batch, predicted: Tensor, settings: EvalConfig, seed: int
) -> tuple[list[float], Tensor]:
    """Accuracy at 0 and every level, and what the net sees at the run's own budget, in the run's norm.

    Balls are nested: an image fooled at one budget is fooled at every larger one and left alone.
    """
    right, seen, at_own = predicted == batch.y, predicted.clone(), predicted
    accuracies = [float(right.double().mean())]
    for level in LEVELS:
        rows = right.nonzero()[:, 0]
        if len(rows):
            size = level * settings.eps
            attack = PGDSpec(
                norm=settings.norm, eps=size, step_size=size / 4, num_steps=STEPS, stop_early=True
            )
            found = run_pgd(net, _rows(batch, rows), attack, RandomKey.of(seed, "report", str(level)))
            with torch.no_grad():
                seen[rows] = net(found.x_adv).argmax(1)
            right = seen == batch.y
        if level == 1.0:
            at_own = seen.clone()
        accuracies.append(float(right.double().mean()))
    return accuracies, at_own


def _gallery(run: Run, subject: EvaluationTarget, batch: Batch, num_classes: int, trust: bool) -> Record:
    """A few images attacked by the method as the policy would have it; by the fixed attack where there
    is none."""
    config = subject.config
    assert config is not None
    trained_policy = load_policy(RunFolder(run.path), config, subject.image_shape, trust=trust)
    seen = observed(config, batch, subject.net, num_classes, ProcessGroup())
    shares = strategy_shares(trained_policy.learner, trained_policy.space, seen, RandomKey.of("gallery"))
    action_BK = torch.stack([share.argmax(1) for share in shares], 1)
    if names_code(config.method) and not trust:
        raise UserError(f"its --method is code, '{config.method}'; if you trust it, add --trust")
    method = find_method(config.method)
    context = _context(run, config, method, batch, trained_policy.space.decode(action_BK))
    x_adv, strategy = attack_by_method(subject.net, method, context, config.attack)
    with torch.no_grad():
        predicted, predicted_adv = subject.net(batch.x).argmax(1), subject.net(x_adv).argmax(1)
    return {
        "x": (batch.x * 255).round().to(torch.uint8),
        "x_adv": (x_adv * 255).round().to(torch.uint8),
        "y": batch.y.tolist(),
        "predicted": predicted.tolist(),
        "predicted_adv": predicted_adv.tolist(),
        "strategy": [describe(strategy, n, config.attack.norm) for n in range(len(batch.y))],
    }


def _context(
    run: Run, config: TrainConfig, method: Method, batch: Batch, strategy: Strategy
) -> AttackContext:
    """The attack's surroundings as they were when the shown net was kept."""
    kept = load_checkpoint(checkpoint_file(run.path))
    memory = method.memory(config.loss) if method.memory else None
    if memory and kept.get("memory"):
        memory.load_state_dict(kept["memory"], batch.x.device)
    ended = [record["epoch"] for record in run.of("epoch") if record["round"] <= kept["round"]]
    epoch = max(max(ended, default=config.epochs) - 1, 0)
    return AttackContext(
        batch=batch,
        strategy=strategy,
        key=RandomKey.of("gallery start"),
        config=config.loss,
        epoch=epoch,
        epochs=config.epochs,
        strength=int(kept.get("curriculum_strength", kept.get("strength", 0))),
        group=ProcessGroup(),
        memory=memory.tensors(epoch) if memory else {},
    )


def describe(strategy: Strategy, n: int, norm: str) -> str:
    """``eps 8/255, num_steps 10, step_size 2/255`` of image n; in L2 ``eps (L2) 0.5, ...``."""
    values = {name: float(value[n]) for name, value in strategy.items()}
    # float32 does not spell 8/255 exactly: the nearest n/255, where it is as near as rounding goes.
    return ", ".join(
        f"{field_name(name, norm)} {format_value(name, _spelled(value))}" for name, value in values.items()
    )


def _spelled(value: float) -> float:
    nearest = round(value * 255) / 255
    return nearest if abs(nearest - value) < 1e-7 else round(value, 6)
