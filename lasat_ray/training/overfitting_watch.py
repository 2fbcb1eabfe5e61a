"""Tells of catastrophic overfitting: a net that withstands one long step and no more (Wong et al. 2020).

Training by one-step attacks may teach a net, within an epoch, to bend its loss so that one step misleads it
no more while several steps always do. On watched training images FGSM accuracy then rises while PGD accuracy
falls towards zero.
"""

from __future__ import annotations

from pathlib import Path

from lasat_ray.runs.recorder import Recorder
from lasat_ray.runs.records import Record, last_records, untold

LEFT = 0.5
"""Share of its best PGD accuracy that a net may fall to. Robust overfitting raises it, on training images."""
GAP = 0.2
"""By which PGD accuracy has to have fallen, and FGSM accuracy to be above it: more than chance does on the
few images watched in a small set; FGSM is above PGD by a few percent in nets that withstand both."""
_TAIL = 2_000_000  # bytes of records that are looked at


def watch_overfitting(recorder: Recorder, round: int) -> None:
    """Write the warning that an epoch calls for into the records."""
    for told in overfitting_warnings(recorder.folder.metrics):
        recorder.write({"kind": "warning", "round": round, "told": told})


def overfitting_warnings(metrics: Path) -> list[str]:
    """What to tell after an epoch, from the end of ``metrics``: one line or none."""
    records = last_records(metrics, _TAIL)
    epochs = [record for record in records if record.get("kind") == "epoch" and "train_fgsm_acc" in record]
    return untold(records, [_told(epochs)] if epochs and has_collapsed(epochs) else [])


def has_collapsed(epochs: list[Record]) -> bool:
    """Whether the last of these validated epochs shows it."""
    robust, fgsm = [_robust(epoch) for epoch in epochs], epochs[-1]["train_fgsm_acc"]
    fallen = robust[-1] < LEFT * max(robust) and max(robust) - robust[-1] > GAP
    return fallen and fgsm - robust[-1] > GAP


def _robust(epoch: Record) -> float:
    """Accuracy on the watched training images under PGD."""
    return next(value for name, value in epoch.items() if name.startswith("train_robust_acc"))


def _told(epochs: list[Record]) -> str:
    last, best = epochs[-1], max(map(_robust, epochs))
    return (
        f"catastrophic overfitting: in epoch {last['epoch']} FGSM leaves {last['train_fgsm_acc']:.0%} of the "
        f"watched training images right and PGD {_robust(last):.0%} ({best:.0%} before); train with more "
        "steps (--attack.num-steps), or let a strategy choose them (--recipe NAME-rate)"
    )
