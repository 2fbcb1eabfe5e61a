"""Every figure of a report, in its order. A new one is a file with a pure function, and a line here."""

from __future__ import annotations

from collections.abc import Callable

from lasat_ray.reporting.figure import Figure
from lasat_ray.reporting.figures.catastrophic import catastrophic
from lasat_ray.reporting.figures.compute import compute
from lasat_ray.reporting.figures.confusion import confusion
from lasat_ray.reporting.figures.convergence import convergence
from lasat_ray.reporting.figures.cost import cost
from lasat_ray.reporting.figures.distributions import distributions
from lasat_ray.reporting.figures.eps_curve import eps_curve
from lasat_ray.reporting.figures.gallery import gallery
from lasat_ray.reporting.figures.overfitting import overfitting
from lasat_ray.reporting.figures.pareto import pareto
from lasat_ray.reporting.figures.per_class import per_class
from lasat_ray.reporting.figures.reward import reward
from lasat_ray.reporting.figures.single_images import single_images
from lasat_ray.reporting.study import Study

FIGURES: tuple[Callable[[Study], Figure | None], ...] = (
    compute,
    pareto,
    overfitting,
    catastrophic,
    distributions,
    single_images,
    eps_curve,
    per_class,
    confusion,
    gallery,
    reward,
    convergence,
    cost,
)


def draw_all(study: Study) -> list[Figure]:
    """The figures that these runs have something to show for."""
    return [figure for draw in FIGURES if (figure := draw(study)) is not None]
