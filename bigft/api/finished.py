"""Whether a finished run is what a config asks for: then there is nothing left to train."""

from __future__ import annotations

import os
from typing import Any

from bigft.config.errors import BadInput
from bigft.config.load import load_config
from bigft.config.sections import RunConfig
from bigft.runtime.run_directory import RunDirectory

# What changes neither the model that a run leaves nor its scores.
NOT_OF_RESULT: dict[str, Any] = {
    "data": {"preprocessing_num_workers"},
    "parallel": {"ddp_timeout", "replica_check_steps"},
    "train": {
        *("output_dir", "run_name", "resume_from_checkpoint", "max_time"),
        *("logging_steps", "save_total_limit"),
    },
    "checkpoint": True,
    "report": True,
}


def finished_as(config: RunConfig, directory: RunDirectory) -> bool:
    """Whether the finished run is what the config asks for; more steps, say, are another one.

    Paths are compared as what they mean in the current directory.
    """
    if not directory.config_file.exists():
        return True
    try:
        before = load_config(str(directory.config_file)).config
    except BadInput:  # of a version whose keys this one does not know
        return False
    return _asked(before) == _asked(config)


def _asked(config: RunConfig) -> dict[str, Any]:
    return config.model_dump(mode="json", exclude=NOT_OF_RESULT, context=os.path.abspath)
