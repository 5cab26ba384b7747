"""Whether a run's loss ended far above where it began: told of the end, and by `bigft status`."""

from __future__ import annotations

from collections.abc import Sequence

from bigft.runtime.events import Event

# In nats per target: 0.5 multiplies a perplexity by 1.65. A run that learns ends below where it
# began; so much is left to the noise of few samples.
FAR = 0.5


def rising_loss(events: Sequence[Event]) -> str:
    """A sentence about the training loss of the whole run; "" unless it ended far too high.

    Its last quarter of log lines is held against the first one, and against what a model scores
    that gives all classes the same probability: a loss that has jumped before the first line has
    no low beginning to show.
    """
    losses = [
        (event["loss"], event["num_targets"])
        for event in events
        if event["event"] == "log" and event.get("loss") is not None and event.get("num_targets")
    ]
    if not losses:
        return ""
    quarter = max(1, len(losses) // 4)
    first, last = _mean(losses[:quarter]), _mean(losses[-quarter:])
    if last > first + FAR:
        return f"the loss rose from {first:,.4g} to {last:,.4g}: lower optim.learning_rate"
    starts = [event for event in events if event["event"] == "start"]
    guessing = starts[-1].get("uniform_loss") if starts else None
    if guessing is not None and last > guessing + FAR:
        fix = "train longer, or lower" if last < first else "lower"
        return (
            f"the loss ended at {last:,.4g}, above the {guessing:,.4g} of guessing: {fix} "
            "optim.learning_rate"
        )
    return ""


def _mean(losses: Sequence[tuple[float, int]]) -> float:
    return sum(loss * targets for loss, targets in losses) / sum(t for _, t in losses)
