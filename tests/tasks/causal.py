"""A causal-lm task, its records and its model, small, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tasks.chat import CHATML, chat_tokenizer
from tiny import tiny_model
from transformers import PreTrainedModel

from bigft.config.deepspeed import deepspeed_config
from bigft.config.sections import RunConfig
from bigft.config.tasks import Generation
from bigft.data.records import Record, Row
from bigft.models.limits import Limit
from bigft.runtime.process_group import World
from bigft.tasks.causal_lm import CausalLM
from bigft.tasks.protocol import Setting
from bigft.training.engine import build_engine
from bigft.training.optimizers import OPTIMIZERS, parameter_groups

POSITIONS = 512
VOCABULARY = 300


def config(**sections: Any) -> RunConfig:
    given: dict[str, Any] = {
        "task": {"name": "causal-lm"},
        "model": {"model_name_or_path": "unused"},
        "train": {"output_dir": "unused"},
    }
    for name, keys in sections.items():
        given[name] = given.get(name, {}) | keys
    return RunConfig.model_validate(given)


def causal_task(
    max_length: int | None = None,
    template: str | None = CHATML,
    tokenizer: Any = None,
    **sections: Any,
) -> CausalLM:
    tokenizer = tokenizer or chat_tokenizer(template)
    limit = Limit(max_length, "data.max_seq_length") if max_length else None
    return CausalLM(Setting(config(**sections), tokenizer, limit=limit))


def causal_model(architecture: str = "llama") -> PreTrainedModel:
    sizes = {"n_positions": POSITIONS} if architecture == "gpt2" else {}
    return tiny_model(
        architecture,
        "AutoModelForCausalLM",
        num_labels=2,
        vocab_size=VOCABULARY,
        max_position_embeddings=POSITIONS,
        **sizes,
    )


def talk(*turns: str, index: int = 0, **fields: Any) -> Record:
    """user, assistant, user, ..."""
    messages = [
        {"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(turns)
    ]
    return Record(index, {"messages": messages, "form": "messages", **fields}, "d.jsonl", index + 1)


def targets(task: CausalLM, feature: Row) -> list[str]:
    """The text of each run of targets."""
    return [text for text, is_target in task.preview(feature) if is_target]


def answers_under_zero(
    world: World, stage: int, prompts: Sequence[Sequence[tuple[str, int]]]
) -> list[str]:
    """What this rank generates after its prompts, a batch each, in so many tokens at most; "" is a
    batch without one."""
    task = causal_task()
    run, model = config(parallel={"zero_stage": stage}), causal_model()
    task.attach_head(model)
    groups = parameter_groups(model, run.optim, set())
    optimizer = OPTIMIZERS["adamw_torch"](groups, run.optim)
    engine = build_engine(model, optimizer, deepspeed_config(run, world.size))
    found = []
    for prompt, max_new_tokens in prompts[world.rank]:
        task.generation = Generation(max_new_tokens=max_new_tokens)
        (feature,) = task.encode_prompt(task.prompt(prompt, 0, "prompts", 1))
        if not prompt:
            feature.columns["prompt"] = [0]
        found += [part["generated"] for part in task.answer(engine, task.collate([feature]))]
    return found
