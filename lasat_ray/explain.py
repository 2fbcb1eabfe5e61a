"""``python -m lasat_ray.explain RUN IMAGE...``: what the nets make of single images, and how near
each is to being mistaken."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from rich.table import Table
from rich.text import Text
from torch import Tensor, nn
from tyro.conf import Positional, arg

from lasat_ray.attacks.strong import PGDSpec, run_pgd
from lasat_ray.cli.parsing import parse
from lasat_ray.cli.run_options import Switch, run_command
from lasat_ray.cli.streams import make_console
from lasat_ray.config import Budget
from lasat_ray.data.decode import Background, read_image
from lasat_ray.env.observation import observed
from lasat_ray.errors import UsageError
from lasat_ray.evaluation.subject import EvaluationTarget, from_run
from lasat_ray.models import dtype_of, frozen_eval
from lasat_ray.process_group import ProcessGroup
from lasat_ray.reporting.figure import Card, Figure
from lasat_ray.reporting.to_png import to_png
from lasat_ray.reporting.write import make_folder
from lasat_ray.rng import RandomKey
from lasat_ray.runs.checkpoint import write_atomically
from lasat_ray.runs.folder import RunFolder
from lasat_ray.runs.load import load_checkpointed
from lasat_ray.training.tracked_images import strategy_shares
from lasat_ray.training.trained_policy import load_policy
from lasat_ray.types import Batch
from lasat_ray.units import NORM_NAMES, field_name, format_value

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


def main(argv: Sequence[str] | None = None) -> int:
    """The command; exit status 0, 1 (run time) or 2 (usage)."""
    return run_command(lambda: _explain(sys.argv[1:] if argv is None else argv))


def _explain(argv: Sequence[str]) -> int:
    args = list(argv)
    if sum(not token.startswith("-") for token in args[:2]) < 2 and not {"--help", "-h"} & set(args):
        raise UsageError("RUN and IMAGE are missing; for example: python -m lasat_ray.explain RUN_FOLDER 0 1")
    description = "Prediction, chosen strategy and smallest fooling eps of single images."
    options = parse(ExplainOptions, args, prog="python -m lasat_ray.explain", description=description)
    _check(options)
    path = Path(options.run)
    subject = from_run(path, which="best", dataset=None, root=None, max_test=None, trust=options.trust)
    if subject.config is None or not path.is_dir():
        raise UsageError(f"RUN: '{path}' is no run folder; name the folder that --out made")
    _, card = load_checkpointed(path, trust=options.trust)
    x, labels = read_images(options.images, subject)
    classes = list(card["class_names"])
    y = torch.tensor([-1 if label is None else label for label in labels])
    with frozen_eval(subject.net), torch.no_grad():
        p = subject.net(x).softmax(1)
    goal = torch.where(y < 0, p.argmax(1), y)
    norm = subject.config.evaluation.norm
    eps, x_adv = smallest_eps(subject.net, x, goal, options, norm)
    batch = Batch(x=x, y=goal, index=torch.arange(len(x)), global_size=len(x))
    shares = _shares(path, subject, batch, len(classes), options.trust)
    console = make_console()
    console.print(_image_table(options, classes, y, p, eps, subject, x_adv))
    for table in _strategy_tables(shares, options.images, subject.config.attack.norm):
        console.print(table)
    out = Path(options.out) if options.out else path / "explain.png"
    make_folder(out.parent)
    write_atomically(out, to_png(_picture(options, classes, p, eps, subject, x, x_adv)))
    console.print(f"picture: {out}", highlight=False, soft_wrap=True)
    return 0


def _check(options: ExplainOptions) -> None:
    least = {"num-steps": (1, options.num_steps), "restarts": (1, options.restarts)}
    for option, (low, value) in least.items():
        if value < low:
            raise UsageError(f"--{option}: {value} is out of range; give {low} or more")
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
            background = subject.config.data.background if subject.config else "white"
            rows.append(_read_file(Path(name), subject.image_shape, background))
            labels.append(None)
    return torch.stack(rows).to(dtype_of(subject.net)).div_(255), labels


def _read_file(path: Path, shape: tuple[int, int, int], background: Background) -> Tensor:
    if not path.exists():
        raise UsageError(f"IMAGE: '{path}' is no file and no place in the test set; check it")
    return read_image(path, shape, background=background)


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


def _image_table(
    options: ExplainOptions,
    classes: list[str],
    y: Tensor,
    p: Tensor,
    eps: Tensor,
    subject: EvaluationTarget,
    x_adv: Tensor,
) -> Table:
    assert subject.config is not None
    norm = subject.config.evaluation.norm
    title = (
        f"Smallest {NORM_NAMES[norm]} eps: PGD-{options.num_steps}, {options.restarts} starts, known to "
        f"{255 * options.resolution:.2g}/255; an upper bound"
    )
    table = Table(title=title)
    for name in ("image", "label", "seen as", "next", "smallest eps", "then seen as"):
        table.add_column(name)
    with torch.no_grad():
        fooled_to = subject.net(x_adv).argmax(1)
    for n, name in enumerate(options.images):
        best = p[n].topk(min(2, len(classes)))
        told = [f"{classes[int(c)]} {100 * float(v):.1f} %" for v, c in zip(*best, strict=True)]
        label = "" if y[n] < 0 else classes[int(y[n])]
        after = classes[int(fooled_to[n])] if torch.isfinite(eps[n]) else ""
        table.add_row(
            *(name, label, told[0], told[1] if len(told) > 1 else ""),
            format_eps(float(eps[n]), largest_eps(norm, x_adv[0].numel())),
            after,
        )
    return table


def format_eps(eps: float, most: float = 1.0) -> str:
    """``7.25/255``, and words where there is no such number up to ``most``, the largest there is."""
    if eps == 0:
        return "wrong already"
    return f"{255 * eps:.2f}/255 ({eps:.4f})" if np.isfinite(eps) else f"none up to {most:.4g}"


def _strategy_tables(
    shares: dict[str, tuple[list[float], Tensor]], names: Sequence[str], norm: str
) -> list[Table]:
    """How likely the policy takes each value, a table a field; the likeliest in bold."""
    tables = []
    for field, (values, share) in shares.items():
        table = Table(title=f"Strategy: {field_name(field, norm)}, probability in %")
        table.add_column("image")
        for value in values:
            table.add_column(format_value(field, value), justify="right")
        for name, row in zip(names, share.tolist(), strict=True):
            likeliest = row.index(max(row))
            styles = ["bold" if n == likeliest else "" for n in range(len(row))]
            cells = [Text(f"{100 * p:.0f}", style) for p, style in zip(row, styles, strict=True)]
            table.add_row(name, *cells)
        tables.append(table)
    return tables


def _picture(
    options: ExplainOptions,
    classes: list[str],
    p: Tensor,
    eps: Tensor,
    subject: EvaluationTarget,
    x: Tensor,
    x_adv: Tensor,
) -> Figure:
    assert subject.config is not None
    norm = subject.config.evaluation.norm
    with torch.no_grad():
        after = subject.net(x_adv).argmax(1)
    cards = []
    for n, name in enumerate(options.images):
        delta = x_adv[n] - x[n]
        stretched = 0.5 + 0.5 * delta / delta.abs().max().clamp_min(1e-12)
        pictures: list[tuple[str, Any]] = [
            ("image", x[n]),
            ("perturbation", stretched),
            ("fooling", x_adv[n]),
        ]
        seen = f"seen as {classes[int(p[n].argmax())]} ({100 * float(p[n].max()):.0f} %)"
        found = format_eps(float(eps[n]), largest_eps(norm, x[0].numel()))
        then = found if eps[n] == 0 else f"at {NORM_NAMES[norm]} eps {found} as {classes[int(after[n])]}"
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


if __name__ == "__main__":
    sys.exit(main())
