"""Tells of a policy that no longer learns, or whose gradients have run away, from the records of its rounds.

Read back from the file, so that a resumed run says what one that ran through does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lasat_ray.env.attack_strategy import AttackStrategyVectorEnv
from lasat_ray.runs.recorder import Recorder
from lasat_ray.runs.records import last_records, untold

UPDATES = 100
"""A policy that stood still for so many updates is stuck."""
STILL = 1e-12  # nats of divergence that an update may cause and still be none
NEAR = 1e-3  # nats of entropy from a uniform or a deterministic policy
LARGEST_GRADIENT = 1e4
"""Rewards of order 1 leave norms of order 1 to 100."""
_TAIL = 2_000_000  # bytes of records that are looked at


def watch_policy(recorder: Recorder, env: AttackStrategyVectorEnv) -> None:
    """Write the warnings that an epoch calls for into the records."""
    for told in policy_warnings(recorder.folder.metrics, env.space.sizes):
        recorder.write({"kind": "warning", "round": env.round, "told": told})


def policy_warnings(metrics: Path, sizes: Sequence[int]) -> list[str]:
    """What to tell after an epoch, from the end of ``metrics``; ``sizes``: options of each head."""
    records = last_records(metrics, _TAIL)
    updates = [record for record in records if "policy_kl" in record]
    found = [_stuck(updates[-UPDATES:], math.log(math.prod(sizes))), _ran_away(updates)]
    return untold(records, [told for told in found if told])


def _stuck(updates: list[dict[str, Any]], most: float) -> str | None:
    if len(updates) < UPDATES or most == 0 or any(abs(u["policy_kl"]) > STILL for u in updates):
        return None
    entropies = [update["policy_entropy"] for update in updates]
    kinds = {"deterministic": max(entropies) < NEAR, "uniform": most - min(entropies) < NEAR}
    for kind, holds in kinds.items():
        if holds:
            remedy = "lower --policy.lr if it was another before, else raise it"
            return f"the policy is stuck: {kind}, and {UPDATES} updates did not move it; {remedy}"
    return None


def _ran_away(updates: list[dict[str, Any]]) -> str | None:
    large = [u for u in updates if u.get("policy_grad_norm", 0.0) > LARGEST_GRADIENT]
    if not large:
        return None
    size, round = large[0]["policy_grad_norm"], large[0]["round"]
    told = "gradients of the policy leave any sane range"
    return f"{told}: norm {size:.3g} in round {round}; lower --policy.lr, or set --policy.grad-clip"
