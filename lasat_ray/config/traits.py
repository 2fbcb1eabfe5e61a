"""What each training method asks for, as data: read by the methods and, without torch, by validation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class MethodTraits:
    """The declarative half of a ``Method``.

    ``needs_clean``: the loss reads logits of the clean images too. ``attacks``: False for plain
    training, whose "adversarial" images are the clean ones. ``fields``: strategy fields beyond
    the attack's that the loss understands. ``companion``: a second net, trained beside the target, frozen,
    or the target's own average, that sees the clean or the adversarial images, or the clean ones before the
    attack, to form the label that attack and loss share; ``companions``: how many frozen nets it is, of two
    the plain one and the robust one; ``looks_first``: the clean images are passed before
    the attack, to form what attack and loss share; ``needs_helper``: the target also passes
    x + 2 delta. ``awp_gamma``: weight perturbation where the settings name none. ``grows``: the
    strength rises when validation accuracy allows it. ``prunes``: the target loses weights (HYDRA).
    ``rule_reads``: what the attack's rule, if any, decides by: whether an image is classified
    correctly, or the gradient alone. ``attack_loss`` ``own``: the method's file says what attacks raise.
    ``reuses``: an update's gradient in its own images is the next attack, without passes of its own, and a
    batch is trained on as often as attacks have steps.
    """

    attack_loss: Literal["ce", "kl", "margin", "squared", "own"] = "ce"
    start: Literal["uniform", "normal", "normal-cut", "zero"] = "uniform"
    needs_clean: bool = False
    attacks: bool = True
    fields: tuple[str, ...] = ()
    companion: Literal["none", "trained", "frozen", "average"] = "none"
    companions: int = 1
    looks_first: bool = False
    companion_sees: Literal["clean", "adv", "before"] = "clean"
    needs_helper: bool = False
    awp_gamma: float = 0.0
    grows: bool = False
    prunes: bool = False
    rule_reads: Literal["nothing", "labels", "gradient"] = "nothing"
    reuses: bool = False


def _kl(**more: object) -> MethodTraits:
    """TRADES and its kin: KL to the clean prediction, whose gradient is 0 at the clean image."""
    shared = {"attack_loss": "kl", "start": "normal", "needs_clean": True, "fields": ("trades_beta",)}
    return MethodTraits(**{**shared, **more})  # type: ignore[arg-type]


_BETA = ("trades_beta",)
TRAITS: dict[str, MethodTraits] = {
    "clean": MethodTraits(attacks=False),
    "pgd-at": MethodTraits(),
    "madry": MethodTraits(),
    "trades": _kl(),
    "gowal": _kl(),
    "rebuffi": _kl(),
    "mart": MethodTraits(start="normal", needs_clean=True, fields=_BETA),
    "fat": MethodTraits(rule_reads="labels"),
    "fat-trades": _kl(start="normal-cut", rule_reads="labels"),
    "fat-mart": MethodTraits(start="normal-cut", needs_clean=True, fields=_BETA, rule_reads="labels"),
    "gairat": MethodTraits(rule_reads="labels"),
    "at-awp": MethodTraits(awp_gamma=0.01),
    "trades-awp": _kl(awp_gamma=0.005),
    "lbgat": _kl(companion="trained"),
    "dart": MethodTraits(rule_reads="gradient"),
    "sat": MethodTraits(rule_reads="labels"),
    "cat": MethodTraits(grows=True),
    "score": MethodTraits(attack_loss="squared", needs_clean=True, fields=_BETA),
    "hat": _kl(needs_helper=True, companion="frozen", companion_sees="adv"),
    "ltd": _kl(companion="frozen"),
    "hydra": _kl(prunes=True),
    "ikl": _kl(attack_loss="own"),
    "kd-swa": MethodTraits(companion="frozen", companions=2, companion_sees="adv"),
    "te": MethodTraits(attack_loss="own", looks_first=True),
    "free": MethodTraits(reuses=True),
    "atas-steps": MethodTraits(rule_reads="gradient"),
    "adr": MethodTraits(attack_loss="own", companion="average", companion_sees="before", looks_first=True),
    "adr-trades": _kl(companion="average", companion_sees="before", looks_first=True),
    "rebat": MethodTraits(companion="average", companion_sees="adv"),
}
"""Name on the command line -> traits."""


def traits_of(name: str) -> MethodTraits:
    """Those of one of our methods; of outside code, which declares its own, the plainest."""
    return TRAITS.get(name, MethodTraits())


def methods_that(have: Callable[[MethodTraits], bool]) -> list[str]:
    """Names of our methods with a trait, sorted."""
    return sorted(name for name, traits in TRAITS.items() if have(traits))
