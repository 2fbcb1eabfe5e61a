"""``lasat_ray.explain``: single images under a run's net."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lasat_ray.api.explained import Explained, ExplainOptions, explained, picture
from lasat_ray.api.loading import Source, path_of
from lasat_ray.api.results import html_table, percent
from lasat_ray.api.words import in_python
from lasat_ray.config.changes import read_value
from lasat_ray.config.fields import Budget
from lasat_ray.config.units import NORM_NAMES
from lasat_ray.errors import UsageError
from lasat_ray.reporting.to_png import to_png
from lasat_ray.reporting.write import make_folder
from lasat_ray.runs.checkpoint import write_atomically


@dataclass(frozen=True, eq=False)
class ExplainResult:
    """What the net makes of some images. ``found``: x, x_adv [B,C,H,W] and everything else as tensors;
    ``png``: the picture; ``folder``: where it was written, None where it was not."""

    found: Explained
    png: bytes
    folder: Path | None = None

    @property
    def summary(self) -> list[dict[str, Any]]:
        """A row an image: label (None: unknown), the class it is seen as and with what probability, the
        smallest eps seen to fool the net (inf: none was), and the class it is then seen as."""
        f = self.found
        rows = []
        for n, name in enumerate(f.names):
            eps = float(f.eps[n])
            rows.append(
                {
                    "image": name,
                    "label": None if f.y[n] < 0 else f.classes[int(f.y[n])],
                    "seen_as": f.classes[int(f.p[n].argmax())],
                    "probability": float(f.p[n].max()),
                    "smallest_eps": eps,
                    "then_seen_as": f.classes[int(f.after[n])] if math.isfinite(eps) else None,
                    "strategy": {
                        field: dict(zip(values, share[n].tolist(), strict=True))
                        for field, (values, share) in f.shares.items()
                    },
                }
            )
        return rows

    def __repr__(self) -> str:
        return f"ExplainResult({len(self.found.names)} images, {NORM_NAMES[self.found.norm]})"

    def _repr_html_(self) -> str:
        heads = ("image", "label", "seen as", "", "smallest eps", "then seen as")
        rows = [
            (r["image"], r["label"] or "", r["seen_as"], percent(r["probability"]),
             f"{255 * r['smallest_eps']:.2f}/255", r["then_seen_as"] or "")
            for r in self.summary
        ]  # fmt: skip
        shown = base64.b64encode(self.png).decode()
        table = html_table(f"Smallest {NORM_NAMES[self.found.norm]} eps, an upper bound", heads, rows)
        return f'{table}<img alt="images, perturbations, fooling images" src="data:image/png;base64,{shown}">'


@in_python
def explain(
    run: Source,
    images: int | str | Path | Sequence[int | str | Path],
    /,
    *,
    out: str | Path | None = None,
    num_steps: int = 20,
    restarts: int = 3,
    resolution: float | str = 0.001,
    trust: bool = False,
) -> ExplainResult:
    """What a run's net makes of single images, which attacks its strategy would choose for them, and how
    small a perturbation fools it; what ``python -m lasat_ray.explain`` does.

    ``run``: a run folder or what ``train`` gave back. ``images``: places in its test set, counted from 0, and
    image files. ``out``: a file for the picture; None writes none. The search for the smallest eps ends when
    it is known to ``resolution``, in [0,1] pixels; every attempt is PGD of ``num_steps`` from ``restarts``
    starts.

    UsageError or UserError in one line for whatever cannot work.
    """
    path, trusted = path_of(run)
    several = [images] if isinstance(images, int | str | Path) else list(images)
    if not several:
        raise UsageError("images: names none; give places in the test set, or image files")
    try:
        fine = read_value(Budget, resolution)
    except ValueError:
        raise UsageError(
            f"resolution: {resolution!r} is no length; give a number, or 1/255 as text"
        ) from None
    options = ExplainOptions(
        run=str(path),
        images=tuple(str(image) for image in several),
        num_steps=num_steps,
        restarts=restarts,
        resolution=fine,
        trust=trust or trusted,
    )
    found = explained(options)
    png = to_png(picture(found))
    if out is not None:
        make_folder(Path(out).parent)
        write_atomically(Path(out), png)
    return ExplainResult(found, png, None if out is None else Path(out).parent)
