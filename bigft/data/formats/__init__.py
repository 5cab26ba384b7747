"""Readers of data files, one per format: from a path to Records that know their file and line."""

from __future__ import annotations

from bigft.data.formats.arrow import read_hub
from bigft.data.formats.base import ReadOptions
from bigft.data.formats.detect import detect_format
from bigft.data.formats.read import FORMATS, read_records
from bigft.data.formats.splits import input_files, read_split

__all__ = [
    "FORMATS",
    "ReadOptions",
    "detect_format",
    "input_files",
    "read_hub",
    "read_records",
    "read_split",
]
