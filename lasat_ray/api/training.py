"""``lasat_ray.train``: a training run from Python."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_type_hints

from rich.console import Console
from torch import nn

from lasat_ray.api.given_data import FILE, GivenData, given_data
from lasat_ray.api.results import TrainResult
from lasat_ray.api.running import check_all, fitted_to, run_one, trainer, uploads_of
from lasat_ray.api.settings import base_config, check_trusted, given_in, is_file
from lasat_ray.api.words import in_python
from lasat_ray.cli.run_options import RunOptions
from lasat_ray.cli.streams import make_console
from lasat_ray.config import TrainConfig
from lasat_ray.config.changes import changed, flattened, read_value
from lasat_ray.config.hints import expected
from lasat_ray.config.json_io import flag, read_config
from lasat_ray.errors import UsageError
from lasat_ray.models.given import PREFIX, spell
from lasat_ray.recipes import DEFAULT
from lasat_ray.recipes.images import is_fitted
from lasat_ray.runs.begin import resume_or_start
from lasat_ray.runs.callbacks import find_callbacks
from lasat_ray.runs.cleanup import undone_if_refused
from lasat_ray.runs.folder import RunFolder, fresh_path
from lasat_ray.runs.mirror import brought
from lasat_ray.runs.trust import check_code, check_folder
from lasat_ray.training.inputs import load_config_dataset
from lasat_ray.validation import check

_COMMANDS_OWN = {"compare", "compare_by", "dry_run", "list_recipes", "debug", "format"}
Net = str | nn.Module | Callable[..., nn.Module]
"""A name as in ``--model``, a module, or a function or class that makes one."""
Listeners = Sequence[tuple[str, object]]


@in_python
def train(
    config: str | Path | TrainConfig | None = None,
    /,
    *,
    data: Any = None,
    test: Any = None,
    class_names: Sequence[str] | None = None,
    net: Net | None = None,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    num_workers: int = 0,
    device: str = "auto",
    progress: bool = True,
    log: Sequence[str] = (),
    callbacks: Sequence[object] = (),
    trust: bool = False,
    **settings: Any,
) -> TrainResult:
    """Train a robust classifier; what ``python -m lasat_ray.train`` does, with data and nets of one's own.

    ``config``: a recipe's name, a file of settings or a ``TrainConfig``; None is the default recipe, with
    data of one's own ``images``, which chooses sizes by them. ``settings``: changes to it, as ``recipe``
    takes them, and the other options of where and how: ``address``, ``cpus_per_worker``, ``max_failures``,
    ``start_timeout``, ``hang_timeout``, ``accept_changed_data``, ``resume_or_start`` (begin, go on with, or
    find finished in ``out``).

    ``data``: a name as in ``--dataset``; (x, y), x [N,C,H,W] tensors or [N,H,W,C] arrays, uint8 or floats in
    [0,1], y [N] whole numbers from 0; a torch Dataset of (image, label); a Hugging Face dataset; or a dict
    with ``train`` and ``test``. ``test``: the test images likewise; where there are none a fifth of ``data``
    is held out. ``class_names``: where the data has none of its own.

    ``net``: a name as in ``--model``; a module from images [B,C,H,W] in [0,1] to logits [B,N], copied with
    its weights; or a function or class that makes one, called with those of ``num_classes`` and
    ``image_shape`` (C,H,W) that it takes.

    ``out``: the new run folder or its URL, None means runs/NAME; ``resume``: a run folder, or its URL, to
    continue, with its own settings. ``num_workers``: Ray workers, 0 trains in this process; ``device``: auto,
    cpu or cuda; ``progress``: print a line an epoch; ``log``: of wandb, mlflow; ``callbacks``: objects,
    classes or ``"module:Class"`` with some of ``on_start``, ``on_round``, ``on_epoch``, ``on_checkpoint``,
    ``on_end``, called with the run's records (``lasat_ray.runs.callbacks.Callback``); ``trust``: run
    code that the folder of ``resume``, or of a run's config.json, names.

    UsageError or UserError in one line, naming the argument, for whatever cannot work.
    """
    listeners = find_callbacks([callbacks] if isinstance(callbacks, str) else callbacks)
    where = {"num_workers": num_workers, "device": device, "out": out, "resume": resume, "log": tuple(log)}
    file = str(config) if is_file(config) else None
    named = {"callbacks": tuple(name for name, _ in listeners), "trust": trust, "config": file}
    options, settings = _options({**where, **named}, settings)
    console = make_console() if progress else Console(quiet=True)
    if options.resume is not None:
        settings = {"config": config, "data": data, "test": test, "class_names": class_names, **settings}
        given = [name for name, value in settings.items() if value is not None]
        return _resumed(options, given, net, console, listeners)
    parts = None if data is None or isinstance(data, str) else given_data(data, test, class_names)
    for name, value in (("test", test), ("class_names", class_names)):
        if parts is None and value is not None:
            raise UsageError(f"{name}: has no effect with named data; give data=(x, y) with it")
    in_file = {flag(path) for path in given_in(config)}
    settings = _with_data_and_net(settings, data, net)
    source, config = config, changed(base_config(config, "images" if parts else DEFAULT), settings)
    check_trusted(source, config, trust, [path for path, _ in flattened(settings)])
    if options.out and options.resume_or_start:
        brought(options.out, "--out", begun=False)
    path = options.folder or fresh_path(config)
    if parts:
        config = dataclasses.replace(config, dataset=f"npz:{(path / FILE).resolve()}")
    check(config)
    config = _fitted(config, parts, settings, in_file, console)
    check_all(config, options)
    return _new_run(config, parts, options, path, console, listeners)


def _options(given: dict[str, Any], settings: dict[str, Any]) -> tuple[RunOptions, dict[str, Any]]:
    """The options of where and how, and what is left of ``settings``."""
    hints = get_type_hints(RunOptions, include_extras=True)
    if "config" in settings:
        raise UsageError("config: stands first and without its name; write train(config, ...)")
    for name in _COMMANDS_OWN & settings.keys():
        raise UsageError(f"{name}: is the command's alone; leave it out")
    values = {**given, **{name: value for name, value in settings.items() if name in hints}}
    for name, value in values.items():
        try:
            values[name] = read_value(hints[name], value)
        except ValueError:
            raise UsageError(f"{name}: {value!r} is not accepted; give {expected(hints[name])}") from None
    return RunOptions(**values), {name: value for name, value in settings.items() if name not in hints}


def _with_data_and_net(settings: dict[str, Any], data: Any, net: Net | None) -> dict[str, Any]:
    for argument, name, value in (("data", "dataset", data), ("net", "model", net)):
        if value is None:
            continue
        if name in settings:
            raise UsageError(f"{name}: is given beside {argument}; leave one of the two out")
        if argument == "net" or isinstance(value, str):
            settings = {**settings, name: spell(value) if argument == "net" else value}
    return settings


def _fitted(
    config: TrainConfig,
    parts: GivenData | None,
    settings: dict[str, Any],
    in_file: set[str],
    console: Console,
) -> TrainConfig:
    """Sizes by the images that are there, of the recipes that say so; other recipes as they are."""
    if not is_fitted(config.recipe):
        return config
    if parts is None:
        dataset = load_config_dataset(config)
        count, shape = len(dataset.train), dataset.image_shape
    else:
        count, shape = len(parts.train.images), parts.image_shape
    given = {flag(path) for path, _ in flattened(settings)} | in_file
    config, chosen = fitted_to(config, count, shape, given)
    told = f"Recipe {config.recipe} for {count:,} training images {shape} (C,H,W): {chosen}"
    console.print(told.replace("--", "").replace("batch-size", "batch_size"), soft_wrap=True)
    return config


def _new_run(
    config: TrainConfig,
    parts: GivenData | None,
    options: RunOptions,
    path: Path,
    console: Console,
    callbacks: Listeners,
) -> TrainResult:
    notes = parts.notes if parts else ()
    uploads = uploads_of(options, console)
    with uploads as uploaded, undone_if_refused(path), trainer(options, console) as train_run:
        begin = resume_or_start if options.resume_or_start else RunFolder.create
        folder = begin(path, config, run=dataclasses.asdict(options))
        if parts:
            parts.put(path)
        for note in notes:
            console.print(note, soft_wrap=True)
        summary, _ = run_one(config, folder, options, train_run, console, [*callbacks, *uploaded])
    return TrainResult(path, summary, config, notes)


def _resumed(
    options: RunOptions, given: list[str], net: Net | None, console: Console, callbacks: Listeners
) -> TrainResult:
    if given:
        raise UsageError(f"{given[0]}: cannot be set with resume; a resumed run keeps its settings")
    path = brought(str(options.resume), "--resume")
    check_folder(path, options.trust)
    folder = RunFolder.open(path)
    config = read_config(path / "config.json")
    check_code(config, str(path / "config.json"), options.trust)
    if net is not None and (spelled := spell(net)) != config.model:
        raise UsageError(
            f"net: is '{spelled}' and the run's is '{config.model}'; give the net that it began with"
            + ("" if config.model.startswith(PREFIX) else ", or none")
        )
    check_all(config, options)
    uploads = uploads_of(options, console)
    with uploads as uploaded, undone_if_refused(path), trainer(options, console) as train_run:
        summary, _ = run_one(config, folder, options, train_run, console, [*callbacks, *uploaded])
    return TrainResult(path, summary, config)
