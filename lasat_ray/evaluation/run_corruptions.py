"""What ``evaluate --corruptions`` does: find the images, make the table, compare it with another's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from lasat_ray.data.classes import classes_of_names
from lasat_ray.data.npy import image_files
from lasat_ray.errors import UsageError, refusal
from lasat_ray.evaluation.corruptions import FileSource, Source, corruption_table, relative_error, save_table
from lasat_ray.evaluation.make_corruptions import MadeSource
from lasat_ray.evaluation.subject import EvaluationTarget
from lasat_ray.models import dtype_of

MAKE = "make"
"""The word that stands where a folder of files would."""
ATTACKING = ("attacks", "eps", "norm", "step_size", "restarts", "all_steps", "worst_case", "sanity_examples")
UNUSED = (*ATTACKING, "save_images", "export_robustbench", "num_workers", "address", "cpus_per_worker")
"""Options that nothing reads where no attack runs."""


def check_unused(options: Mapping[str, tuple[Any, Any]]) -> None:
    """UsageError for a setting without effect: the first of UNUSED whose (value, default) differ beside
    --corruptions, or a baseline without it."""
    if options["corruptions"][0] is None:
        if options["corruption_baseline"][0] is not None:
            raise UsageError("--corruption-baseline: has no effect without --corruptions; add it")
        return
    for name in UNUSED:
        value, default = options[name]
        if value != default:
            shown = " ".join(value) if isinstance(value, tuple) else value
            what = "has no effect with --corruptions, which runs no attack, in one process"
            raise refusal(f"--{name.replace('_', '-')}", shown, what, "leave it out")


def spelling_of(where: str) -> str | None:
    """The data set that stands for the images of a folder; None for corruptions that are made.

    UsageError where there is no such folder, UserError where it holds no images.
    """
    if where == MAKE:
        return None
    folder = Path(where).expanduser()
    if not folder.is_dir():
        raise UsageError(f"--corruptions: '{where}' is no folder; name one of .npy files, or write {MAKE}")
    return f"npz:{image_files(folder)[0]}@1"


def evaluate_corruptions(
    subject: EvaluationTarget,
    where: str,
    *,
    with_clean: bool,
    n_examples: int | None,
    seed: int | None,
    chunk_size: int,
    device: torch.device,
    out: Path,
    baseline: str | None,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    """The table of ``corruption_table``, written into ``out``; ``where`` is a folder or MAKE.

    ``with_clean``: the target's images [n] are the clean ones. ``seed`` None takes the run's, else 0.
    UserError, UsageError in one line where images, net or baseline do not fit.
    """
    for line in subject.facts.get("notes", ()):
        tell(f"note: {line}")
    seed = seed if seed is not None else subject.config.seed if subject.config else 0
    report = corruption_table(
        subject.net,
        _source(subject, where, n_examples, seed),
        out=out,
        clean=subject.images if with_clean else None,
        seed=seed,
        chunk_size=chunk_size,
        device=device,
        facts=subject.facts,
        tell=tell,
    )
    if baseline is not None:
        report["baseline"] = relative_error(report, Path(baseline))
        save_table(out, report)
    return report


def _source(subject: EvaluationTarget, where: str, n_examples: int | None, seed: int) -> Source:
    if where == MAKE:
        return MadeSource(subject.images, seed)
    with torch.no_grad():
        count = subject.net(subject.images.x[:1].to(dtype_of(subject.net)) / 255).shape[1]
    names = subject.facts["class_names"]
    return FileSource(
        folder=Path(where).expanduser(),
        classes=classes_of_names(names if len(names) == count else (), count),
        image_shape=subject.image_shape,
        n_examples=n_examples,
    )
