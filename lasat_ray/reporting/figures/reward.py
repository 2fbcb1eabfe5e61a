"""The reward's terms, and what the policy still leaves open."""

from __future__ import annotations

from collections.abc import Sequence

from lasat_ray.reporting.figure import Curve, Figure, Panel
from lasat_ray.reporting.study import Run, Study, over_seeds

TERMS = {
    "l1": "L1, strength of the attack",
    "l2": "L2, robustness after the update",
    "l3": "L3, clean images after the update",
    "influence": "influence on L2 and L3",
    "reward": "reward that is paid",
    "policy_entropy": "entropy of the policy, nats",
    "policy_kl": "KL of an update, nats",
}
POINTS = 200  # a curve; a point is the mean of the rounds around it


def reward(study: Study) -> Figure | None:
    """Draw the reward, its terms and the policy's entropy; return None if no run has rewarded rounds."""
    panels = []
    heads = [f"policy_entropy_{name}" for group in study.groups for name in group.grid()]
    named = TERMS | {key: f"entropy of {key.removeprefix('policy_entropy_')}, nats" for key in heads}
    for key, title in named.items():
        marks = []
        for group in study.groups:
            if key == "reward" and group.config["reward"]["standardize"]:
                continue  # its mean is 0 by construction: what would be drawn is noise
            x, y, low, high = over_seeds([_series(run, key) for run in group.runs])
            if x:
                band = {"low": low, "high": high} if len(group.runs) > 1 else {}
                marks.append(
                    Curve(name=group.label, runs=group.names, color=group.color, x=x, y=y, **band)  # type: ignore[arg-type]
                )
        if marks:
            panels.append(Panel(title=title, marks=marks, x_label="epoch", y_labels=[key], height=240))
    if not panels:
        return None
    return Figure(
        slug="reward-and-entropy",
        title="Reward and entropy",
        about="What the strategy net is paid for: strong attacks (L1) that leave the target net more robust "
        "(L2) and right on clean images (L3). Entropy falls as the policy makes up its mind.",
        panels=panels,
        note="Means over the global batch of paid rounds. Where terms are standardized before they are "
        "weighted, what is paid has mean 0 by construction and is left out; the terms are shown as they were "
        "before.",
    )


def _series(run: Run, key: str) -> list[tuple[float, float]]:
    return thinned([(r["epoch"], r[key]) for r in run.of("round") if isinstance(r.get(key), float)])


def thinned(pairs: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most ``POINTS`` points, each the mean of the y around it at the last of their x."""
    size = max(1, -(-len(pairs) // POINTS))
    parts = [pairs[n : n + size] for n in range(0, len(pairs), size)]
    return [(part[-1][0], sum(y for _, y in part) / len(part)) for part in parts]
