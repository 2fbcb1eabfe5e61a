"""The command line of a training run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text
from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, arg

from lasat_ray.cli.parsing import (
    budget_spelled_out,
    flags_of,
    parse,
    value_of,
    workers_spelled_out,
)
from lasat_ray.cli.placement import WorkerOptions, check_placement
from lasat_ray.cli.short_help import TRAINING
from lasat_ray.config import TrainConfig
from lasat_ray.config.config_file import config_of_file
from lasat_ray.config.hints import spec_of
from lasat_ray.config.json_io import flag, leaves, read_config
from lasat_ray.config.loss import SEVERAL
from lasat_ray.config.urls import is_url, open_place
from lasat_ray.errors import UsageError, check_least, refusal
from lasat_ray.recipes import DEFAULT, RECIPES, get_recipe
from lasat_ray.runs.mirror import brought, local_path
from lasat_ray.runs.trust import check_code, check_folder, of_a_run
from lasat_ray.validation import check_name

Switch = Annotated[bool, FlagCreatePairsOff]


@dataclass(frozen=True, kw_only=True)
class RunOptions(WorkerOptions):
    """Where and how a run executes; nothing here changes what it computes."""

    num_workers: int = 0
    """Ray Train workers; 0 trains in this process without Ray. 2..8: as many as there are machines for."""
    min_workers: int | None = None
    """Fewest workers to go on with where machines come and go, --num-workers being the most."""
    cpus_per_worker: float | None = None
    """Processor cores each worker reserves; None shares what the machine has."""
    gpus_per_worker: float = 1.0
    """A fraction lets runs of one worker each share a GPU."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes a GPU where there is one."""
    address: str | None = None
    """Running Ray cluster to join, for example auto, HOST:PORT or ray://HOST:PORT."""
    out: str | None = None
    """Run folder, new, or a URL (s3://, gs://, az://); None means runs/NAME."""
    resume: str | None = None
    """Run folder, or URL, to continue, with its own settings."""
    resume_or_start: Switch = False
    """Start in --out, continue what was interrupted there, or tell the results: one command to repeat."""
    trust: Switch = False
    """Run the code that --resume's folder, or the net of a teacher, names as module:name; follow links."""
    accept_changed_data: Switch = False
    """With --resume: go on although the images are not those the run was stopped with; recorded."""
    config: str | None = None
    """Settings in a YAML, TOML or JSON file, any run's config.json too; flags win over them."""
    compare: str | None = None
    """Also train this method with its fixed attack, for example pgd-at."""
    compare_by: Literal["passes", "rounds", "seconds"] = "passes"
    """What --compare holds equal; passes: the other run may spend the passes that this one spent."""
    log: Annotated[tuple[Literal["wandb", "mlflow"], ...], SEVERAL] = ()
    """Also send the records to these, live; needs the extra of that name."""
    callbacks: Annotated[tuple[str, ...], SEVERAL] = ()
    """Classes of your own, module:Class, that hear the run: on_round, on_epoch, on_checkpoint, on_end."""
    log_actions: Switch = False
    """Also write what the strategist saw, chose and earned, image by image, to actions/*.parquet."""
    max_failures: int = 3
    """Restarts from the last checkpoint after a worker is lost."""
    start_timeout: float = 120.0
    """Seconds to wait for the workers to start."""
    hang_timeout: float = 1800.0
    """Seconds after which a round or a batch of an evaluation counts as hung, and its process is ended."""
    dry_run: Switch = False
    """Print the settings of the run and stop."""
    format: Literal["flags", "yaml", "toml", "json"] = "flags"
    """With --dry-run: print them as flags, or as a file for --config."""
    list_recipes: Switch = False
    """Print the recipes with their published numbers and stop."""
    debug: Switch = False
    """Show tracebacks."""

    @property
    def folder(self) -> Path | None:
        """The run folder of this machine that --resume or --out mean; None where neither is given."""
        place = self.resume or self.out
        return None if place is None else local_path(place)


@dataclass(frozen=True, kw_only=True)
class _Train:
    run: Annotated[RunOptions, OmitArgPrefixes]
    train: Annotated[TrainConfig, arg(name="")]


_DESCRIPTION = (
    "Adversarial training with a learnable attack strategy (LAS-AT); defaults are the --recipe's.\n\n"
    "Budgets are in [0,1] pixels, written 8/255 or 0.031; -k N is short for --update-interval N, "
    "--credit NAME for --reward.credit NAME, --budget 350passes (or 20minutes) for --budget-passes 350."
)
_SHORT = {"-k": "--update-interval", "--credit": "--reward.credit"}


def parse_train(argv: Sequence[str]) -> tuple[TrainConfig, RunOptions]:
    """The settings of a training run. Defaults come from --resume's folder, else from --recipe.

    Names and ranges are not checked here but in ``validate.check``. Exits with 0 after --help.
    """
    args = [re.sub(r"^(-k|--credit)(?==|$)", lambda short: _SHORT[short[1]], token) for token in argv]
    args = workers_spelled_out(budget_spelled_out(args))
    resume, recipe = value_of("--resume", args), value_of("--recipe", args)
    if resume is not None and recipe is not None:
        raise UsageError(f"--recipe: '{recipe}' cannot be set with --resume; leave --recipe out")
    file = value_of("--config", args)
    if resume is not None and file is not None:
        raise UsageError(f"--config: '{file}' cannot be set with --resume; a resumed run keeps its settings")
    if resume is not None:
        folder = brought(resume, "--resume")
        check_folder(folder, "--trust" in args)
        config = read_config(folder / "config.json")
    elif file is not None:
        config, _ = config_of_file(
            Path(file),
            recipe,
            lambda name: get_recipe(name or DEFAULT).config,
            RunOptions.__dataclass_fields__,
        )
    else:
        config = get_recipe(recipe if recipe is not None else DEFAULT).config
    default = _Train(train=config, run=RunOptions())
    known = {**flags_of(TrainConfig), **flags_of(RunOptions)}
    parsed = parse(
        _Train,
        args,
        prog="python -m lasat_ray.train",
        description=_DESCRIPTION,
        default=default,
        known=known,
        everyday=TRAINING,
    )
    source = of_a_run(folder / "config.json" if resume is not None else file)
    if source is not None:
        named = [token.partition("=")[0].replace("_", "-") for token in args]
        check_code(parsed.train, source, parsed.run.trust, named)
    if resume is None and parsed.run.resume_or_start and parsed.run.out is not None:
        check_folder(brought(parsed.run.out, "--out", begun=False), parsed.run.trust)
    return parsed.train, parsed.run


def check_run(config: TrainConfig, options: RunOptions, methods: Collection[str] | None = None) -> None:
    """Refuse run options that cannot work; ``methods`` as in ``validate.check``."""
    numbers: dict[str, tuple[float, float | None]] = {
        "num-workers": (0, options.num_workers),
        "min-workers": (1, options.min_workers),
        "max-failures": (0, options.max_failures),
        "cpus-per-worker": (0.001, options.cpus_per_worker),
        "start-timeout": (1.0, options.start_timeout),
        "hang-timeout": (1.0, options.hang_timeout),
    }
    check_least(numbers)
    check_placement(options)
    if options.num_workers > config.batch_size:
        shown = f"{config.batch_size} images cannot feed {options.num_workers} workers"
        raise UsageError(f"--batch-size: {shown}; give at least one image a worker")
    alone = options.num_workers < 2 and options.resume is None
    if config.optim.sync_batch_norm and alone and not options.resume_or_start:
        what = "has no effect in one process, which sees whole batches anyway"
        raise refusal("--optim.sync-batch-norm", "True", what, "leave it out or add --num-workers 2, say")
    _check_place(config, options)
    if options.log_actions and not config.learns:
        what = f"has no rewards to write with --strategy {config.strategy}"
        raise UsageError(f"--log-actions: {what}; give --strategy learned, or leave it out")
    if options.compare is None and options.compare_by != RunOptions.compare_by:
        what = "has nothing to compare without --compare"
        raise refusal("--compare-by", f"'{options.compare_by}'", what, "add --compare pgd-at, say")
    if options.compare is not None and methods is not None:
        check_name("--compare", options.compare, methods)


def _check_place(config: TrainConfig, options: RunOptions) -> None:
    """Refuse what does not fit where the run lies."""
    if options.format != "flags" and not options.dry_run:
        raise refusal("--format", f"'{options.format}'", "prints nothing without --dry-run", "add --dry-run")
    folders = (options.resume, options.config, config.init_from, config.teacher, config.robust_teacher)
    if options.trust and not any(folders) and not options.resume_or_start:
        what = "has nothing to trust without --resume, --teacher or --init-from"
        raise UsageError(f"--trust: {what}; leave it out")
    if options.accept_changed_data and options.resume is None and not options.resume_or_start:
        raise UsageError("--accept-changed-data: has nothing to accept without --resume; leave it out")
    if options.out is not None and is_url(options.out):
        open_place(options.out, "--out")
    if options.out is not None and options.resume is not None:
        raise UsageError(
            f"--out: '{options.out}' cannot be set with --resume; a resumed run keeps its folder"
        )
    check_retry(options.resume_or_start, options.out, options.resume)


def check_retry(resume_or_start: bool, out: str | None, resume: str | None) -> None:
    """UsageError where --resume-or-start has no place of its own to come back to."""
    if resume_or_start and resume is not None:
        raise UsageError("--resume-or-start: cannot be set with --resume; name the folder with --out instead")
    if resume_or_start and out is None:
        raise UsageError("--resume-or-start: has no folder to come back to; name one with --out")


def render_config(config: TrainConfig) -> str:
    """Return every setting as the command line spells it, one per line; it reads back to the same config."""
    hints = flags_of(TrainConfig)
    return "\n".join(_render(flag(path), hints[flag(path)], value) for path, value in leaves(config))


def render_recipes() -> Table:
    """The recipes with the table and row they come from and the numbers published there."""
    table = Table(
        title="Recipes (numbers as published, in %; time in minutes)",
        caption="NAME-rate is recipe NAME, whose strategy is learned, with the rate objective.",
        box=SIMPLE,
        min_width=80,
    )
    table.add_column("--recipe, table and row", no_wrap=True)
    table.add_column("reported")
    for recipe in RECIPES.values():
        source = f"  {recipe.table}, {recipe.row}" if recipe.table else "  no published row"
        numbers = ", ".join(f"{name} {value:g}" for name, value in recipe.reported.items())
        asked = f"\n  give {' '.join(recipe.needs)}" if recipe.needs else ""
        named = Text.assemble(recipe.name, "\n", (source + asked, "dim"))
        table.add_row(named, numbers or recipe.summary)
    return table


def _render(option: str, hint: Any, value: Any) -> str:
    if isinstance(value, bool):
        head, _, tail = option[2:].rpartition(".")
        return option if value else f"--{head}{'.' if head else ''}no-{tail}"
    spec = spec_of(hint)
    if value is not None and spec is not None:
        words = [str(word) for word in spec.str_from_instance(value)]
    else:
        words = [str(item) for item in value] if isinstance(value, tuple) else [str(value)]
    return shlex.join([option, *words])
