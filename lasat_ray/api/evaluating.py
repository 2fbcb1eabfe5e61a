"""``lasat_ray.evaluate``: the accuracy of any net under attack, on any images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from lasat_ray.api.arguments import budget, device_of, one_of
from lasat_ray.api.evaluation_options import EvaluateOptions, check_options, make_plan, runner
from lasat_ray.api.loading import is_stored, load_with_card, path_of
from lasat_ray.api.results import EvaluationResult
from lasat_ray.api.words import in_python
from lasat_ray.cli.streams import make_console
from lasat_ray.cluster.local import choose_device
from lasat_ray.config import DataConfig, TrainConfig
from lasat_ray.config.files import place_of_results
from lasat_ray.config.json_io import read_config
from lasat_ray.data import Images, load_dataset
from lasat_ray.data.arrays import Given
from lasat_ray.data.classes import classes_of_names, match, relabelled
from lasat_ray.data.objects import TESTS, is_mapping, one_part, part_of
from lasat_ray.data.subsets import coverage, even_order, subset
from lasat_ray.errors import UsageError, UserError
from lasat_ray.evaluation.evaluate_net import evaluate_net
from lasat_ray.evaluation.plan import DEFAULT_ATTACKS
from lasat_ray.evaluation.show import EvaluationDisplay
from lasat_ray.evaluation.subject import PROBED, EvaluationTarget, from_run, from_weights
from lasat_ray.models.given import call_factory
from lasat_ray.runs.foreign import load_foreign
from lasat_ray.runs.load import checkpoint_file


@in_python
def evaluate(
    net: Any,
    data: Any = None,
    /,
    *,
    attacks: Sequence[str] = DEFAULT_ATTACKS,
    eps: float | str | None = None,
    norm: str | None = None,
    step_size: float | str | None = None,
    restarts: int = 1,
    n_examples: int | None = None,
    worst_case: bool = False,
    all_steps: bool = False,
    sanity_examples: int = 64,
    seed: int | None = None,
    chunk_size: int = 200,
    class_names: Sequence[str] | None = None,
    which: str = "best",
    weights: str | Path | None = None,
    mean: float | Sequence[float] = 0.0,
    std: float | Sequence[float] = 1.0,
    trust: bool = False,
    out: str | Path | None = None,
    save_images: bool = False,
    num_workers: int = 0,
    device: str = "auto",
    progress: bool = False,
) -> EvaluationResult:
    """Accuracy of a net under attack; what ``python -m lasat_ray.evaluate`` does.

    ``net``: what ``train`` gave back, a run folder or checkpoint file; a module from images [B,C,H,W] in
    [0,1] to logits [B,N], or a function that makes one; or the name of a net with ``weights`` (a file),
    ``mean`` and ``std``. ``data``: the test images: a name as in ``--dataset``, (x, y) with x [N,C,H,W] or
    [N,H,W,C] uint8 or floats in [0,1] (rounded to 8 bits) and y [N], a torch Dataset or DataLoader, a Hugging
    Face dataset; None takes the run's own; ``class_names`` where the data has none of its own, to be matched
    with the net's.

    ``attacks``: in order, of clean, fgsm, pgd-STEPS, cw-STEPS, aa, apgd-ce, square, ..., ``module:function``.
    ``eps``, ``step_size``: in [0,1] pixels or as "8/255"; ``norm``: linf or l2; None takes the run's, else
    8/255 in linf. ``n_examples``: so many images, even over the classes. ``out``: the folder of the report;
    None means the run's for its own images and otherwise no folder. The rest is as the command's options say.

    UsageError or UserError in one line for whatever cannot work.
    """
    options = EvaluateOptions(
        run=str(path_of(net)[0]) if is_stored(net) else "net",
        attacks=tuple([attacks] if isinstance(attacks, str) else attacks),
        n_examples=n_examples,
        eps=budget("eps", eps),
        norm=one_of("norm", norm, ("linf", "l2", None)),
        step_size=budget("step_size", step_size),
        restarts=restarts,
        all_steps=all_steps,
        worst_case=worst_case,
        sanity_examples=sanity_examples,
        seed=seed,
        chunk_size=chunk_size,
        weights=None if weights is None and is_stored(net) else str(weights),
        num_workers=num_workers,
        device=one_of("device", device, ("auto", "cpu", "cuda")),
        save_images=save_images,
    )
    check_options(options)
    target = _target(net, data, class_names, which, weights, mean, std, n_examples, trust)
    own = is_stored(net) and (data is None or isinstance(data, str))
    folder = Path(out) if out is not None else place_of_results(target.out, "out") if own else None
    where = device_of(net) if device == "auto" and not num_workers else None
    console = make_console() if progress else Console(quiet=True)
    report = carry_out(options, target, folder, where or choose_device(device), console)
    return EvaluationResult(report, folder)


def carry_out(
    options: EvaluateOptions,
    target: EvaluationTarget,
    out: Path | None,
    device: torch.device,
    console: Console,
) -> dict[str, Any]:
    """The report on ``target``, written to ``out`` unless that is None; progress goes to ``console``."""
    plan = make_plan(options, target)
    with runner(options) as run, EvaluationDisplay(console) as display:
        return evaluate_net(
            target.net,
            target.images,
            plan,
            out=out,
            run=run,
            announce=display.announce,
            device=device,
            facts=target.facts,
        )


def _target(
    net: Any,
    data: Any,
    class_names: Sequence[str] | None,
    which: str,
    weights: str | Path | None,
    mean: float | Sequence[float],
    std: float | Sequence[float],
    n_examples: int | None,
    trust: bool,
) -> EvaluationTarget:
    """What is evaluated, by what ``net`` and ``data`` are."""
    named = data is None or isinstance(data, str)
    if class_names is not None and named:
        raise UsageError("class_names: has no effect with named data; give data=(x, y) with it")
    if weights is not None:
        if not isinstance(net, str):
            raise UsageError(f"weights: needs the name of a net, not {type(net).__name__}; load them into it")
        if named:
            return from_weights(
                net,
                Path(weights),
                dataset=data,
                root=None,
                max_test=n_examples,
                mean=_several(mean),
                std=_several(std),
            )
        part = _test_part(data, class_names)
        shape, count = part.images.image_shape, len(part.classes)
        probe = part.images.take(even_order(part.images.y)[:PROBED]).x / 255
        loaded = load_foreign(
            net, weights, num_classes=count, image_shape=shape, mean=mean, std=std, images=probe
        )
        return _made(loaded, part, net, n_examples)
    if is_stored(net):
        path, trusted = path_of(net)
        trust = trust or trusted
        if named:
            return from_run(path, which=which, dataset=data, root=None, max_test=n_examples, trust=trust)
        return _run_on(net, path, _test_part(data, class_names), n_examples, which, trust)
    if isinstance(net, str):
        raise UsageError(
            f"net: '{net}' is no run folder or checkpoint; for the name of a net add weights=FILE"
        )
    if data is None:
        raise UsageError("data: is missing; name the test set, or give (x, y), for a net that is no run")
    part = _named_part(data, n_examples) if named else _test_part(data, class_names)
    return _made(_module(net, part), part, type(net).__name__, n_examples)


def _several(numbers: float | Sequence[float]) -> tuple[float, ...]:
    return tuple(numbers) if isinstance(numbers, Sequence) else (numbers,)


def _test_part(data: Any, class_names: Sequence[str] | None) -> Given:
    """The test images of whatever was given; of several parts the test part."""
    if is_mapping(data):
        data = part_of(data, TESTS, "")
    return one_part(data, class_names)


def _named_part(spelling: str, n_examples: int | None) -> Given:
    dataset = load_dataset(spelling, root=DataConfig().root, max_train=1, max_test=n_examples, seed=0)
    return Given(dataset.load_test(), dataset.classes)


def _module(net: Any, part: Given) -> nn.Module:
    """A module, or what a factory makes for the images; UsageError for anything else."""
    shape, count = part.images.image_shape, len(part.classes)
    if not isinstance(net, nn.Module):
        if not callable(net):
            raise UsageError(f"net: {type(net).__name__} is no net; give a run, a module or what makes one")
        net = call_factory(net, count, shape)
    if not isinstance(net, nn.Module):
        raise UsageError(f"net: the function gave a {type(net).__name__}; let it return a torch.nn.Module")
    return net


def _run_on(
    source: Any, path: Path, part: Given, n_examples: int | None, which: str, trust: bool
) -> EvaluationTarget:
    """The net of a run on images that were given; labels are matched by the classes' names where both have
    some."""
    net, card = load_with_card(source, which=which, trust=trust)
    shape = tuple(card["image_shape"])
    if part.images.image_shape != shape:
        raise UserError(f"data: images are {part.images.image_shape} (C,H,W) and the net takes {shape}")
    ours = classes_of_names(card.get("class_names", ()), card["num_classes"])
    images = part.images
    if part.classes.named and ours.named:
        mapping = match(part.classes, ours, "data", "the net")
        images = Images(images.x, torch.from_numpy(relabelled(images.y.numpy(), mapping)))
    folder = checkpoint_file(path, which).parent.parent
    config = (
        read_config(folder / "config.json", complete=True) if (folder / "config.json").is_file() else None
    )
    return _made(net, Given(images, ours, part.notes), card["model"], n_examples, config)


def _made(
    net: nn.Module, part: Given, name: str, n_examples: int | None, config: TrainConfig | None = None
) -> EvaluationTarget:
    """A net on images in memory, or on so many of them, even over the classes."""
    rows = subset(part.images.y, n_examples)
    images = part.images.take(rows)
    facts = {
        "model": name,
        "architecture": name,
        "dataset": "given data",
        "class_names": list(part.classes.names),
        "images": coverage(images.y, part.classes.names, len(part.images)),
        "notes": list(part.notes),
    }
    return EvaluationTarget(
        net=net,
        images=images,
        image_shape=images.image_shape,
        config=config,
        facts=facts,
        out=Path("evaluation"),
    )
