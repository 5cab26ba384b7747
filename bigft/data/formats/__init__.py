"""Readers of data files, one per format: from a path to Records that know their file and line."""

from __future__ import annotations

from bigft.data.formats.base import ReadOptions
from bigft.data.formats.detect import detect_format
from bigft.data.formats.hub import hub_splits, hub_version, stream_hub
from bigft.data.formats.read import FORMATS, read_records, stream_records

__all__ = [
    "FORMATS",
    "ReadOptions",
    "detect_format",
    "hub_splits",
    "hub_version",
    "read_records",
    "stream_hub",
    "stream_records",
]
