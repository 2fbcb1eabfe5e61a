"""What every built-in net shares: features [B,F], and a linear head that may be left out."""

from __future__ import annotations

from typing import ClassVar, Protocol

from torch import Tensor, nn

ImageShape = tuple[int, int, int]
"""(C, H, W) of one image."""


class Builder(Protocol):
    """Makes a net mapping images [B,C,H,W] to [B,num_classes]; outside functions have this call too."""

    def __call__(self, *, num_classes: int, image_shape: ImageShape) -> nn.Module: ...


class BackboneBuilder(Protocol):
    """A ``Builder`` of this package: with ``num_classes=None`` the net ends at its features [B,F]."""

    def __call__(self, *, num_classes: int | None, image_shape: ImageShape) -> Backbone: ...


class Backbone(nn.Module):
    """A net in two parts, ``head(features(x))``; x [B,C,H,W] -> [B,N].

    The head's attribute is called ``linear`` or ``fc`` as in the published checkpoints of each
    family; ``head`` finds it under either name. A subclass sets ``num_features``, the F of
    ``features``, and calls ``add_head`` last.
    """

    head_name: ClassVar[str] = "fc"
    num_features: int

    def add_head(self, num_classes: int | None) -> None:
        """Append the classifier layer, or nothing at all: an unused layer would get no gradient."""
        layer = nn.Identity() if num_classes is None else nn.Linear(self.num_features, num_classes)
        setattr(self, self.head_name, layer)

    @property
    def head(self) -> nn.Module:
        """The last layer, [B,F] -> [B,N]."""
        return self.get_submodule(self.head_name)

    def features(self, x: Tensor) -> Tensor:
        """x [B,C,H,W] -> penultimate features [B,F]."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """x [B,C,H,W] -> logits [B,N], or features [B,F] where there is no head."""
        return self.head(self.features(x))
