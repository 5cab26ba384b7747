"""The fused operators. Each returns a sum, never a mean: training/step.py normalises.

Where the native library is not there, reference.py serves with the same answers;
`native.build_info()` says which it is.
"""

from bigft.ops._linear_cross_entropy import linear_cross_entropy
from bigft.ops._masked_cross_entropy import masked_cross_entropy
from bigft.ops._token_classification_head import token_classification_head
from bigft.ops.outputs import CrossEntropy, LinearCrossEntropy, TokenClassification

__all__ = [
    "CrossEntropy",
    "LinearCrossEntropy",
    "TokenClassification",
    "linear_cross_entropy",
    "masked_cross_entropy",
    "token_classification_head",
]
