"""What the name of a metric tells."""

from __future__ import annotations

LESS_IS_BETTER = ("loss", "perplexity", "error", "mse", "mae")  # the ends of their names


def is_greater_better(metric: str) -> bool:
    """Whether more of it is better, as far as the name tells."""
    return not metric.endswith(LESS_IS_BETTER)
