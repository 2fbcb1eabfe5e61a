"""The few kinds of marks that every figure is made of. Two renderers draw them, one writes them as CSV.

Every mark names the ``runs`` it shows: where all of them are switched off, it goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Names = tuple[str, ...]
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """A line, with a band from ``low`` to ``high`` where these are given; ``axis``: which of the
    panel's stacked y axes; ``faint``: one seed behind its group's mean."""

    name: str
    runs: Names
    color: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    dash: Literal["solid", "dash", "dot"] = "solid"
    axis: int = 0
    faint: bool = False

    def rows(self) -> list[Row]:
        bounds = zip(self.low, self.high, strict=True) if len(self.low) else [("", "")] * len(self.x)
        return [
            {"series": self.name, "axis": self.axis, "x": x, "y": y, "low": low, "high": high}
            for x, y, (low, high) in zip(self.x, self.y, bounds, strict=True)
        ]


@dataclass(frozen=True, kw_only=True, slots=True)
class Dots:
    """Points with error bars of ``x_err`` and ``y_err``; ``hollow``: numbers that others reported; ``faint``:
    one seed beside its group's mean."""

    name: str
    runs: Names
    color: str
    x: Sequence[float]
    y: Sequence[float]
    x_err: Sequence[float] = ()
    y_err: Sequence[float] = ()
    text: Sequence[str] = ()
    hollow: bool = False
    faint: bool = False
    size: int = 9

    def rows(self) -> list[Row]:
        texts = self.text or [""] * len(self.x)
        found = zip(self.x, self.y, texts, strict=True)
        return [{"series": self.name, "x": x, "y": y, "text": text} for x, y, text in found]


@dataclass(frozen=True, kw_only=True, slots=True)
class Bars:
    """One value a category; bars of several marks stand side by side, or are ``stacked``."""

    name: str
    runs: Names
    color: str
    x: Sequence[str]
    y: Sequence[float]
    err: Sequence[float] = ()
    stacked: bool = False

    def rows(self) -> list[Row]:
        return [{"series": self.name, "x": x, "y": y} for x, y in zip(self.x, self.y, strict=True)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Heat:
    """``z`` [len(y)][len(x)], from the background (0) to ``color`` (``top``)."""

    name: str
    runs: Names
    color: str
    x: Sequence[Any]
    y: Sequence[str]
    z: Sequence[Sequence[float]]
    top: float
    unit: str
    text: bool = False

    def rows(self) -> list[Row]:
        return [
            {"series": self.name, "x": x, "y": y, "z": self.z[j][i]}
            for j, y in enumerate(self.y)
            for i, x in enumerate(self.x)
        ]


Mark = Curve | Dots | Bars | Heat


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """One coordinate system; several ``y_labels`` stack as many axes over one x axis.

    ``picture`` [C,H,W] uint8 stands before the title; ``runs``: with all of these off, it goes; ``sideways``:
    bars lie, so that long names of categories have room.
    """

    title: str
    marks: Sequence[Mark]
    x_label: str
    y_labels: Sequence[str]
    runs: Names = ()
    log: bool = False
    square: bool = False
    upside_down: bool = False
    sideways: bool = False
    picture: np.ndarray | None = None
    height: int = 300


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """Pictures [C,H,W] uint8 in a row, with a word under each, and lines about them."""

    title: str
    runs: Names
    color: str
    pictures: Sequence[tuple[str, np.ndarray]]
    lines: Sequence[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """``slug`` names its files, ``about`` says what to look at, ``keys`` explains line styles."""

    slug: str
    title: str
    about: str
    panels: Sequence[Panel] = ()
    cards: Sequence[Card] = ()
    note: str = ""
    wide: bool = False

    def rows(self) -> list[Row]:
        """Everything that is drawn, as rows of a CSV."""
        drawn = [{"panel": p.title, **row} for p in self.panels for mark in p.marks for row in mark.rows()]
        return drawn + [
            {"panel": card.title, "series": " ".join(card.runs), "text": "; ".join(card.lines)}
            for card in self.cards
        ]
