"""The progress bar, on a terminal that is a string."""

from __future__ import annotations

import io

from rich.console import Console as Terminal

from bigft.report.progress import Progress


def test_the_bar_shows_the_numbers_and_scores_stay_above_it() -> None:
    screen = io.StringIO()
    bar = Progress(Terminal(file=screen, force_terminal=True, width=160, color_system=None))
    bar({"event": "start", "time": 0.0, "total_steps": 40})
    bar({"event": "log", "time": 1.0, "step": 10, "loss": 0.5, "learning_rate": 1e-4})
    bar({"event": "log", "time": 2.0, "step": 20, "loss": 0.25, "learning_rate": 1e-4})
    bar({"event": "eval", "time": 2.0, "split": "validation", "step": 20, "eval_f1": 0.5})
    bar({"event": "note", "time": 2.0, "text": "[bold]not markup[/]"})
    bar({"event": "end", "time": 4.0, "status": "finished", "step": 40})
    text = screen.getvalue()
    assert "validation at step 20  eval_f1 0.5000" in text
    assert "[bold]not markup[/]" in text
    last_drawn = text.rpartition("step 20/40")[2]
    assert "loss 0.2500  lr 1.0e-04  2.0s left" in last_drawn
    assert "finished at step 40" in text
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1, "the cursor comes back"
