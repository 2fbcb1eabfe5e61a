"""Images, what the attack adds, and what the net makes of both."""

from __future__ import annotations

import numpy as np

from lasat_ray.reporting.figure import Card, Figure
from lasat_ray.reporting.study import Group, Record, Study


def gallery(study: Study) -> Figure | None:
    """The first run of every group; None where no net was asked."""
    cards = []
    for group in study.groups:
        run = next((name for name in group.names if name in study.nets), None)
        if run is not None:
            shown = study.nets[run]["gallery"]
            cards += [_card(group, run, shown, n) for n in range(len(shown["y"]))]
    if not cards:
        return None
    return Figure(
        slug="gallery",
        title="What an attack looks like",
        about="An image, the perturbation stretched to full contrast (gray is unchanged), the attacked "
        "image, and what the net sees in it. Each image is attacked as the run's method attacks, with the "
        "strategy that the policy holds most likely for it; without a learned policy, by the fixed attack of "
        "training. A method without an attack is shown under PGD on cross-entropy.",
        cards=cards,
        note="First test images, first run of each group. Of a random policy: its most frequent draw of 64.",
    )


def _card(group: Group, run: str, shown: Record, n: int) -> Card:
    x, x_adv = (np.array(shown[name][n], dtype=np.int16) for name in ("x", "x_adv"))
    delta = (x_adv - x).astype(np.float64)
    stretched = (127.5 + 127.5 * delta / max(np.abs(delta).max(), 1)).round().astype(np.uint8)
    names = shown["class_names"]
    before, after = names[shown["predicted"][n]], names[shown["predicted_adv"][n]]
    verdict = "holds" if shown["predicted_adv"][n] == shown["y"][n] else "fooled"
    return Card(
        title=f"{group.label}: {names[shown['y'][n]]}",
        runs=(run,),
        color=group.color,
        pictures=[
            ("image", x.astype(np.uint8)),
            ("perturbation", stretched),
            ("attacked", x_adv.astype(np.uint8)),
        ],
        lines=[f"sees {before}, attacked {after}: {verdict}", shown["strategy"][n]],
    )
