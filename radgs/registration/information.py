"""How much a correlation says: where an X-ray is noisy, a little more of it is chance.

Two images whose values scatter together like a Gaussian's share ``-log(1 - r^2) / 2`` nats a pixel at a correlation r
(Gel'fand & Yaglom 1957). Its slope is what a correlation counts beside others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

_WHOLE = 0.9999
_LEAST, _MOST = 0.05, 0.75  # correlations; beyond, weights stay: what is left is more than noise


def information(correlation: float) -> float:
    """Nats a pixel; 0 for images that do not agree."""
    return -0.5 * math.log1p(-(min(max(correlation, 0.0), _WHOLE) ** 2))


def information_weights(similarity: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """By level and view, what a change of its correlation counts: the slope of `information`.

    Args:
        similarity: by level and view, correlations.
    """
    return {level: {view: _slope(value) for view, value in views.items()} for level, views in similarity.items()}


def _slope(correlation: float) -> float:
    value = min(max(correlation, _LEAST), _MOST)
    return value / (1 - value**2)
