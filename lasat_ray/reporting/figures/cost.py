"""Where the work of a round goes, counted in passes; and the time that training took."""

from __future__ import annotations

from lasat_ray.methods import METHODS
from lasat_ray.reporting.figure import Bars, Figure, Panel
from lasat_ray.reporting.study import Group, Run, Study, mean_and_std

PARTS = {
    "attack": "#5c6f8a",
    "target update": "#93a9c4",
    "reference attack": "#a8763e",
    "rest of the reward": "#d3ad74",
    "strategy net": "#9d7fb5",
}


def cost(study: Study) -> Figure | None:
    """None where no round was played."""
    played = [(group, passes(group)) for group in study.groups if any(run.of("round") for run in group.runs)]
    if not played:
        return None
    runs = tuple(run.name for run in study.runs)
    labels = [group.label for group, _ in played]
    counted = [
        Bars(name=part, runs=runs, color=color, x=labels, y=[p[part] for _, p in played], stacked=True)
        for part, color in PARTS.items()
    ]
    timed = [
        Bars(name=group.label, runs=group.names, color=group.color, x=[group.label], y=[mean], err=[std])
        for group, _ in played
        for mean, std in [mean_and_std([seconds(run) / 60 for run in group.runs])]
    ]
    panels = [
        Panel(title="Work an image", marks=counted, x_label="", y_labels=["forward passes"], height=320),
        Panel(title="Time so far", marks=timed, x_label="", y_labels=["minutes of training"], height=320),
    ]
    parts = ", ".join(PARTS)
    return Figure(
        slug="cost",
        title="Cost",
        about=f"Left, from bottom to top: {parts}. A step of an attack is two passes (forward, and back to "
        "the image), a training step three.",
        panels=panels,
        note="Passes follow from the recorded mean number of steps and the settings; they are counted, not "
        "timed, and the strategy net's are passes of its own, perhaps smaller, net. Minutes are measured, "
        "without validation, on whatever machine the manifests name.",
        wide=True,
    )


def passes(group: Group) -> dict[str, float]:
    """Forward passes of the target net for each image of a round, on average, by part."""
    config, reward = group.config, group.config["reward"]
    rounds = [r for run in group.runs for r in run.of("round")]
    taken = [float(r["steps_taken"] if "steps_taken" in r else r["num_steps"]) for r in rounds]
    steps = sum(taken) / len(taken)
    method = METHODS.get(config["method"])
    attacks = method.attacks if method else True
    extra = bool(method.needs_clean) + bool(method.needs_helper) if method else 0
    learned = config["strategy"] == "learned"
    share = 1 / config["update_interval"] if learned else 0.0
    influence = reward["credit"] == "influence"
    return {
        "attack": 2 * steps if attacks else 0.0,
        "target update": 3.0 * (1 + extra),
        "reference attack": share * 2 * reward["ref_num_steps"] * reward["ref_restarts"],
        # L2 and L3 are a pass each; influence adds their gradient (3 each) and one forward-mode pass (2).
        "rest of the reward": share * (2 + 8 * influence),
        "strategy net": (1 + 3 * share) if learned else 0.0,
    }


def seconds(run: Run) -> float:
    """Of training, validation left out; 0 before the first epoch is over."""
    return next((float(r["train_seconds"]) for r in reversed(run.of("epoch"))), 0.0)
