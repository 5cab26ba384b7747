"""bigft fine-tunes large pretrained models as one YAML file describes it.

From Python: `bigft.train`, `bigft.evaluate`, `bigft.predict` (docs/python.md), imported when used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bigft.api import BadInput as BadInput
    from bigft.api import Outcome as Outcome
    from bigft.api import evaluate as evaluate
    from bigft.api import predict as predict
    from bigft.api import train as train

__version__ = "0.1.0"
__all__ = ["BadInput", "Outcome", "evaluate", "predict", "train"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from bigft import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
