"""Contradictions of a task with the sections data, optim and model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from bigft.config.clash import Clash
from bigft.config.sections import DataConfig, RunConfig
from bigft.config.tasks import (
    CausalLM,
    Generation,
    MaskedLM,
    QuestionAnswering,
    Seq2Seq,
    TextClassification,
)


def task_contradictions(config: RunConfig) -> Iterator[Clash]:
    task, data = config.task, config.data
    if isinstance(task, CausalLM):
        yield from _causal_lm(task)
    if isinstance(task, MaskedLM):
        yield from _masked_lm(task, data)
    if isinstance(task, QuestionAnswering):
        yield from _question_answering(config, task)
    for key, value in (("packing", data.packing), ("chat_template", data.chat_template)):
        if value and not isinstance(task, CausalLM):
            what = f"given, but task {task.name} has no use for it"
            yield Clash((f"data.{key}", "task.name"), what, "leave it out, or train a causal-lm")
    if data.packing and data.max_seq_length is None:
        yield Clash(
            ("data.packing", "data.max_seq_length"),
            "true, but data.max_seq_length, the length of a row, is not given",
            "give it: 2048, for example",
        )
    if data.format == "parallel" and not isinstance(task, Seq2Seq):
        yield Clash(
            ("data.format", "task.name"),
            f"parallel is of pairs of texts, which task {task.name} does not read",
            "set task to seq2seq",
        )
    if data.format == "squad" and not isinstance(task, QuestionAnswering):
        yield Clash(
            ("data.format", "task.name"),
            f"squad is of questions and answers, which task {task.name} does not read",
            "set task to question-answering",
        )
    if task.answers_in != "labels":
        given = {
            "data.label_list": data.label_list is not None,
            "data.label_all_tokens": data.label_all_tokens,
            "optim.class_weights": config.optim.class_weights is not None,
        }
        what = f"given, but the targets of task {task.name} are {task.answers_in}, not labels"
        yield from _given_in_vain(given, "task.name", what)
    if not isinstance(task, TextClassification):
        is_pair = isinstance(task, QuestionAnswering)
        given = {
            "data.text_column_name": isinstance(data.text_column_name, tuple) and not is_pair,
            "data.label_column_name": isinstance(data.label_column_name, tuple),
        }
        what = f"a list of columns, but task {task.name} reads one"
        yield from _given_in_vain(given, "task.name", what, "name one column")
        given = {
            "data.group_column_name": data.group_column_name is not None,
            "optim.focal_gamma": config.optim.focal_gamma > 0,
        }
        what = f"given, but task {task.name} has no use for it"
        yield from _given_in_vain(given, "task.name", what)
    else:
        yield from _text_classification(config, task)
    yield from _mixture(config)


def _given_in_vain(
    given: Mapping[str, bool], other: str, what: str, fix: str = "leave it out"
) -> Iterator[Clash]:
    """given: of each key whether the config has it.  other: the key that leaves no use for it."""
    for key, is_given in given.items():
        if is_given:
            yield Clash((key, other), what, fix)


def _without_validation(config: RunConfig, key: str) -> Iterator[Clash]:
    """key: of a threshold that is to be tuned."""
    if not config.data.validation_file and config.data.dataset_name is None:
        yield Clash(
            (key, "data.validation_file"),
            "tune, but there is no validation set to choose it on",
            "give data.validation_file, or a number",
        )


def _text_classification(config: RunConfig, task: TextClassification) -> Iterator[Clash]:
    data, optim = config.data, config.optim
    if isinstance(data.text_column_name, tuple) and len(data.text_column_name) > 2:
        what = f"{len(data.text_column_name)} columns: a model reads one text, or a pair"
        yield Clash(("data.text_column_name",), what, "name one or two")
    if optim.focal_gamma > 0 and optim.label_smoothing_factor > 0:
        yield Clash(
            ("optim.focal_gamma", "optim.label_smoothing_factor"),
            "both given: a target whose share is spread has no one probability",
            "leave one of them out",
        )
    if task.decision_threshold == "tune":
        yield from _without_validation(config, "task.decision_threshold")
    if task.problem_type != "single_label_classification" and task.problem_type != "auto":
        given = {
            "task.out_of_scope_label": task.out_of_scope_label is not None,
            "optim.label_smoothing_factor": optim.label_smoothing_factor > 0,
        }
        what = f"given, but it has no meaning with {task.problem_type}"
        yield from _given_in_vain(given, "task.problem_type", what)


def _causal_lm(task: CausalLM) -> Iterator[Clash]:
    if task.mask_history and not task.assistant_only_loss:
        yield Clash(
            ("task.mask_history", "task.assistant_only_loss"),
            "true, but task.assistant_only_loss is false: every token is a target",
            "set one of them to the other value",
        )
    if task.exact_match_pattern is not None and not task.predict_with_generate:
        yield Clash(
            ("task.exact_match_pattern", "task.predict_with_generate"),
            "given, but task.predict_with_generate is false: nothing is generated to compare",
            "set task.predict_with_generate to true",
        )


def _masked_lm(task: MaskedLM, data: DataConfig) -> Iterator[Clash]:
    if task.mask_replace_prob + task.random_replace_prob > 1:
        yield Clash(
            ("task.mask_replace_prob", "task.random_replace_prob"),
            f"{task.mask_replace_prob:g} and task.random_replace_prob "
            f"{task.random_replace_prob:g} are more than 1 together",
            "what is left of 1 is the share of targets that the model sees as they are",
        )
    if task.next_sentence_prediction and task.line_by_line:
        yield Clash(
            ("task.line_by_line", "task.next_sentence_prediction"),
            "true, but task.next_sentence_prediction makes pairs of what several lines hold",
            "set one of them to false",
        )
    if data.label_column_name is not None:
        what = f"given, but task {task.name} learns from texts alone"
        yield Clash(("data.label_column_name", "task.name"), what, "leave it out")


def _question_answering(config: RunConfig, task: QuestionAnswering) -> Iterator[Clash]:
    threshold, key = task.null_score_diff_threshold, "task.null_score_diff_threshold"
    named = config.data.text_column_name
    if named is not None and (not isinstance(named, tuple) or len(named) != 2):
        yield Clash(
            ("data.text_column_name", "task.name"),
            f"{named}, but task {task.name} reads two texts",
            "name the columns of question and context: [question, context]",
        )
    if config.model.fused_head is True:
        yield Clash(
            ("model.fused_head", "task.name"),
            f"true, but task {task.name} has no fused head",
            "set auto or false",
        )
    if threshold != 0 and not task.version_2_with_negative:
        yield Clash(
            (key, "task.version_2_with_negative"),
            f"{threshold}, but task.version_2_with_negative is false: every question is answered",
            "set that to true, or leave the threshold out",
        )
    elif threshold == "tune":
        yield from _without_validation(config, key)


def _mixture(config: RunConfig) -> Iterator[Clash]:
    data = config.data
    if data.interleave_probs is None:
        return
    in_pairs = data.format == "parallel"
    files, shares = data.sources, len(data.interleave_probs)
    if shares != len(files):
        what = "pairs of files" if in_pairs else "files"
        yield Clash(
            ("data.interleave_probs", "data.train_file"),
            f"{shares} shares for {len(files)} {what} in data.train_file",
            "give one share for each",
        )
    elif len(set(files)) < len(files):
        yield Clash(
            ("data.interleave_probs", "data.train_file"),
            "given, but a file stands twice in data.train_file",
            "name it once, with the sum of its shares",
        )


def generation_remarks(config: RunConfig) -> Iterator[Clash]:
    """What was said of drawing tokens where none are drawn."""
    task = config.task
    if not isinstance(task, CausalLM | Seq2Seq) or task.generation.do_sample:
        return
    for key in ("temperature", "top_p"):
        value = getattr(task.generation, key)
        if value != Generation.model_fields[key].default:
            what = f"{value:g} is not used: task.generation.do_sample is false"
            yield Clash((f"task.generation.{key}", "task.generation.do_sample"), what)
