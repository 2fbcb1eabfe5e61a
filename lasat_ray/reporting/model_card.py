"""A net's model card in Markdown: what it takes and gives, its classes, what was measured, how to run it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lasat_ray.config.units import format_threat
from lasat_ray.evaluation.carried import TRAVELS

_FRONT = """---
library_name: lasat-ray
pipeline_tag: image-classification
tags:
  - image-classification
  - adversarial-robustness
---
"""
_ONNX = """
```python
import json

import numpy as np
import onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession("{file}")
told = session.get_modelmeta().custom_metadata_map
channels, height, width = json.loads(told["image_shape"])
image = Image.open("photo.png").convert("L" if channels == 1 else "RGB").resize((width, height))
x = np.asarray(image, dtype=np.float32).reshape(1, height, width, channels).transpose(0, 3, 1, 2) / 255
(logits,) = session.run(None, {{"images": x}})
print(json.loads(told["class_names"])[int(logits[0].argmax())])
```
"""


def model_card(card: Mapping[str, Any], files: tuple[str, ...] = ()) -> str:
    """A net's card, as ``evaluation.carried.carried`` makes it, in Markdown; ``files``: those beside it."""
    shape = tuple(card["image_shape"])
    parts = [
        f"{_FRONT}\n# {card['model']}, robust image classifier\n",
        f"Trained with lasat-ray {card.get('lasat_ray', '')}{_of(card)}",
        "\n## Input and output\n",
        f"Images `[B, {', '.join(map(str, shape))}]` (channels, height, width), pixels in [0,1]; "
        f"normalization is inside the net{_normalized(card)}. Output: logits `[B, {card['num_classes']}]` "
        "in the order of the classes:\n",
        _classes(card),
        "\n## Measured\n",
        accuracy_table(card),
        _budget(card),
    ]
    onnx = next((file for file in files if file.endswith(".onnx")), None)
    if onnx:
        parts += ["\n## Run it\n\nWith onnxruntime alone:\n", _ONNX.format(file=onnx).lstrip("\n")]
    return "\n".join(part.rstrip("\n") for part in parts if part) + "\n"


def accuracy_table(card: Mapping[str, Any]) -> str:
    """The accuracies of a card as a Markdown table; a sentence where there are none."""
    rows = card.get("accuracies")
    if not rows:
        return "Nothing was measured on these weights; `python -m lasat_ray.evaluate RUN` does.\n"
    lines = [f"On {words(card.get('accuracies_of', ''))}:", ""]
    lines += ["| attack | budget | accuracy | 95 % interval |", "|---|---|---|---|"]
    for row in rows:
        threat = format_threat(row["norm"], row["eps"]) if row.get("eps") else ""
        interval = row.get("interval")
        told = f"{100 * interval[0]:.2f} to {100 * interval[1]:.2f} %" if interval else ""
        lines.append(f"| {words(row['name'])} | {threat} | {100 * row['accuracy']:.2f} % | {told} |")
    return "\n".join(lines) + "\n"


def words(text: object) -> str:
    """Words from a file as Markdown shows them: no markup, no cell of its own, no line break."""
    plain = " ".join(str(text).split())
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>|#" else c for c in plain)


def _of(card: Mapping[str, Any]) -> str:
    data = f" on {words(card['dataset'])}" if card.get("dataset") else ""
    method = f" by {words(card['method'])}" if card.get("method") else ""
    return f"{method}{data}."


def _normalized(card: Mapping[str, Any]) -> str:
    mean, std = card.get("mean"), card.get("std")
    if not mean or not std or (not any(mean) and all(value == 1 for value in std)):
        return " (there is none)"
    shown = [", ".join(f"{value:.4g}" for value in values) for values in (mean, std)]
    return f" (mean {shown[0]}, std {shown[1]})"


def _classes(card: Mapping[str, Any]) -> str:
    names = card.get("class_names") or [str(n) for n in range(card["num_classes"])]
    return ", ".join(f"{n} {words(name)}" for n, name in enumerate(names)) + "\n"


def _budget(card: Mapping[str, Any]) -> str:
    if not card.get("eps"):
        return ""
    threat = format_threat(card["norm"], card["eps"])
    return (
        f"\nThe net was made to withstand changes of at most {threat}; larger changes, other norms, and "
        "changes that no norm tells (rotations, other lighting) are beyond what was measured.\n"
    )


def hub_files(card: Mapping[str, Any]) -> dict[str, Any]:
    """Name -> content of the JSON files of a folder for Hugging Face."""
    return {"config.json": _hub_config(card), "preprocessor_config.json": _preprocessor(card)}


def _hub_config(card: Mapping[str, Any]) -> dict[str, Any]:
    """config.json of a folder for Hugging Face: its own names for classes and sizes, and the card."""
    names = card.get("class_names") or [str(n) for n in range(card["num_classes"])]
    return {
        "architectures": [card["model"]],
        "library_name": "lasat-ray",
        "id2label": {str(n): name for n, name in enumerate(names)},
        "label2id": {name: n for n, name in enumerate(names)},
        "num_channels": card["image_shape"][0],
        "image_size": list(card["image_shape"][1:]),
        "lasat_ray": {name: card[name] for name in TRAVELS if card.get(name) is not None},
    }


def _preprocessor(card: Mapping[str, Any]) -> dict[str, Any]:
    """preprocessor_config.json: resize, and pixels to [0,1]; the rest is inside the net."""
    _, height, width = card["image_shape"]
    return {
        "do_resize": True,
        "size": {"height": height, "width": width},
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": False,
    }
