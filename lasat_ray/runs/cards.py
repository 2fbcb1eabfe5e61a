"""Model cards: what a checkpoint, or the header of an export, says of the net in it; none is trusted."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from lasat_ray.config.files import check_regular
from lasat_ray.data.guard import MAX_CLASSES, MAX_PIXELS
from lasat_ray.errors import UserError

_WORDS = ("format", "model", "precision", "norm", "dataset", "method", "accuracies_of", "lasat_ray")
"""What the header of an export spells as it is; everything else there is JSON."""
_NORMS = ("linf", "l2")


def check_card(card: Mapping[str, Any], file: Path) -> None:
    """UserError naming the first entry of a model card that cannot be what this program wrote."""
    shape, classes = card.get("image_shape"), card.get("class_names", [])
    kinds = {
        "model": isinstance(card.get("model"), str),
        "precision": isinstance(card.get("precision"), str),
        "num_classes": type(card.get("num_classes")) is int and 2 <= card["num_classes"] <= MAX_CLASSES,
        "image_shape": isinstance(shape, list)
        and len(shape) == 3
        and all(type(side) is int and 1 <= side <= MAX_PIXELS for side in shape)
        and math.prod(shape) <= MAX_PIXELS,
        "class_names": isinstance(classes, list) and all(isinstance(name, str) for name in classes),
    }
    for name, fits in kinds.items():
        if not fits:
            shown = textwrap.shorten(repr(card.get(name)), 60)
            raise UserError(f"{file}: its card's {name} is {shown}; this is no checkpoint of ours")
    if classes and len(classes) != card["num_classes"]:
        told = f"{len(classes)} class_names for {card['num_classes']} num_classes"
        raise UserError(f"{file}: its card has {told}; this is no checkpoint of ours")


def read_exported(file: Path) -> tuple[dict[str, Any], Mapping[str, Tensor]] | None:
    """The card in the header of what ``lasat_ray.export`` wrote as safetensors, and the weights; None for any
    other file. UserError where the header cannot be what it wrote."""
    check_regular(file)
    try:
        with safe_open(file, framework="pt") as opened:
            told = opened.metadata() or {}
        if not {"model", "num_classes", "image_shape", "precision"} <= told.keys():
            return None
        weights = load_file(file)
    except (SafetensorError, OSError, ValueError):
        return None  # a damaged file, or none: whoever reads it next tells what is wrong
    card: dict[str, Any] = {}
    for name, text in told.items():
        try:
            card[name] = text if name in _WORDS else json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"{file}: its header's {name} is no JSON ({error}); export the net anew"
            ) from error
    check_card(card, file)
    check_told(card, file)
    return card, weights


def check_told(card: Mapping[str, Any], file: Path) -> None:
    """UserError for the first thing in an export's header, beyond what builds the net, that has another form
    than ours have."""
    kinds = {
        "mean": _are_numbers(card.get("mean", [])),
        "std": _are_numbers(card.get("std", [])),
        "eps": _is_number(card.get("eps", 0.0)),
        "norm": card.get("norm", "linf") in _NORMS,
        "accuracies": isinstance(rows := card.get("accuracies", []), list) and all(map(_is_accuracy, rows)),
    }
    for name, fits in kinds.items():
        if not fits:
            shown = textwrap.shorten(repr(card.get(name)), 60)
            raise UserError(f"{file}: its header's {name} is {shown}; export the net anew")


def _is_accuracy(row: Any) -> bool:
    """Whether a row is one of name, accuracy, interval, n, norm and eps."""
    return (
        isinstance(row, dict)
        and isinstance(row.get("name"), str)
        and _is_number(row.get("accuracy"))
        and type(row.get("n")) is int
        and _is_number(row.get("eps"))
        and row.get("norm") in (*_NORMS, None)
        and (not row["eps"] or row["norm"] is not None)
        and _are_numbers(row.get("interval", [0, 1]))
        and len(row.get("interval", [0, 1])) == 2
    )


def _are_numbers(values: Any) -> bool:
    return isinstance(values, list) and all(map(_is_number, values))


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
