"""The options of each task: one model per task, told apart by `name`.

`answers_in` says what the targets of a task are: labels of the data, tokens of the vocabulary, or
spans of the text. `reads` says what its model is given, and so what its tokenizer must have.
`Decides` beside an option says what follows from it (bigft/config/fields.py).
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from bigft.config.fields import Count, Decides, Positive, Section, names

AnswersIn = Literal["labels", "tokens", "spans"]
Reads = Literal["words", "text", "masked-text", "completion", "image"]
ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]


class Generation(Section):
    """How text is generated in evaluation and prediction, as transformers' GenerationConfig."""

    max_new_tokens: Count = 128
    """Tokens generated for a record at most."""
    num_beams: Count = 1
    """Beams of the search; 1 is greedy."""
    do_sample: bool = False
    """Draw from the distribution instead of searching."""
    temperature: Positive = 1.0
    """Divides the logits before drawing."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Draw from the smallest set of tokens with this probability."""


class TokenClassification(Section):
    """One label per word: named entities, parts of speech, chunks."""

    answers_in: ClassVar[AnswersIn] = "labels"
    reads: ClassVar[Reads] = "words"
    name: Literal["token-classification"] = "token-classification"
    """The task."""
    doc_stride: Annotated[int, Field(ge=0)] = 32
    """Tokens that two windows of a sentence longer than the model share."""
    return_entity_level_metrics: Annotated[bool, Decides.NEITHER] = False
    """Report precision, recall and F1 of each entity type too."""


class TextClassification(Section):
    """One label per text or pair of texts, several, or a number."""

    answers_in: ClassVar[AnswersIn] = "labels"
    reads: ClassVar[Reads] = "text"
    name: Literal["text-classification"] = "text-classification"
    """The task."""
    problem_type: Literal["auto"] | ProblemType = "auto"
    """What the labels are; auto: found from the training data."""
    long_texts: Literal["cut", "windows"] = "cut"
    """What becomes of a text longer than a row: cut, or read in windows that are one target."""
    doc_stride: Annotated[int, Field(ge=0)] = 32
    """Tokens that two windows of a text share."""
    out_of_scope_label: str | None = None
    """The label of texts that belong to no other one: the answer where the best of the others is
    less likely than decision_threshold."""
    decision_threshold: Annotated[
        Annotated[float, Field(gt=0, lt=1)] | Literal["tune"] | None, Decides.NEITHER
    ] = None
    """Probability from which on a label is given, of several labels or with out_of_scope_label;
    tune: chosen on the validation set, per label; null: 0.5 of several, else the likeliest."""
    top_k: Annotated[Count, Decides.NEITHER] = 5
    """Labels that `bigft predict` writes with their probabilities."""
    ndcg_at: Annotated[Count, Decides.NEITHER] = 10
    """Ranks that NDCG looks at, with data.group_column_name."""


class QuestionAnswering(Section):
    """A span of the context as the answer."""

    answers_in: ClassVar[AnswersIn] = "spans"
    reads: ClassVar[Reads] = "text"
    name: Literal["question-answering"] = "question-answering"
    """The task."""
    doc_stride: Annotated[int, Field(ge=0)] = 128
    """Tokens that two windows of a long context share."""
    n_best_size: Annotated[Count, Decides.NEITHER] = 20
    """The best spans of a window that are looked at; so many answers are given at most."""
    max_answer_length: Annotated[Count, Decides.NEITHER] = 30
    """Tokens of an answer at most."""
    version_2_with_negative: bool = False
    """Some questions have no answer, as in SQuAD 2."""
    null_score_diff_threshold: Annotated[float | Literal["tune"], Decides.NEITHER] = 0.0
    """Score by which "no answer" must win; tune: the best F1 of the validation set decides."""


class Seq2Seq(Section):
    """A text from a text: translation, summaries."""

    answers_in: ClassVar[AnswersIn] = "tokens"
    reads: ClassVar[Reads] = "completion"
    name: Literal["seq2seq"] = "seq2seq"
    """The task."""
    source_lang: str | None = None
    """Language code of the source, for multilingual tokenizers."""
    target_lang: str | None = None
    """Language code of the target."""
    source_prefix: str = ""
    """Text put before every source, as T5 wants it."""
    max_target_length: Count = 128
    """Tokens of a target at most; a longer one is cut."""
    predict_with_generate: bool = True
    """Generate in evaluation, and report BLEU and chrF."""
    generation: Annotated[Generation, Decides.NEITHER] = Generation()
    """How text is generated in evaluation and prediction."""


class CausalLM(Section):
    """The next token: instruction tuning, chat, plain text."""

    answers_in: ClassVar[AnswersIn] = "tokens"
    reads: ClassVar[Reads] = "completion"
    name: Literal["causal-lm"] = "causal-lm"
    """The task."""
    assistant_only_loss: bool = True
    """Only the answers are targets, where the data says who speaks."""
    mask_history: bool = False
    """Of several answers in a conversation only the last one is a target."""
    predict_with_generate: bool = False
    """Generate an answer to every prompt in evaluation, and report exact_match."""
    exact_match_pattern: Annotated[str | None, Decides.NEITHER] = None
    """Regular expression whose last match in a text is what exact_match compares (its first group
    if it has one); null: the whole text."""
    generation: Annotated[Generation, Decides.NEITHER] = Generation()
    """How text is generated in evaluation and prediction."""


class MaskedLM(Section):
    """Masked tokens: adaptation to a domain."""

    answers_in: ClassVar[AnswersIn] = "tokens"
    reads: ClassVar[Reads] = "masked-text"
    name: Literal["masked-lm"] = "masked-lm"
    """The task."""
    line_by_line: bool = False
    """Each text is a row, cut to max_seq_length; false: texts are joined, with separators, and cut
    into full rows."""
    masking: Literal["token", "whole_word"] = "token"
    """What is masked together: nothing, or the tokens of a word; of a script without spaces a
    character is one."""
    mlm_probability: Annotated[float, Field(gt=0, lt=1), Decides.BATCHES] = 0.15
    """Share of the tokens that are targets, drawn anew whenever a row is trained on."""
    mask_replace_prob: Annotated[float, Field(ge=0, le=1), Decides.BATCHES] = 0.8
    """Share of the targets that the model sees the mask token for."""
    random_replace_prob: Annotated[float, Field(ge=0, le=1), Decides.BATCHES] = 0.1
    """Share of the targets that it sees a random token for; the others it sees as they are."""
    next_sentence_prediction: bool = False
    """Rows are pairs of runs of sentences, one a line of a document, and the model also learns
    whether the second follows the first: for models with that head, as BERT."""


class ImageClassification(Section):
    """One label per image."""

    answers_in: ClassVar[AnswersIn] = "labels"
    reads: ClassVar[Reads] = "image"
    name: Literal["image-classification"] = "image-classification"
    """The task."""


class PromptClassification(Section):
    """One label per text by a prompt and the words of a language model, for few samples."""

    answers_in: ClassVar[AnswersIn] = "labels"
    reads: ClassVar[Reads] = "masked-text"
    name: Literal["prompt-classification"] = "prompt-classification"
    """The task."""


_Options = Annotated[
    TokenClassification
    | TextClassification
    | QuestionAnswering
    | Seq2Seq
    | CausalLM
    | MaskedLM
    | ImageClassification
    | PromptClassification,
    Field(discriminator="name"),
]
TASK_NAMES = names(_Options, "name")
AVAILABLE_TASKS = (
    *("token-classification", "text-classification", "question-answering"),
    *("causal-lm", "seq2seq", "masked-lm"),
)
_Name = Annotated[str, WithJsonSchema({"enum": list(TASK_NAMES)})]


def _mapping(value: Any) -> Any:
    """`task: causal-lm` is short for `task: {name: causal-lm}`."""
    return {"name": value} if isinstance(value, str) else value


TaskConfig = Annotated[_Options, BeforeValidator(_mapping, json_schema_input_type=_Name | _Options)]
