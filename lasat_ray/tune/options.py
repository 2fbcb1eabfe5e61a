"""The command line that all sweeps share: any training setting, the sweep's own, and where it runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from tyro.conf import OmitArgPrefixes, arg

from lasat_ray.cli.parsing import flags_of, parse, value_of
from lasat_ray.cli.placement import WorkerOptions, labels_of
from lasat_ray.cli.run_options import Switch, check_retry
from lasat_ray.config import TrainConfig
from lasat_ray.config.config_file import config_of_file
from lasat_ray.config.json_io import config_from_json, config_to_json, leaves
from lasat_ray.errors import UsageError, UserError, check_least, refusal
from lasat_ray.recipes import get_recipe
from lasat_ray.runs.same import first_difference, other_settings
from lasat_ray.runs.trust import check_code, check_folder, of_a_run
from lasat_ray.tune.storage import TRIALS, Store

S = TypeVar("S")
DEFINITION = "sweep.json"
RECIPE = TrainConfig().recipe
"""What sweeps train where nobody names a recipe: the plain game, whose tables they make."""
EVERYDAY = (
    *("--recipe", "--dataset", "--model", "--method", "--epochs", "--batch-size", "--num-workers"),
    *("--max-concurrent", "--gpus-per-trial", "--out", "--resume", "--dry-run"),
)


@dataclass(frozen=True, kw_only=True)
class SweepRun(WorkerOptions):
    """Where and how the trials execute; nothing here changes what a finished trial computed."""

    num_workers: int = 0
    """Ray Train workers of each trial; 0 trains a trial in one process."""
    max_concurrent: int | None = None
    """Trials at a time; None: as many as fit, but one where the trials are timed."""
    cpus_per_trial: float | None = None
    """Processor cores of a trial (with workers: of all of them); None: 1 each, or a fair share."""
    gpus_per_trial: float = 0.0
    """GPUs of a trial, a fraction lets trials share one; 0 trains on the processor."""
    out: str | None = None
    """New folder or fsspec URL of the sweep; None means runs/NAME."""
    resume: str | None = None
    """Folder or URL of a sweep to continue, with its own settings."""
    resume_or_start: Switch = False
    """Start in --out, continue what was interrupted there, or tell the results: one command to repeat."""
    trust: Switch = False
    """Run the code that --resume's sweep, or --config's run, names as module:name; follow links."""
    config: str | None = None
    """Settings of the trials in a YAML, TOML or JSON file, any run's config.json too; flags win over it."""
    address: str | None = None
    """Running Ray cluster to join: auto, HOST:PORT or ray://HOST:PORT."""
    asha: Switch = False
    """Stop trials early that validate badly (ASHA); never those that are timed."""
    max_failures: int = 3
    """Restarts from the last epoch of a trial whose process was lost."""
    start_timeout: float = 120.0
    """Seconds to wait for the workers of a trial to start."""
    dry_run: Switch = False
    """Print the plan and stop."""
    debug: Switch = False
    """Show tracebacks."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One parsed command line. ``settings``: the sweep's own dataclass."""

    config: TrainConfig
    settings: Any
    run: SweepRun
    store: Store
    command: str

    def definition(self) -> dict[str, Any]:
        """All that decides what the sweep computes."""
        return {"sweep": self.command, "config": config_to_json(self.config), "settings": self.own()}

    def own(self) -> dict[str, Any]:
        """The settings that are the sweep's and not a training's."""
        settings = {name: _plain(value) for name, value in dataclasses.asdict(self.settings).items()}
        return settings | {"asha": self.run.asha}

    @property
    def goes_on(self) -> bool:
        """Whether the sweep may have been begun before."""
        return self.run.resume is not None or self.run.resume_or_start


def parse_sweep(argv: Sequence[str], command: str, settings: type[S], description: str) -> Asked:
    """Defaults come from --resume's folder, else from --config's file or from --recipe; UsageError in one
    line."""
    resume, recipe, file = (value_of(option, argv) for option in ("--resume", "--recipe", "--config"))
    for option, value in (("--recipe", recipe), ("--config", file)):
        if resume is not None and value is not None:
            raise UsageError(f"{option}: '{value}' cannot be set with --resume; leave {option} out")
    kind = dataclasses.make_dataclass(
        "Command",
        [
            ("settings", Annotated[settings, arg(name="sweep"), OmitArgPrefixes]),
            ("run", Annotated[SweepRun, OmitArgPrefixes]),
            ("train", Annotated[TrainConfig, arg(name="")]),
        ],
        frozen=True,
        kw_only=True,
    )
    known = flags_of(TrainConfig) | flags_of(settings) | flags_of(SweepRun)
    everyday = (*flags_of(settings), *EVERYDAY)
    if resume is None:
        config = _of_file(file, recipe, settings) if file is not None else get_recipe(recipe or RECIPE).config
        default = kind(train=config, settings=settings(), run=SweepRun())
    else:
        check_folder(Path(resume), "--trust" in argv)
        default = kind(**_defined(Store(resume), command, settings(), "--resume"))
    prog = f"python -m lasat_ray.tune.{command}"
    parsed: Any = parse(
        kind, argv, prog=prog, description=description, default=default, known=known, everyday=everyday
    )
    check_run(parsed.run, parsed.train)
    store = Store(resume or parsed.run.out or fresh_place(command))
    source = f"{resume}/{DEFINITION}" if resume is not None else of_a_run(file)
    if source is not None:
        named = [token.partition("=")[0].replace("_", "-") for token in argv]
        check_code(parsed.train, source, parsed.run.trust, named)
    asked = Asked(config=parsed.train, settings=parsed.settings, run=parsed.run, store=store, command=command)
    check_store(asked, settings())
    return asked


def _of_file(file: str, recipe: str | None, settings: type) -> TrainConfig:
    """The settings of the trials that a file gives; what is the sweep's or the command's is refused there."""
    options = {f.name for cls in (settings, SweepRun) for f in dataclasses.fields(cls)}
    return config_of_file(Path(file), recipe, lambda name: get_recipe(name or RECIPE).config, options)[0]


def check_new(store: Store) -> None:
    """UsageError where something stands already."""
    if store.exists():
        remedy = f"choose another, or continue it with --resume {store.out}"
        raise UsageError(f"--out: '{store.out}' already exists; {remedy}")


def check_store(asked: Asked, settings: Any) -> None:
    """UsageError where the place holds another sweep than the one that is asked for."""
    store, run = asked.store, asked.run
    if not asked.goes_on:
        return check_new(store)
    if run.resume_or_start:
        check_folder(Path(store.out), run.trust)
        if not store.exists(DEFINITION):
            if store.exists(TRIALS):
                remedy = "restore that from a copy, or choose another --out"
                raise UserError(f"{store.out}: has trials but its {DEFINITION} is gone; {remedy}")
            return
    defined = _defined(store, asked.command, settings, "--out" if run.resume_or_start else "--resume")
    there = dataclasses.replace(
        asked, config=defined["train"], settings=defined["settings"], run=defined["run"]
    )
    if changed := first_difference(*({**dict(leaves(a.config)), **a.own()} for a in (asked, there))):
        if run.resume_or_start:
            raise other_settings(*changed, store.out)
        raise UsageError("--resume: a resumed sweep keeps its settings; leave the other settings out")


def _defined(store: Store, command: str, settings: Any, option: str) -> dict[str, Any]:
    """What a sweep's folder, which ``option`` names, says it is, as defaults of the command line."""
    file = store.read_json(DEFINITION)
    if file is None:
        raise UsageError(f"{option}: '{store.out}' holds no sweep (no {DEFINITION}); name what --out made")
    told = _checked(file, store.out)
    if told["sweep"] != command:
        raise UsageError(
            f"{option}: '{store.out}' is a {told['sweep']}; run python -m lasat_ray.tune.{told['sweep']}"
        )
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in told["settings"].items()
    }
    run = SweepRun(asha=values.pop("asha"))
    try:
        settings = dataclasses.replace(settings, **values)
    except TypeError as error:
        raise UserError(f"--resume: '{store.out}' has settings this version lacks ({error})") from error
    return {"train": config_from_json(told["config"], DEFINITION), "settings": settings, "run": run}


def _checked(file: Any, where: str) -> Mapping[str, Any]:
    """What a sweep.json defines; UserError where it is none of ours."""
    told = file.get("definition") if isinstance(file, dict) else None
    if not isinstance(told, dict) or not {"sweep", "config", "settings"} <= set(told):
        raise UserError(f"--resume: '{where}/{DEFINITION}' defines no sweep; restore it from the original")
    if not isinstance(told["settings"], dict) or "asha" not in told["settings"]:
        raise UserError(f"--resume: '{where}/{DEFINITION}' lacks its settings; restore it from the original")
    return told


def check_run(run: SweepRun, config: TrainConfig) -> None:
    """Refuse numbers that cannot be, and what does not go together."""
    if run.asha and (config.budget_passes or config.budget_minutes):
        told = "compares trials epoch by epoch, of which a budget gives unlike numbers"
        raise UsageError(f"--asha: {told}; leave it or the budget out")
    numbers: dict[str, tuple[float, float | None]] = {
        "num-workers": (0, run.num_workers),
        "max-concurrent": (1, run.max_concurrent),
        "max-failures": (0, run.max_failures),
        "cpus-per-trial": (0.01, run.cpus_per_trial),
        "gpus-per-trial": (0, run.gpus_per_trial),
        "start-timeout": (1.0, run.start_timeout),
    }
    check_least(numbers)
    if run.out is not None and run.resume is not None:
        raise UsageError(f"--out: '{run.out}' cannot be set with --resume; a resumed sweep keeps its place")
    share = run.gpus_per_trial / max(run.num_workers, 1)
    if share > 1 and share != int(share):
        raise UsageError(
            f"--gpus-per-trial: {share:g} GPUs a process cannot be; give whole ones or less than 1"
        )
    if share < 1 and share and run.num_workers > 1:
        raise UsageError(
            f"--gpus-per-trial: {run.num_workers} workers cannot share a GPU (NCCL wants one each); "
            f"give {run.num_workers}, or --num-workers 0"
        )
    _check_where(run)
    check_retry(run.resume_or_start, run.out, run.resume)
    if run.trust and not any((run.resume, run.resume_or_start, run.config)):
        raise UsageError("--trust: has nothing to trust without --resume; leave it out")
    if (run.out or run.resume or "").startswith("memory:"):
        raise UsageError(
            f"--out: '{run.out or run.resume}' lies in the memory of one process, trials are others; "
            "give a path or another URL"
        )
    if run.num_workers and "://" in (run.out or run.resume or ""):
        raise UsageError(
            f"--out: '{run.out or run.resume}' is a URL, but the workers of a trial share a folder; "
            "give a path that all machines share, or --num-workers 0"
        )


def _check_where(run: SweepRun) -> None:
    """Refuse wishes about machines that would change nothing; a trial in one process is placed too."""
    labels_of(run.node_labels)
    if run.accelerator_type and not run.gpus_per_trial:
        what, remedy = "has no effect on the processor", "add --gpus-per-trial N"
        raise refusal("--accelerator-type", f"'{run.accelerator_type}'", what, remedy)
    if run.placement != "pack" and not run.num_workers:
        what = "has no effect on trials of one process"
        raise refusal("--placement", f"'{run.placement}'", what, "add --num-workers N")


def check_untouched(config: TrainConfig, paths: Sequence[str], remedy: str) -> None:
    """Refuse training settings that the sweep itself sets; they would have no effect."""
    base = dict(leaves(get_recipe(config.recipe).config))
    for path, value in leaves(config):
        if path in paths and value != base[path]:
            option = "--" + path.replace("_", "-")
            raise UsageError(f"{option}: '{value}' has no effect in this sweep; {remedy}")


def check_unused(settings: Any, names: Sequence[str], where: str) -> None:
    """Refuse settings of the sweep that change nothing ``where`` they stand, unless they are the defaults."""
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if field.name in names and value != field.default:
            option = "--" + field.name.replace("_", "-")
            shown = " ".join(f"{v:g}" for v in value) if isinstance(value, tuple) else value
            raise UsageError(f"{option}: '{shown}' has no effect {where}; leave it out")


def check_seeds(seeds: Sequence[int]) -> None:
    if not seeds:
        raise UsageError("--seeds: is empty; give at least one")
    check_distinct("--seeds", seeds)


def check_distinct(option: str, values: Sequence[float]) -> None:
    for value in values:
        if list(values).count(value) > 1:
            raise UsageError(f"{option}: {value:g} stands twice; give each value once")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def fresh_place(command: str) -> str:
    """runs/COMMAND-N with the first free N."""
    n = 1
    while (path := Path("runs") / f"{command.replace('_', '-')}-{n}").exists():
        n += 1
    return str(path)
