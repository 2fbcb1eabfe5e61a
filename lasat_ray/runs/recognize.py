"""Which net somebody's weights belong to: by their keys, else by what their BatchNorm layers remember.

Files of one kind of net are told apart by their keys where these differ. ``TWINS`` share all keys and compute
different functions; then the running statistics in the file, which were taken under the right one, are held
against those that each of the two has on images.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lasat_ray.errors import UsageError
from lasat_ray.models.modes import eval_mode

UNUSED = ("sub_block1.", "model_preact_hl1.")
"""Keys of published WideResNet and PreActResNet files that no forward pass reads."""
WRAPPERS = ("module.", "_orig_mod.", "model.", "backbone.", "net.")
"""What DataParallel, torch.compile and wrappers put before every key."""
NORMALIZATIONS = (("mu", "sigma"), ("mean", "std"), ("normalize.mean", "normalize.std"))
"""How RobustBench's nets call the numbers that pixels are normalized with."""
FAMILY = re.compile(
    r"(?P<family>(dm_)?wrn|(dm_)?preact_resnet18(_active|_raw|_bn)?)(?P<size>(-\d+)*)(?P<silu>-silu)?"
)
KEYS = {
    "wrn": ("wrn",),
    "dm_wrn": ("dm_wrn",),
    "preact_resnet18_active": ("preact_resnet18",),
    "preact_resnet18_raw": ("preact_resnet18", "preact_resnet18_raw"),
    "preact_resnet18_bn": ("preact_resnet18_bn",),
    "dm_preact_resnet18": ("dm_preact_resnet18",),
}
"""A family of nets -> which forms of keys are its own; ``preact_resnet18`` alone stands for them all."""
FITS, CLEARLY = 0.5, 2.0
"""Statistics fit images where their distance is at most the first, and another net's so many times more."""
STRANGE = 1.0
"""A distance beyond which a person is told."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recognized:
    """``model``: the net's name, as MODELS and PATTERNS have it; ``certain``: whether the keys say so, where
    a twin has the same ones; ``note``: what to tell about it."""

    model: str
    certain: bool = True
    note: str = ""


def recognize(model: str, keys: Mapping[str, object], source: str) -> Recognized:
    """The net that plain ``keys`` belong to, for a person who asked for ``model``.

    UsageError naming ``source`` where they are those of another net than ``model`` may stand for.
    """
    asked, found = FAMILY.fullmatch(model), _form(keys)
    if asked is None or found is None:
        return Recognized(model=model)
    family, size = asked["family"], asked["size"]
    if family == "preact_resnet18" and found == family:
        return Recognized(model=f"{family}_active{size}", certain=False)
    if family == "preact_resnet18" and found.endswith(("_bn", "_raw", "preact_resnet18")):
        return _told(model, f"{found}{size}", source)
    if family == "wrn" and found == "dm_wrn" and asked["silu"]:
        return _told(model, f"dm_{model}", source)
    if found in KEYS.get(family, ()):
        return Recognized(model=model)
    known = f"dm_wrn{size}" if family == "wrn" and found == "dm_wrn" else found
    remedy = f"{known}-silu, or {known} where it was trained with ReLU" if known != found else known
    raise UsageError(f"{source}: its keys are those of {found}, not of '{model}'; name {remedy}")


def _form(keys: Mapping[str, object]) -> str | None:
    """The family that keys give away; None for all others."""
    if "init_conv.weight" in keys:
        return "dm_wrn"
    if "conv_2d.weight" in keys:
        return "dm_preact_resnet18"
    if "block1.layer.0.bn1.weight" in keys:
        return "wrn"
    if "layer1.0.bn1.weight" not in keys or "bn1.weight" in keys or "layer1.0.conv3.weight" in keys:
        return None
    if any(key.startswith(UNUSED[1]) for key in keys):
        return "preact_resnet18_raw"
    return "preact_resnet18_bn" if "bn.weight" in keys else "preact_resnet18"


def _told(asked: str, found: str, source: str) -> Recognized:
    return Recognized(model=found, note=f"{source}: by its keys '{asked}' is {found}")


def twin_of(model: str) -> str | None:
    """The net that has the same keys as ``model`` and computes something else; None where there is none."""
    if "_active" in model or "_raw" in model:
        return model.replace("_active", "_RAW").replace("_raw", "_active").replace("_RAW", "_raw")
    if re.fullmatch(r"(dm_)?wrn-\d+-\d+(-silu)?", model):
        return model.removesuffix("-silu") if model.endswith("-silu") else f"{model}-silu"
    return f"preact_resnet18_raw{model[15:]}" if re.fullmatch(r"preact_resnet18(-\d+)?", model) else None


def take_normalization(
    weights: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], tuple[Tensor, Tensor] | None]:
    """(the other weights, (mean, std) of any shape), with wrappers' prefixes taken off both."""
    plain = without_wrappers(weights)
    for mean, std in NORMALIZATIONS:
        if mean in plain and std in plain:
            pixel = plain.pop(mean), plain.pop(std)
            return without_wrappers(plain), pixel
    return plain, None


def without_wrappers(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, the prefixes that all keys share off."""
    plain = dict(weights)
    while prefix := next((p for p in WRAPPERS if plain and all(key.startswith(p) for key in plain)), None):
        plain = {key.removeprefix(prefix): value for key, value in plain.items()}
    return plain


def distances(net: nn.Module, x: Tensor) -> list[float]:
    """How far each BatchNorm's input on x [B,C,H,W] in [0,1] lies from the layer's running statistics.

    The mean over channels of the squared difference of means in units of the variance, and of the
    logarithm of the ratio of variances, which a net's own training images bring near 0.
    """
    found: list[float] = []

    def compare(norm: nn.Module, given: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        mean, var = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
        x = given[0].detach()
        shift = (x.mean((0, 2, 3)) - mean).square() / (var + norm.eps)
        scale = ((x.var((0, 2, 3)) + norm.eps) / (var + norm.eps)).log().abs()
        found.append(float((shift + scale).mean()))

    layers = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d) and m.running_var is not None]
    hooks = [layer.register_forward_pre_hook(compare) for layer in layers]
    try:
        with torch.no_grad(), eval_mode(net):
            net(x)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def better(ours: list[float], theirs: list[float]) -> int:
    """1 where the statistics clearly fit the first net, -1 the second, 0 where they do not tell.

    Layers that both pass alike say nothing and are left out.
    """
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if a != b]
    if not pairs:
        return 0
    mine, other = (sum(values) / len(pairs) for values in zip(*pairs, strict=True))
    if mine <= FITS and other >= CLEARLY * mine:
        return 1
    return -1 if other <= FITS and mine >= CLEARLY * other else 0
