"""What the fault tests share: the small model and data of the distributed tests."""

from __future__ import annotations

from distributed.conftest import config_for, tiny_bert, write_data

__all__ = ["config_for", "tiny_bert", "write_data"]
