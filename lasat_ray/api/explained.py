"""What a run's net makes of single images and how near each is to being mistaken; for ``lasat_ray.explain``
and the command of that name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor, nn
from tyro.conf import Positional, arg

from lasat_ray.attacks.strong import PGDSpec, run_pgd
from lasat_ray.cli.run_options import Switch
from lasat_ray.config import Budget, DataConfig
from lasat_ray.config.units import NORM_NAMES
from lasat_ray.data.decode import read_image
from lasat_ray.env.observation import observed
from lasat_ray.errors import UsageError, check_least
from lasat_ray.evaluation.subject import EvaluationTarget, from_run
from lasat_ray.models import dtype_of, frozen_eval
from lasat_ray.process_group import ProcessGroup
from lasat_ray.reporting.figure import Card, Figure
from lasat_ray.rng import RandomKey
from lasat_ray.runs.folder import RunFolder
from lasat_ray.runs.load import load_checkpointed
from lasat_ray.training.tracked_images import strategy_shares
from lasat_ray.training.trained_policy import load_policy
from lasat_ray.types import Batch

BLUE = "#2f7ed8"


@dataclass(frozen=True, kw_only=True)
class ExplainOptions:
    """Which net, which images, how hard to look."""

    run: Annotated[Positional[str], arg(metavar="RUN")]
    """Run folder."""
    images: Annotated[Positional[tuple[str, ...]], arg(metavar="IMAGE [IMAGE ...]", help_behavior_hint="")]
    """Image files, or places in the run's test set, counted from 0."""
    out: str | None = None
    """Picture to write; None means explain.png in the run folder."""
    num_steps: int = 20
    """PGD steps of each attempt."""
    restarts: int = 3
    """Random starts of each attempt."""
    resolution: Budget = 0.001
    """The search for the smallest eps ends when it is known this closely, in [0,1] pixels."""
    trust: Switch = False
    """Run the code that the run names as module:function."""
    debug: Switch = False
    """Show tracebacks."""


@dataclass(frozen=True, eq=False)
class Explained:
    """Images x [B,C,H,W] in [0,1] with their labels y [B] (-1: none is known), probabilities ``p`` [B,N],
    smallest ``eps`` [B] in ``norm`` (inf: none), images that fooled ``x_adv`` [B,C,H,W] and the class
    ``after`` [B] that they were taken for; ``shares``: strategy field -> (values, probability of each
    [B,V])."""

    names: tuple[str, ...]
    classes: tuple[str, ...]
    norm: str
    attack_norm: str
    x: Tensor
    y: Tensor
    p: Tensor
    eps: Tensor
    x_adv: Tensor
    after: Tensor
    shares: dict[str, tuple[list[float], Tensor]]


def explained(options: ExplainOptions) -> Explained:
    """Look at the images that ``options`` name; UsageError or UserError where run or images do not work."""
    check_options(options)
    path = Path(options.run)
    subject = from_run(path, which="best", dataset=None, root=None, max_test=None, trust=options.trust)
    if subject.config is None or not path.is_dir():
        raise UsageError(f"RUN: '{path}' is no run folder; name the folder that --out made")
    _, card = load_checkpointed(path, trust=options.trust)
    x, labels = read_images(options.images, subject)
    classes = tuple(card["class_names"])
    y = torch.tensor([-1 if label is None else label for label in labels])
    with frozen_eval(subject.net), torch.no_grad():
        p = subject.net(x).softmax(1)
    goal = torch.where(y < 0, p.argmax(1), y)
    norm = subject.config.evaluation.norm
    eps, x_adv = smallest_eps(subject.net, x, goal, options, norm)
    with torch.no_grad():
        after = subject.net(x_adv).argmax(1)
    batch = Batch(x=x, y=goal, index=torch.arange(len(x)), global_size=len(x))
    shares = _shares(path, subject, batch, len(classes), options.trust)
    names = options.images
    return Explained(names, classes, norm, subject.config.attack.norm, x, y, p, eps, x_adv, after, shares)


def check_options(options: ExplainOptions) -> None:
    """UsageError for a number out of range."""
    check_least({"num-steps": (1, options.num_steps), "restarts": (1, options.restarts)})
    if not 1e-6 <= options.resolution < 1:
        raise UsageError(f"--resolution: {options.resolution:g} is out of range; give 1e-6 or more, below 1")


def read_images(names: Sequence[str], subject: EvaluationTarget) -> tuple[Tensor, list[int | None]]:
    """x [B,C,H,W] in [0,1] of the run's shape, and the labels where they are known.

    UsageError for a place outside the test set, UserError for a file that is no image.
    """
    rows: list[Tensor] = []
    labels: list[int | None] = []
    for name in names:
        if name.isdigit():
            if int(name) >= len(subject.images):
                raise UsageError(f"IMAGE: {name} is not in the test set; give 0 to {len(subject.images) - 1}")
            rows.append(subject.images.x[int(name)])
            labels.append(int(subject.images.y[int(name)]))
        else:
            data = subject.config.data if subject.config else DataConfig()
            rows.append(_read_file(Path(name), subject.image_shape, data))
            labels.append(None)
    return torch.stack(rows).to(dtype_of(subject.net)).div_(255), labels


def _read_file(path: Path, shape: tuple[int, int, int], data: DataConfig) -> Tensor:
    if not path.exists():
        raise UsageError(f"IMAGE: '{path}' is no file and no place in the test set; check it")
    return read_image(path, shape, background=data.background, fit=data.fit)


def largest_eps(norm: str, size: int) -> float:
    """The distance in [0,1] pixels between black and white images of ``size`` = C*H*W numbers: no
    perturbation is larger."""
    return math.sqrt(size) if norm == "l2" else 1.0


def smallest_eps(
    net: nn.Module, x: Tensor, y: Tensor, options: ExplainOptions, norm: str = "linf"
) -> tuple[Tensor, Tensor]:
    """The smallest eps [B] in ``norm`` at which PGD was seen to fool the net on x [B,C,H,W], y [B], and
    images that did.

    Bisection to ``options.resolution``; 0 where the net is wrong without an attack, inf where not
    even the largest eps fools it. An upper bound: a stronger attack may need less.
    """
    most = largest_eps(norm, x[0].numel())
    with frozen_eval(net):
        with torch.no_grad():
            wrong = net(x).argmax(1) != y
        low, high = torch.zeros(len(x)), torch.full((len(x),), torch.inf)
        high[wrong] = 0.0
        x_adv = x.clone()
        attempt = torch.full((len(x),), most)
        while True:
            open_rows = ((high - low > options.resolution) & ~wrong & (low < most)).nonzero()[:, 0]
            if not len(open_rows):
                return high, x_adv
            for row in open_rows.tolist():
                found = _attempt(net, x[row : row + 1], y[row : row + 1], float(attempt[row]), options, norm)
                if found is None:
                    low[row] = attempt[row]
                else:
                    x_adv[row], high[row] = found, attempt[row]
                attempt[row] = (low[row] + min(float(high[row]), most)) / 2


def _attempt(
    net: nn.Module, x: Tensor, y: Tensor, eps: float, options: ExplainOptions, norm: str
) -> Tensor | None:
    attack = PGDSpec(
        norm=norm,
        eps=eps,
        step_size=2.5 * eps / options.num_steps,
        num_steps=options.num_steps,
        restarts=options.restarts,
        stop_early=True,
    )
    batch = Batch(x=x, y=y, index=torch.zeros(1, dtype=torch.int64), global_size=1)
    found = run_pgd(net, batch, attack, RandomKey.of("explain", repr(eps)))
    return found.x_adv[0] if bool(found.fooled[0]) else None


def _shares(
    path: Path, subject: EvaluationTarget, batch: Batch, num_classes: int, trust: bool
) -> dict[str, tuple[list[float], Tensor]]:
    """Field -> (values, probability of each for each image [B,V]); fields with a choice only."""
    assert subject.config is not None
    trained_policy = load_policy(RunFolder(path), subject.config, subject.image_shape, trust=trust)
    seen = observed(subject.config, batch, subject.net, num_classes, ProcessGroup())
    shares = strategy_shares(trained_policy.learner, trained_policy.space, seen, RandomKey.of("explain"))
    grid = {name: list(subject.config.attack.grid.get(name, ())) for name in trained_policy.space.names}
    return {
        name: (grid[name], share)
        for name, share in zip(trained_policy.space.names, shares, strict=True)
        if share.shape[1] > 1
    }


def format_eps(eps: float, most: float = 1.0) -> str:
    """``7.25/255``, and words where there is no such number up to ``most``, the largest there is."""
    if eps == 0:
        return "wrong already"
    return f"{255 * eps:.2f}/255 ({eps:.4f})" if np.isfinite(eps) else f"none up to {most:.4g}"


def picture(found: Explained) -> Figure:
    """Every image beside what was changed and what it became."""
    cards = []
    for n, name in enumerate(found.names):
        delta = found.x_adv[n] - found.x[n]
        stretched = 0.5 + 0.5 * delta / delta.abs().max().clamp_min(1e-12)
        pictures: list[tuple[str, Any]] = [
            ("image", found.x[n]),
            ("perturbation", stretched),
            ("fooling", found.x_adv[n]),
        ]
        best = int(found.p[n].argmax())
        seen = f"seen as {found.classes[best]} ({100 * float(found.p[n].max()):.0f} %)"
        eps, after = float(found.eps[n]), found.classes[int(found.after[n])]
        told = format_eps(eps, largest_eps(found.norm, found.x[0].numel()))
        then = told if eps == 0 else f"at {NORM_NAMES[found.norm]} eps {told} as {after}"
        cards.append(
            Card(
                title=Path(name).name,
                runs=(),
                color=BLUE,
                pictures=[(word, (255 * part).round().to(torch.uint8).numpy()) for word, part in pictures],
                lines=[seen, then],
            )
        )
    return Figure(slug="explain", title="Smallest perturbation that fools the net", about="", cards=cards)
