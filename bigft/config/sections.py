"""RunConfig: every key of a run; `bigft config --schema` prints the docstrings of the keys."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue

from bigft.config.adapt import AdaptConfig, Full
from bigft.config.fields import (
    Column,
    Columns,
    Count,
    Decides,
    Fraction,
    ModelPath,
    Path,
    Paths,
    Positive,
    Section,
    Texts,
    as_tuple,
)
from bigft.config.optim import OptimConfig
from bigft.config.tasks import TaskConfig

Format = Literal[
    "auto",
    "conll",
    "conllu",
    "json",
    "jsonl",
    "parquet",
    "datasets",
    "csv",
    "tsv",
    "text",
    "textfolder",
    "parallel",
    "squad",
    "imagefolder",
]
OnBadRecord = Literal["refuse", "drop"]
Tracker = Literal["tensorboard", "wandb", "mlflow", "comet_ml", "trackio"]


def _some_time(text: str) -> str:
    if not text.strip("0:-"):
        raise ValueError("more than no time")
    return text


def _trackers(value: Any) -> Any:
    """`report_to: none` and `report_to: tensorboard`, as transformers takes them."""
    if isinstance(value, str):
        return () if value == "none" else (value,)
    return tuple(value) if isinstance(value, list) else value


class ModelConfig(Section):
    """The pretrained model and its tokenizer."""

    model_name_or_path: ModelPath
    """A directory, the id of a model on the hub, or a run directory, whose model is meant."""
    revision: str | None = None
    """Branch, tag or commit on the hub; null: the default branch."""
    tokenizer_name: ModelPath | None = None
    """A tokenizer other than the model's own: a directory, a hub id or a run's directory."""
    from_scratch: bool = False
    """Random weights of the model's architecture instead of the pretrained ones."""
    config_overrides: dict[str, JsonValue] = Field(default_factory=dict)
    """Fields of the model's own config that are set to other values."""
    dropout: Fraction | None = None
    """Overrides every dropout of the model; null: as the model says."""
    attn_implementation: (
        Literal["eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"] | None
    ) = None
    """How attention is computed; null: transformers' choice."""
    fused_head: Literal["auto"] | bool = "auto"
    """The fused loss head: where it is built and answers as the stock head does (auto), always, or
    never."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model; needs a revision of 40 hex digits."""

    @property
    def is_flash(self) -> bool:
        """Whether attention computes in 16 bits only, and takes packed rows as one."""
        return "flash" in (self.attn_implementation or "")


class DataConfig(Section):
    """Where the samples are and how they become rows of tokens. Paths are relative to the
    current directory."""

    train_file: Paths = ()
    """Files to train on: one path or a list. FILE#KEY is the list under that key of a JSON file."""
    validation_file: Paths = ()
    """Files to evaluate on during training."""
    test_file: Paths = ()
    """Files to evaluate on after training."""
    dataset_name: Path | None = None
    """A data set on the hub or a local directory, instead of files."""
    dataset_config_name: str | None = None
    """Configuration of that data set."""
    dataset_revision: str | None = None
    """Branch, tag or commit of that data set."""
    format: Format = "auto"
    """Format of the files; auto: by content, then by suffix."""
    text_column_name: Columns | None = None
    """Column of the text or tokens: a name or a 0-based number; null: by format (CoNLL: first). A
    list of two: a pair of texts to classify, or a question and its context."""
    label_column_name: Columns | None = None
    """Column of labels or answers: a name or a 0-based number; null: by format (CoNLL: last). Of
    text classification also a list: a column of 0 and 1 for each label."""
    group_column_name: Column | None = None
    """Column of what texts belong to (a query, a user): texts of a group are ranked against each
    other in evaluation."""
    label_all_tokens: bool = False
    """Every sub-token of a word is a target, not only the first."""
    label_list: Texts | None = None
    """The labels in the order of their ids; null: those of the training data, sorted."""
    max_seq_length: Count | None = None
    """Tokens of a row at most; null: what the model takes."""
    max_train_samples: Count | None = None
    """Train on the first so many samples only."""
    max_eval_samples: Count | None = None
    """Evaluate on the first so many samples of the validation and test sets only."""
    on_bad_record: OnBadRecord = "refuse"
    """What becomes of a record that the task cannot use: the run is refused, or the record dropped
    and named."""
    sample_by: Literal["line", "paragraph", "document"] = "line"
    """What one sample of a plain text file is; paragraphs are separated by empty lines."""
    interleave_probs: Annotated[
        Annotated[tuple[Positive, ...], BeforeValidator(as_tuple)] | None, Decides.BATCHES
    ] = None
    """Shares of an epoch's samples that come from each of train_file, in their order; null: every
    sample once."""
    chat_template: Path | None = None
    """A Jinja file in the place of the tokenizer's chat template."""
    preprocessing_num_workers: Annotated[Count | None, Decides.NEITHER] = None
    """Processes that tokenise; null: one per core, as far as the data is worth it."""
    packing: Annotated[bool, Decides.BATCHES] = False
    """Several samples share a row of max_seq_length tokens, without seeing each other."""
    packing_strategy: Annotated[
        Literal["first_fit_decreasing", "length_ordered"], Decides.BATCHES
    ] = "first_fit_decreasing"
    """Which samples share a row: as few rows as can be, or samples of like lengths."""

    @property
    def text_column(self) -> Column | None:
        """text_column_name, of a task that takes one."""
        assert not isinstance(self.text_column_name, tuple)
        return self.text_column_name

    @property
    def label_column(self) -> Column | None:
        """label_column_name, of a task that takes one."""
        assert not isinstance(self.label_column_name, tuple)
        return self.label_column_name

    @property
    def sources(self) -> tuple[str, ...]:
        """What interleave_probs gives shares to: files to train on, or the first of each pair."""
        return self.train_file[:: 2 if self.format == "parallel" else 1]


class ParallelConfig(Section):
    """How the run is spread over processes."""

    zero_stage: Annotated[int, Field(ge=0, le=3)] = 1
    """What ZeRO shards: 0 nothing, 1 optimizer state, 2 gradients too, 3 parameters too."""
    offload_optimizer: Literal["none", "cpu", "nvme"] = "none"
    """Where the optimizer's state lives instead of the GPU."""
    offload_param: Literal["none", "cpu", "nvme"] = "none"
    """Where parameters live instead of the GPU (ZeRO-3)."""
    deepspeed: Path | None = None
    """JSON file of further DeepSpeed keys; one that contradicts this file is an error."""
    ddp_timeout: Count = 1800
    """Seconds without progress after which all ranks dump their stacks and the run ends; loading
    the model, and exporting it at the end, must each take less."""
    replica_check_steps: Count | None = 500
    """Steps between two comparisons of the weights that every rank has a copy of; null: never."""


class TrainConfig(Section):
    """How long, in which batches and precision, and when to log, evaluate and save."""

    output_dir: Path
    """The run's directory."""
    run_name: str | None = None
    """Name of the run for trackers; null: the last part of output_dir."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 42
    """Decides initial weights, order of samples, masks and dropout."""
    num_train_epochs: Positive = 3.0
    """Passes over the training data; may be a fraction."""
    max_steps: Annotated[int, Field(ge=-1)] = -1
    """Optimizer steps in all; above 0 it wins over num_train_epochs."""
    max_time: (
        Annotated[str, Field(pattern=r"^(\d+-)?\d+:\d\d:\d\d$"), AfterValidator(_some_time)] | None
    ) = None
    """Save and stop, so that it can be continued, before [days-]hours:minutes:seconds are over,
    counted from the start of the command."""
    global_batch_size: Count | None = None
    """Samples of one optimizer step; null: per_device_train_batch_size *
    gradient_accumulation_steps * processes."""
    global_batch_tokens: Count | None = None
    """Tokens of one optimizer step, instead of a number of samples."""
    per_device_train_batch_size: Count = 8
    """Samples of a micro-batch at most."""
    per_device_train_batch_tokens: Count | None = None
    """Tokens of a micro-batch at most, padding included; null: no bound."""
    gradient_accumulation_steps: Count | None = None
    """Micro-batches of one step; null: 1, or what a stated global batch needs."""
    per_device_eval_batch_size: Count = 8
    """Samples of a batch in evaluation."""
    bf16: bool = False
    """Compute in bf16; master weights, gradients and their sums stay fp32."""
    fp16: bool = False
    """Compute in fp16 with loss scaling (GPU only)."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass instead of keeping them."""
    max_nonfinite_steps: Count = 3
    """Steps in a row with a loss or gradient that is not finite (each is skipped) that end the
    run."""
    full_determinism: bool = False
    """Only deterministic algorithms, where that costs speed too."""
    logging_steps: Count = 10
    """Steps between two log lines."""
    eval_strategy: Literal["no", "steps", "epoch"] = "epoch"
    """When the validation set, if there is one, is evaluated."""
    eval_steps: Count = 500
    """Steps between two evaluations (eval_strategy steps)."""
    metric_for_best_model: str | None = None
    """Metric that tells the best checkpoint, with or without eval_; null: loss."""
    greater_is_better: bool | None = None
    """Whether more of that metric is better; null: unless its name ends with loss,
    perplexity, error, mse or mae."""
    load_best_model_at_end: bool = False
    """Leave the best checkpoint behind, not the last."""
    early_stopping_patience: Count | None = None
    """Stop after so many evaluations without a better metric; null: never."""
    save_strategy: Literal["no", "steps", "epoch", "best"] = "epoch"
    """When a checkpoint is written; best: when an evaluation is the best so far."""
    save_steps: Count = 500
    """Steps between two checkpoints (save_strategy steps)."""
    save_total_limit: Count | None = None
    """Keep the newest so many checkpoints, and the best; null: all."""
    resume_from_checkpoint: bool | Path = False
    """true: continue if there is something to continue; or a checkpoint's directory."""

    @property
    def max_seconds(self) -> int | None:
        """max_time in seconds."""
        if self.max_time is None:
            return None
        days, _, clock = self.max_time.rpartition("-")
        hours, minutes, seconds = map(int, clock.split(":"))
        return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


class CheckpointConfig(Section):
    """How checkpoints are written and read."""

    strict: bool = False
    """Stop at a damaged checkpoint instead of continuing from the one before."""
    async_save: bool = False
    """Write while training goes on."""


class ReportConfig(Section):
    """Where the run tells of itself, beside its directory."""

    report_to: Annotated[
        tuple[Tracker, ...],
        BeforeValidator(_trackers, json_schema_input_type=str | list[Tracker]),
    ] = ()
    """Trackers: one name, a list, or none."""
    progress: Literal["auto", "bar", "lines", "none"] = "auto"
    """On the terminal; auto: a bar on a terminal, lines elsewhere."""


class RunConfig(Section):
    """One YAML file, checked."""

    task: TaskConfig
    """What is learnt: a name, or a mapping of `name` and the task's options."""
    model: ModelConfig
    """The pretrained model and its tokenizer."""
    data: DataConfig = DataConfig()
    """Where the samples are and how they become rows of tokens."""
    adapt: AdaptConfig = Full()
    """Which parameters are trained."""
    optim: OptimConfig = OptimConfig()
    """The optimizer, its schedule and the loss."""
    parallel: ParallelConfig = ParallelConfig()
    """How the run is spread over processes."""
    train: TrainConfig
    """How long, in which batches and precision, and when to log, evaluate and save."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    """How checkpoints are written and read."""
    report: ReportConfig = ReportConfig()
    """Where the run tells of itself, beside its directory."""
