"""Accuracy under attack; every number the project reports comes from here.

``accuracy`` is what training watches; ``evaluate_net`` runs the full suite of ``ATTACKS``.
"""

from lasat_ray.evaluation.accuracy import View, accuracy
from lasat_ray.evaluation.attacks import ATTACKS, SPELLINGS
from lasat_ray.evaluation.evaluate_net import evaluate_net
from lasat_ray.evaluation.plan import DEFAULT_ATTACKS, EvaluationPlan
from lasat_ray.evaluation.statistics import wilson

__all__ = [
    "ATTACKS",
    "DEFAULT_ATTACKS",
    "SPELLINGS",
    "EvaluationPlan",
    "View",
    "accuracy",
    "evaluate_net",
    "wilson",
]
