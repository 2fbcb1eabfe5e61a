"""Every generated table and picture of README, docs and benchmarks/README.md, from the committed records.

python -m benchmarks.tables                       # write all of them
python -m benchmarks.tables --check               # only compare: names what would change, exit status 1
python -m benchmarks.tables docs/methods.md ...   # only these pages

Pictures that matplotlib draws are written anew and not compared. The table of docs/reliability.md that shows
what commands answer to bad input runs all of them, a minute; tests/robustness/test_bad_input.py compares it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

from benchmarks.common import ROOT, read_record
from benchmarks.faults import fault_campaign
from benchmarks.gpu import launches
from benchmarks.speed import first_net
from benchmarks.studies import (
    bandit_study,
    compute_plane,
    credit_check,
    learning_curves,
    methods_table,
    policy_study,
    precision_study,
    robust_overfitting,
    strategy_study,
)
from benchmarks.tables import bad_input, packages, scaling, speed, speed_figure, strategy_picture, tuning
from benchmarks.tables.marked import put_blocks

Tables = Callable[[], dict[str, str]]
PAGES: dict[str, tuple[Tables, ...]] = {
    "README.md": (learning_curves.tables,),
    "benchmarks/README.md": (speed.tables, precision_study.tables, launches.tables),
    "docs/learners.md": (bandit_study.tables,),
    "docs/own/data.md": (first_net.told,),
    "docs/methods.md": (methods_table.tables,),
    "docs/reliability.md": (fault_campaign.tables,),
    "docs/scaling.md": (scaling.tables,),
    "docs/strategy_learning.md": (
        compute_plane.tables,
        credit_check.tables,
        policy_study.tables,
        robust_overfitting.tables,
        strategy_study.tables,
    ),
    "docs/tuning.md": (tuning.tables,),
}
"""Page -> functions that return its tables: mark -> text."""
COMPARED: dict[str, Callable[..., int]] = {
    "docs/packages.svg": packages.write,
    "benchmarks/speed.png": lambda check: speed_figure.write(
        speed_figure.speed_figure(
            read_record(speed.ROUNDS[1]), *map(speed.of_run, ("batch_size", "workers", "dataset_size"))
        ),
        check=check,
    ),
}
DRAWN: dict[str, Callable[[], None]] = {
    "docs/learners.md": lambda: bandit_study.draw(bandit_study.read()),
    "docs/scaling.md": lambda: scaling.draw(read_record("scaling")),
    "docs/strategy_learning.md": lambda: strategy_picture.draw(
        read_record("strategy_front_digits"), ROOT / "docs" / "figures" / "strategy_front_digits.png"
    ),
}


def stale(names: list[str], *, check: bool) -> Iterator[str]:
    """Write the named pages and pictures, or with ``check`` yield those that would change."""
    for name in names:
        if name in COMPARED:
            changed = COMPARED[name](check=check)
        else:
            blocks = {mark: text for tables in PAGES[name] for mark, text in tables().items()}
            if name == "docs/reliability.md" and not check:
                blocks |= bad_input.tables()
            changed = put_blocks(ROOT / name, blocks, check=check)
        if changed:
            yield name
        if name in DRAWN and not check:
            DRAWN[name]()


def main(words: list[str]) -> int:
    """Run the command; its exit status."""
    known = [*PAGES, *COMPARED]
    names = [word for word in words if word != "--check"] or known
    if unknown := [name for name in names if name not in known]:
        raise SystemExit(
            f"benchmarks.tables: '{unknown[0]}' is not generated; choose from: {', '.join(known)}"
        )
    found = list(stale(names, check="--check" in words))
    if found:
        print(
            f"not what the records say: {', '.join(found)}; run python -m benchmarks.tables", file=sys.stderr
        )
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
