"""``python -m lasat_ray.evaluate RUN --attacks clean pgd-10 aa``: accuracy of a net under attack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Annotated

from rich.console import Console
from tyro.conf import OmitArgPrefixes, arg

from lasat_ray.api.evaluating import carry_out
from lasat_ray.api.evaluation_options import (
    AttackOptions,
    EvaluateOptions,
    NetOptions,
    PlaceOptions,
    ResultOptions,
    check_options,
    target_of,
)
from lasat_ray.cli.display import next_lines
from lasat_ray.cli.parsing import asks_help, flags_of, parse
from lasat_ray.cli.streams import make_console
from lasat_ray.cluster.local import choose_device
from lasat_ray.config.files import place_of_results
from lasat_ray.errors import UsageError
from lasat_ray.evaluation import SPELLINGS
from lasat_ray.evaluation.corruptions import REPORT as CORRUPTIONS
from lasat_ray.evaluation.kept import place_told
from lasat_ray.evaluation.robustbench import check_exportable, export_robustbench
from lasat_ray.evaluation.run_corruptions import MAKE, check_unused, evaluate_corruptions, spelling_of
from lasat_ray.evaluation.show import attack_table, verdict_line, worst_line
from lasat_ray.evaluation.show_corruptions import corruption_lines, severity_table
from lasat_ray.runs.mirror import named_run


@dataclass(frozen=True, kw_only=True)
class _Grouped:
    asked: Annotated[AttackOptions, arg(name="")]
    net: Annotated[NetOptions, OmitArgPrefixes]
    result: Annotated[ResultOptions, OmitArgPrefixes]
    run: Annotated[PlaceOptions, OmitArgPrefixes]


_DESCRIPTION = (
    "Accuracy of a trained net under attack; the same command continues an evaluation that was killed.\n\n"
    f"Attacks: {', '.join(SPELLINGS)}; cw is cw-30."
)
EVERYDAY = (
    *("--run", "--attacks", "--n-examples", "--eps", "--norm", "--dataset", "--weights", "--num-workers"),
    *("--device", "--out", "--corruptions"),
)


def parse_evaluate(argv: Sequence[str]) -> EvaluateOptions:
    """The options of one evaluation; UsageError in one line. Exits with 0 after --help."""
    args = list(argv)
    if (not args or args[0].startswith("-")) and not asks_help(args):
        raise UsageError(
            "RUN is missing; write it first: python -m lasat_ray.evaluate RUN_FOLDER --attacks pgd-10"
        )
    known = flags_of(EvaluateOptions)
    prog = "python -m lasat_ray.evaluate"
    asked = parse(_Grouped, args, prog=prog, description=_DESCRIPTION, known=known, everyday=EVERYDAY)
    options = EvaluateOptions(**{k: v for group in vars(asked).values() for k, v in vars(group).items()})
    return replace(options, run=named_run(options.run))


def run(argv: Sequence[str]) -> int:
    """The command; exit status 0. UserError for all else."""
    return _evaluate(parse_evaluate(argv))


def _evaluate(options: EvaluateOptions) -> int:
    console = make_console()
    check_options(options)
    check_unused({field.name: (getattr(options, field.name), field.default) for field in fields(options)})
    if options.corruptions is not None:
        return _corruptions(options, console)
    device = choose_device(options.device)
    subject = target_of(options)
    out = Path(options.out) if options.out else place_of_results(subject.out)
    if options.export_robustbench:
        check_exportable(subject)
    for line in subject.facts.get("notes", ()):
        console.print(f"note: {line}", highlight=False, markup=False, soft_wrap=True)
    report = carry_out(options, subject, out, device, console)
    console.print(attack_table(report))
    console.print(verdict_line(report), highlight=False, soft_wrap=True)
    console.print(place_told(out, report), highlight=False, markup=False, soft_wrap=True)
    if options.export_robustbench:
        written = export_robustbench(subject, report, Path(options.export_robustbench))
        console.print(f"RobustBench: {written}", highlight=False, soft_wrap=True)
    console.print(worst_line(report), highlight=False, markup=False, soft_wrap=True)
    _tell_next(subject.out, console)
    return 0


def _tell_next(run: Path, console: Console) -> None:
    """What is done next with a run; nothing for a net that is none."""
    if (run / "config.json").is_file():
        for line in next_lines(run, evaluated=True):
            console.print(line, highlight=False, markup=False, soft_wrap=True)


def _corruptions(options: EvaluateOptions, console: Console) -> int:
    """The table of common corruptions, which runs no attack."""
    say = partial(console.print, highlight=False, markup=False, soft_wrap=True)
    where = options.corruptions or MAKE
    subject = target_of(replace(options, dataset=options.dataset or spelling_of(where)))
    out = Path(options.out) if options.out else place_of_results(subject.out)
    report = evaluate_corruptions(
        subject,
        where,
        with_clean=options.dataset is not None or where == MAKE,
        n_examples=options.n_examples,
        seed=options.seed,
        chunk_size=options.chunk_size,
        device=choose_device(options.device),
        out=out,
        baseline=options.corruption_baseline,
        tell=say,
    )
    console.print(severity_table(report))
    for line in (*corruption_lines(report), f"report: {out / CORRUPTIONS}"):
        say(line)
    _tell_next(subject.out, console)
    return 0
