"""The whole vocabulary of a run; nothing here imports torch."""

from __future__ import annotations

from bigft.config.errors import BadInput, Problem
from bigft.config.exit_codes import EXIT_BAD_INPUT
from bigft.config.load import LoadedConfig, check_batch, json_schema, load_config, resolved_yaml
from bigft.config.sections import RunConfig

__all__ = [
    "EXIT_BAD_INPUT",
    "BadInput",
    "LoadedConfig",
    "Problem",
    "RunConfig",
    "check_batch",
    "json_schema",
    "load_config",
    "resolved_yaml",
]
