"""Nets of libraries by name: ``torchvision:NAME``, ``timm:NAME``; behind an @ the weights to begin with."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lasat_ray.errors import UsageError, UserError, described, install
from lasat_ray.models.backbone import ImageShape
from lasat_ray.plugins import blaming

LIBRARIES = ("torchvision", "timm")
DEFAULT_TAG = "pretrained"
"""``timm:NAME@pretrained``: the weights that timm itself would choose."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LibraryBuilder:
    """Makes a library's net; ``mean``, ``std``: what its weights want pixels in [0,1] normalized with."""

    make: Callable[[int, ImageShape], nn.Module]
    mean: Sequence[float] = (0.0,)
    std: Sequence[float] = (1.0,)

    def __call__(self, *, num_classes: int, image_shape: ImageShape) -> nn.Module:
        """A net from images of (C,H,W) to ``num_classes`` logits."""
        return self.make(num_classes, image_shape)

    def pixels(self, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and std for so many channels; the average where the weights speak of others."""
        return _for(channels, self.mean), _for(channels, self.std)


def _for(channels: int, values: Sequence[float]) -> tuple[float, ...]:
    fits = len(values) in (1, channels)
    return tuple(values) if fits else (sum(values) / len(values),)


def architecture(name: str) -> str:
    """The name of a net without the weights that it begins with: who loads others needs none of them."""
    library, _, rest = name.partition(":")
    return f"{library}:{rest.partition('@')[0]}" if library in LIBRARIES else name


class RepeatGrey(nn.Module):
    """Gives ``net`` each grey image [B,1,H,W] as three equal channels."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.expand(-1, 3, -1, -1))


def library_builder(name: str, *, field: str) -> LibraryBuilder:
    """The builder behind a name of ``LIBRARIES``; UsageError where net or weights do not exist."""
    library, _, rest = name.partition(":")
    return (torchvision_builder if library == "torchvision" else timm_builder)(rest, field=field)


def torchvision_builder(spelled: str, *, field: str) -> LibraryBuilder:
    """torchvision's classifier ``NAME``, or ``NAME@WEIGHTS`` with published ones; DEFAULT is the best.

    UsageError if there is none or C is not 1 or 3; UserError where the weights cannot be fetched.
    """
    from torchvision import models  # slow to import and rarely wanted

    name, at, wanted = spelled.partition("@")
    known = models.list_models(module=models)
    if name not in known:
        close = difflib.get_close_matches(name, known, n=4) or ["resnet18", "mobilenet_v3_small", "vgg11_bn"]
        raise UsageError(f"{field}: torchvision has no classifier '{name}'; try one of: {', '.join(close)}")
    weights = _published(models.get_model_weights(name), name, wanted, field) if at else None
    # The auxiliary heads of these two make the output a tuple while training.
    options: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        options = {"aux_logits": False, "init_weights": weights is None}

    def make(num_classes: int, image_shape: ImageShape) -> nn.Module:
        channels, height, _ = image_shape
        if channels not in (1, 3):
            raise UsageError(
                f"{field}: 'torchvision:{name}' takes 3 channels and the images have {channels}; "
                "use a built-in net, timm:NAME or module:function"
            )
        sized = {"image_size": height} if name.startswith("vit_") else {}
        with _built(f"torchvision:{name}", image_shape, field):
            net = models.get_model(name, weights=None, num_classes=num_classes, **options, **sized)
        if weights is not None:
            _fill(net, _fetched(weights, spelled, field), height if sized else None)
        return RepeatGrey(net) if channels == 1 else net

    if weights is None:
        return LibraryBuilder(make=make)
    seen = weights.transforms()
    return LibraryBuilder(make=make, mean=tuple(seen.mean), std=tuple(seen.std))


def _published(every: Any, name: str, wanted: str, field: str) -> Any:
    """A member of torchvision's enum of the weights of a net."""
    found = getattr(every, wanted, None) if wanted in [*every.__members__, "DEFAULT"] else None
    if found is None:
        names = ", ".join(every.__members__) or "none"
        raise UsageError(f"{field}: torchvision has no weights '{wanted}' of {name}; choose one of: {names}")
    return found


def _fetched(weights: Any, spelled: str, field: str) -> dict[str, Tensor]:
    """The state dict of published weights, from torch's folder of them or from the net, hash compared."""
    try:
        return weights.get_state_dict(progress=False, check_hash=True, weights_only=True, map_location="cpu")
    except Exception as error:
        raise _unfetched(
            f"torchvision:{spelled}", f"{torch.hub.get_dir()}/checkpoints", error, field
        ) from error


def _unfetched(name: str, folder: str, error: Exception, field: str) -> UserError:
    told = described(error)[:200]
    return UserError(
        f"{field}: the weights of '{name}' are not on this machine and cannot be fetched ({told}); put them "
        f"into {folder}, or give --init-from with a file of them"
    )


def _fill(net: nn.Module, state: dict[str, Tensor], side: int | None) -> None:
    """Published weights, those of a head for other classes aside; a ViT's places stretched to ``side``."""
    if side is not None:
        from torchvision.models.vision_transformer import interpolate_embeddings

        state = interpolate_embeddings(side, net.patch_size, state)
    own = net.state_dict()
    fitting = {name: v for name, v in state.items() if name in own and own[name].shape == v.shape}
    net.load_state_dict({**own, **fitting})
    if hasattr(net, "transform_input"):
        net.transform_input = True  # type: ignore[assignment]  # as torchvision's own builders do beside their weights


@contextmanager
def _built(name: str, image_shape: ImageShape, field: str) -> Iterator[None]:
    """What a library raises while it builds a net, in one line."""
    told = f"{field}: '{name}' cannot be built for images {image_shape} (C,H,W):"
    remedy = "choose another net, or another size with --data.image-size"
    with blaming(lambda raised: UserError(f"{told} {raised[:200]}; {remedy}")):
        yield


def timm_builder(spelled: str, *, field: str) -> LibraryBuilder:
    """timm's net ``NAME``, untrained, or ``NAME@pretrained`` or ``NAME@TAG`` with weights from its hub.

    Any number of channels; nets of one image size are built for the images'. UsageError where timm is missing
    or has no such net; UserError where it cannot be built so, or the weights cannot be fetched.
    """
    try:
        import timm
    except ImportError as error:
        raise UsageError(f"{field}: 'timm:{spelled}' needs timm; {install('timm')}") from error
    name, at, tag = spelled.partition("@")
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=4) or [
            "resnet18",
            "vit_tiny_patch16_224",
        ]
        raise UsageError(f"{field}: timm has no net '{name}'; try one of: {', '.join(close)}")
    full = f"{name}.{tag}" if at and tag != DEFAULT_TAG else name
    if at and not timm.is_model_pretrained(full):
        tags = [known.rpartition(".")[2] for known in timm.list_pretrained(f"{name}.*")]
        known = ", ".join(tags) or "none"
        raise UsageError(
            f"{field}: timm has no weights '{tag}' of {name}; choose {DEFAULT_TAG} or one of: {known}"
        )
    config = timm.get_pretrained_cfg(full)

    def make(num_classes: int, image_shape: ImageShape) -> nn.Module:
        options: dict[str, Any] = {"num_classes": num_classes, "in_chans": image_shape[0]}
        if config is not None and config.fixed_input_size:
            options["img_size"] = image_shape[1:]
        with _built(f"timm:{name}", image_shape, field):
            net = timm.create_model(full, pretrained=False, **options)
        if not at:
            return net
        try:
            return timm.create_model(full, pretrained=True, **options)
        except Exception as error:
            raise _unfetched(f"timm:{spelled}", "the cache of Hugging Face", error, field) from error

    if not at or config is None:
        return LibraryBuilder(make=make)
    return LibraryBuilder(make=make, mean=config.mean, std=config.std)
