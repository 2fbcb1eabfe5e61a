"""A method's own attack on any few images, as training makes it; for what is drawn and looked at."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from lasat_ray.attacks import attack_batch
from lasat_ray.config import AttackConfig
from lasat_ray.methods.base import AttackContext, Method
from lasat_ray.types import Strategy


def attack_by_method(
    net: nn.Module, method: Method, context: AttackContext, attack: AttackConfig
) -> tuple[Tensor, Strategy]:
    """x_adv [B,C,H,W] of ``context.batch`` and the strategies [B] that were used, as the method limits them.

    Loss, start, norm and rule are those of training. A method that attacks nothing (``clean``) is
    shown under plain PGD, cross-entropy from a uniform start, since there is nothing else to show; labels
    that a method forms with a second net are the true ones where the context has no such net.
    Nothing here is collective: one worker may look by itself.
    """
    context = method.labelled(replace(context, net=net))
    if method.attacks and method.limit:
        context = replace(context, strategy=method.limit(context))
    x_adv = attack_batch(
        net,
        context.batch,
        context.strategy,
        context.key,
        loss=method.raised(context, attack.loss),
        start_kind=method.start if attack.start == "method" else attack.start,
        rule=method.rule(context) if method.attacks and method.rule else None,
        norm=attack.norm,
    )
    return x_adv, context.strategy
