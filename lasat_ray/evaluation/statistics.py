"""How sure a measured share is."""

from __future__ import annotations


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval for a share (1927): (low, high) in [0,1]; (0, 1) for n = 0.

    Unlike p +- z * s it stays inside [0,1] and is right for shares near 0 and 1.
    """
    from scipy.stats import binomtest  # late: slow to import, and --help needs none

    if n == 0:
        return 0.0, 1.0
    interval = binomtest(successes, n).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)
