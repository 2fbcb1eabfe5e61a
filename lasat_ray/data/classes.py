"""Whether two inputs speak of the same classes: by their names, and by their numbers where one has no names.

Everything that brings two sets of labels together asks here: the parts of a data set, the files of a part,
a net and a set, a checkpoint and a set, a teacher and its pupil, evaluations in one table. An answer is a
mapping of labels or an error that names the first class that differs; nothing is assumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lasat_ray.errors import UserError


@dataclass(frozen=True, slots=True)
class Classes:
    """The classes behind some labels: class n is ``names[n]``.

    ``named`` is False where a source gave numbers only, and ``names`` are the numbers' own digits.
    """

    names: tuple[str, ...]
    named: bool = True

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def numbered(cls, count: int) -> Classes:
        """Classes without names, numbered from 0."""
        return cls(number_names(count), named=False)


def number_names(count: int) -> tuple[str, ...]:
    """Class names where a source gives none: "0", "1", ..."""
    return tuple(str(n) for n in range(count))


def match(theirs: Classes, ours: Classes, them: str, us: str) -> np.ndarray | None:
    """Their labels in our numbering, int64 [len(theirs)]; None where both number alike.

    Where they have names, each has to be one of ours, and there may be fewer. Where either side has none,
    both have to be equally many. ``them`` and ``us`` name the two inputs in the UserError, which tells the
    first class that differs.
    """
    if theirs.names == ours.names:
        return None
    place = {name: n for n, name in enumerate(ours.names)}
    unknown = next((n for n, name in enumerate(theirs.names) if name not in place), None)
    if not theirs.named or (unknown is not None and not ours.named):
        if len(theirs) != len(ours):
            raise UserError(_unequal(theirs, ours, them, us))
        return None
    for some, whose in ((theirs, them), (ours, us)):
        _check_once(some, whose)
    if unknown is not None:
        own = f"'{ours.names[unknown]}'" if unknown < len(ours) else "nothing"
        raise UserError(
            f"{them}: class {unknown} is '{theirs.names[unknown]}', which is no class of {us} (its class "
            f"{unknown} is {own}); rename or remove it"
        )
    return np.array([place[name] for name in theirs.names], dtype=np.int64)


def check_same(theirs: Classes, ours: Classes, them: str, us: str, *, remedy: str) -> None:
    """UserError unless both number the same classes alike, for a net's outputs cannot be renumbered."""
    if theirs.names == ours.names:
        return
    told = ""
    if (theirs.named and ours.named) or set(theirs.names) == set(ours.names):
        for number in range(max(len(theirs), len(ours))):
            one, other = (f"'{s.names[number]}'" if number < len(s) else "nothing" for s in (theirs, ours))
            if one != other:
                told = f"class {number} is {one} and that of {us} is {other}"
                break
    elif len(theirs) != len(ours):
        told = f"has {len(theirs)} classes and {us} has {len(ours)}"
    if told:
        raise UserError(f"{them}: {told}; {remedy}")


def relabelled(label_N: np.ndarray, mapping: np.ndarray | None) -> np.ndarray:
    """Labels [N] in another numbering; negative ones, which stand for no label, stay."""
    if mapping is None or not len(label_N):
        return label_N
    return np.where(label_N < 0, label_N, mapping[np.clip(label_N, 0, None)])


def classes_of_names(names: Sequence[str], count: int | None = None) -> Classes:
    """The classes of a model card, whose names are digits in turn where its data set had none."""
    if not names:
        return Classes.numbered(count or 0)
    return Classes(tuple(names), named=tuple(names) != number_names(len(names)))


def _check_once(classes: Classes, whose: str) -> None:
    seen: set[str] = set()
    for number, name in enumerate(classes.names):
        if name in seen:
            raise UserError(f"{whose}: class {number} is '{name}' once more; give every class its own name")
        seen.add(name)


def _unequal(theirs: Classes, ours: Classes, them: str, us: str) -> str:
    nameless = them if not theirs.named else us
    first = min(len(theirs), len(ours))
    return (
        f"{them}: has {len(theirs)} classes and {us} has {len(ours)}, class {first} is the first to differ, "
        f"and {nameless} gives no names to tell which is which; name the classes in the file (npz: an array "
        "class_names; parquet: in the schema) or use images of all classes"
    )
