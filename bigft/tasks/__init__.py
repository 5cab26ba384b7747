"""The tasks by name. Each is a folder that imports no other one's; what several share lies here."""

from __future__ import annotations

from bigft.tasks.causal_lm import CausalLM
from bigft.tasks.masked_lm import MaskedLM
from bigft.tasks.protocol import Task
from bigft.tasks.question_answering import QuestionAnswering
from bigft.tasks.seq2seq import Seq2Seq
from bigft.tasks.text_classification import TextClassification
from bigft.tasks.token_classification import TokenClassification

TASKS: dict[str, type[Task]] = {
    "token-classification": TokenClassification,
    "text-classification": TextClassification,
    "question-answering": QuestionAnswering,
    "causal-lm": CausalLM,
    "seq2seq": Seq2Seq,
    "masked-lm": MaskedLM,
}
