"""The run that another is compared with: the same settings, another method, its fixed attack."""

from __future__ import annotations

import dataclasses

from lasat_ray.config import TrainConfig
from lasat_ray.config.traits import traits_of


def compared(config: TrainConfig, method: str) -> TrainConfig:
    """The same run with another method and its fixed attack, for equal rounds unless a budget is set; a
    teacher only where that method has one."""
    return dataclasses.replace(
        config,
        method=method,
        strategy="fixed",
        stop_on="none",
        stop_patience=TrainConfig().stop_patience,
        teacher=config.teacher if traits_of(method).companion == "frozen" else None,
        robust_teacher=config.robust_teacher if traits_of(method).companions == 2 else None,
        teacher_model=config.teacher_model if method == "lbgat" else None,
    )
