"""Text classification and regression: a label, several, or a number for each text or pair."""

from __future__ import annotations

from bigft.tasks.text_classification.task import TextClassification

__all__ = ["TextClassification"]
