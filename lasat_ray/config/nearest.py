"""The known name that a wrong one was meant to be: by its last part, its words, then its letters."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable

_FIRST = "optim."  # of two settings with one name the target net's is the one that is asked for


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """At most two of ``known``, the likeliest first; none where nothing is near.

    Names are dotted paths, with or without ``--``, ``_`` counting as ``-``: ``--lr`` finds ``--optim.lr`` and
    ``--policy.lr``, ``--workers`` finds ``--num-workers``.
    """
    bare, names = _bare(name), {_bare(option): option for option in known}
    last = bare.rpartition(".")[2]
    ways: tuple[Callable[[str], bool], ...] = (
        lambda other: other.rpartition(".")[2] == last,
        lambda other: other.split("-")[-1].rpartition(".")[2] == last,
        lambda other: other.rpartition(".")[2].startswith(f"{last}-"),
        lambda other: last in re.split(r"[.-]", other),
    )
    for way in ways:
        if found := [other for other in names if way(other)]:
            return [names[other] for other in _sorted(found)[:2]]
    if close := difflib.get_close_matches(bare, names, n=1):
        return [names[other] for other in close]
    tails: dict[str, list[str]] = {}
    for other in names:
        tails.setdefault(other.rpartition(".")[2], []).append(other)
    close = difflib.get_close_matches(last, tails, n=1)
    return [names[other] for tail in close for other in _sorted(tails[tail])[:2]]


def did_you_mean(name: str, known: Iterable[str], otherwise: str) -> str:
    """The remedy of a message about a wrong name; ``otherwise`` where no name is near."""
    found = nearest(name, known)
    return f"did you mean {' or '.join(found)}?" if found else otherwise


def _bare(name: str) -> str:
    return name.lstrip("-").replace("_", "-")


def _sorted(names: list[str]) -> list[str]:
    """Settings outside groups first, then the target net's, then as they were declared."""
    return sorted(names, key=lambda name: ("." in name, not name.startswith(_FIRST)))
