"""What a verb's process ends with; 0 is done. docs tell users the same."""

EXIT_FAILED = 1
"""A run that ended by itself, and not well; a checkpoint that is damaged."""
EXIT_BAD_INPUT = 2
"""Refused: input that bigft cannot use."""
EXIT_HUNG = 3
"""A rank that the watchdog ended."""
EXIT_RUNNING = 4
"""`bigft status --exit-code` of a run that goes on."""
EXIT_RESUMABLE = 75
"""Stopped as a signal or the time limit asked, and saved: start it again."""
EXIT_INTERRUPTED = 130
"""Ctrl-C."""
EXIT_NO_READER = 141
"""Nobody reads the output any more (a closed pipe)."""
