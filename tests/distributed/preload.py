"""Loaded once by the fork server; every rank of every test then starts with it."""

from __future__ import annotations

import os

os.environ.setdefault("DS_ACCELERATOR", "cpu")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import bitsandbytes  # noqa: F401
import deepspeed  # noqa: F401
import torch  # noqa: F401
import transformers
from transformers.models.bert import modeling_bert  # noqa: F401

import bigft.training.fit

assert bigft.training.fit
transformers.utils.logging.set_verbosity_error()
