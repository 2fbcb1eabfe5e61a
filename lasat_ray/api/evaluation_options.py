"""An evaluation as it is asked for, by the command or from Python: options, their checks, the plan."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from lasat_ray.cli.run_options import Switch
from lasat_ray.config import Budget, EvalConfig
from lasat_ray.config.files import check_local
from lasat_ray.errors import UsageError, check_least
from lasat_ray.evaluation.attacks import split_name
from lasat_ray.evaluation.evaluate_net import Runner
from lasat_ray.evaluation.plan import DEFAULT_ATTACKS, EvaluationPlan
from lasat_ray.evaluation.run_here import run_here
from lasat_ray.evaluation.subject import EvaluationTarget, from_run, from_weights


@dataclass(frozen=True, kw_only=True)
class AttackOptions:
    """What the net is put to; all of it decides the figures."""

    run: Annotated[Positional[str], arg(metavar="RUN")]
    """Run folder, checkpoint file, or the name of a net (wrn-34-10, module:function) with --weights."""
    attacks: tuple[str, ...] = DEFAULT_ATTACKS
    """Attacks in order, of those named above."""
    n_examples: int | None = None
    """Use only this many test images, even over the classes: the same ones as --data.max-test."""
    eps: Budget | None = None
    """Budget in [0,1] pixels; None takes the run's, else 8/255 (l2: 128/255)."""
    norm: Literal["linf", "l2"] | None = None
    """Norm of the budget; None takes the run's, else linf."""
    step_size: Budget | None = None
    """Step of pgd and cw, in [0,1] pixels; None takes the run's where eps is the run's too, else eps / 4."""
    restarts: int = 1
    """Random starts of pgd and cw."""
    all_steps: Switch = False
    """pgd, cw: take every step and count the last, not the first that fools the net; dearer, weaker."""
    worst_case: Switch = False
    """Attack only what the attacks before left; the last accuracy is the worst case."""
    sanity_examples: int = 64
    """Images of the check whether figures can be trusted; 0 leaves it out."""
    corruptions: str | None = None
    """Instead of attacks, common corruptions: a folder of .npy files like CIFAR-10-C's, or make."""
    corruption_baseline: str | None = None
    """corruptions.json of a reference net on the same images; adds the mCE relative to it."""
    seed: int | None = None
    """Names every random start; None takes the run's, else 0."""
    chunk_size: int = 200
    """Images in one piece of work, whoever does it; decides AutoAttack's random numbers."""


@dataclass(frozen=True, kw_only=True)
class NetOptions:
    """Which net on which images, where RUN alone does not say."""

    which: Literal["best", "last"] = "best"
    """Checkpoint of a run folder."""
    weights: str | None = None
    """State dict (torch.save or safetensors) for a net that is named."""
    dataset: str | None = None
    """Test set, spelled as in training; None takes the run's."""
    data_root: str | None = None
    """Folder of the torchvision data sets; None takes the run's, else the default of training."""
    mean: tuple[float, ...] = (0.0,)
    """Subtracted from pixels before a net with --weights; one number or one a channel."""
    std: tuple[float, ...] = (1.0,)
    """Divides them after that."""
    trust: Switch = False
    """Run the code that a checkpoint names as module:function."""


@dataclass(frozen=True, kw_only=True)
class ResultOptions:
    """Files and folders that the evaluation writes."""

    out: str | None = None
    """Folder of the report; None means the run's, or one beside the file."""
    save_images: Switch = False
    """Keep the adversarial images, in images/ATTACK.safetensors."""
    export_robustbench: str | None = None
    """Also write weights and model card by RobustBench's convention into this folder."""


@dataclass(frozen=True, kw_only=True)
class PlaceOptions:
    """Where it runs; nothing here changes a figure on a CPU."""

    num_workers: int = 0
    """Ray workers; 0 evaluates in this process without Ray."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes a GPU where there is one."""
    address: str | None = None
    """Running Ray cluster to join, for example auto, HOST:PORT or ray://HOST:PORT."""
    cpus_per_worker: float | None = None
    """Processor cores each worker reserves and uses; None shares what there is, one thread each."""
    max_failures: int = 3
    """Workers that may be lost before the evaluation stops."""
    start_timeout: float = 120.0
    """Seconds to wait for the workers to start."""
    debug: Switch = False
    """Show tracebacks."""


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(AttackOptions, NetOptions, ResultOptions, PlaceOptions):
    """What to evaluate, how hard, and where."""


def make_plan(options: EvaluateOptions, subject: EvaluationTarget) -> EvaluationPlan:
    """What is left open is as the run had it: budget, step and seed."""
    trained = subject.config.evaluation if subject.config else EvalConfig()
    norm = options.norm or trained.norm
    own_eps = trained.eps if norm == trained.norm else 128 / 255 if norm == "l2" else 8 / 255
    eps = own_eps if options.eps is None else options.eps
    step_size = options.step_size
    if step_size is None and norm == trained.norm and eps == trained.eps:
        step_size = trained.step_size
    seed = options.seed
    if seed is None:
        seed = subject.config.seed if subject.config else 0
    return EvaluationPlan(
        attacks=options.attacks,
        eps=eps,
        norm=norm,
        step_size=step_size,
        restarts=options.restarts,
        n_examples=options.n_examples,
        chunk_size=options.chunk_size,
        seed=seed,
        all_steps=options.all_steps,
        worst_case=options.worst_case,
        save_images=options.save_images,
        sanity_examples=options.sanity_examples,
    )


def target_of(options: EvaluateOptions) -> EvaluationTarget:
    """The net and the images that the options name."""
    data: dict[str, Any] = {
        "dataset": options.dataset,
        "root": options.data_root,
        "max_test": options.n_examples,
    }
    if options.weights is None:
        return from_run(Path(options.run), which=options.which, trust=options.trust, **data)
    return from_weights(options.run, Path(options.weights), mean=options.mean, std=options.std, **data)


def check_options(options: EvaluateOptions) -> None:
    """What can be refused before anything is loaded."""
    if options.weights is None and not Path(options.run).exists():
        raise UsageError(
            f"RUN: '{options.run}' is no run folder or checkpoint; for the name of a net add --weights FILE"
        )
    check_local("--out", options.out)
    check_local("--export-robustbench", options.export_robustbench)
    for name in options.attacks:
        split_name(name)
    numbers: dict[str, tuple[float, float | None]] = {
        "num-workers": (0, options.num_workers),
        "n-examples": (1, options.n_examples),
        "chunk-size": (1, options.chunk_size),
        "max-failures": (0, options.max_failures),
        "cpus-per-worker": (0.001, options.cpus_per_worker),
        "start-timeout": (1, options.start_timeout),
    }
    check_least(numbers)


@contextmanager
def runner(options: EvaluateOptions) -> Iterator[Runner]:
    """This process, or Ray for the time of the block."""
    if not options.num_workers:
        yield run_here
        return
    from lasat_ray.cluster.evaluate_on_ray import evaluate_on_ray
    from lasat_ray.cluster.session import ray_session

    with ray_session(options.address, options.start_timeout):
        yield partial(
            evaluate_on_ray,
            num_workers=options.num_workers,
            cpus_per_worker=options.cpus_per_worker,
            max_failures=options.max_failures,
            start_timeout=options.start_timeout,
        )
