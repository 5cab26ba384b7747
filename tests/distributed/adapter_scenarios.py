"""What ranks do with a small Llama and an adapter, without data or a task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from bits import bits, logits, whole
from peft import PeftModel, get_peft_model_state_dict
from tiny import letter_tokenizer

from bigft.config.deepspeed import deepspeed_config
from bigft.config.sections import RunConfig
from bigft.models.adapt import adapt_model, load_options
from bigft.models.heads.lm import attach_lm_head
from bigft.models.load import load_model, load_model_config
from bigft.runtime.process_group import World
from bigft.runtime.run_directory import RunDirectory
from bigft.training.engine import build_engine
from bigft.training.export import export_model
from bigft.training.optimizers import OPTIMIZERS, parameter_groups

LLAMA = "AutoModelForCausalLM"


def engine_of(world: World, base: Path, stage: int, method: str) -> Any:
    config = RunConfig.model_validate(
        {
            "task": {"name": "causal-lm"},
            "model": {"model_name_or_path": str(base)},
            "adapt": {"method": method},
            "parallel": {"zero_stage": stage},
            "optim": {"learning_rate": 0.01},
            "train": {"output_dir": "unused"},
        }
    )
    options = load_options(config.adapt, "float32")
    model = load_model(config.model, load_model_config(config.model), LLAMA, **options)
    torch.manual_seed(0)
    model = adapt_model(model, config.adapt, letter_tokenizer())
    attach_lm_head(model)
    groups = parameter_groups(model, config.optim, set())
    optimizer = OPTIMIZERS["adamw_torch"](groups, config.optim)
    return build_engine(model, optimizer, deepspeed_config(config, world.size))


def steps(engine: Any, world: World, number: int) -> list[float]:
    losses = []
    for step in range(number):
        random = torch.Generator().manual_seed(step * world.size + world.rank)
        ids_BT = torch.randint(4, 200, (2, 9), generator=random)
        mask_BT = torch.ones_like(ids_BT)
        labels_BT = ids_BT.roll(-1, 1)
        loss = engine(input_ids=ids_BT, attention_mask=mask_BT, labels_BT=labels_BT).loss
        engine.backward(loss, scale_wrt_gas=False)
        engine.step()
        losses.append(loss.item())
    return losses


def train_quantised(world: World, base: str, stages: list[int]) -> list[dict[str, Any]]:
    """By stage: the losses of four steps, and the bytes of the 4-bit weights on this rank."""
    seen = []
    for stage in stages:
        engine = engine_of(world, Path(base), stage, "qlora")
        held = [
            getattr(parameter, "ds_tensor", parameter)
            for parameter in engine.module.parameters()
            if parameter.dtype == torch.uint8
        ]
        size = sum(tensor.numel() for tensor in held)
        seen.append({"bytes": size, "losses": steps(engine, world, 4)})
    return seen


def export_adapter(
    world: World, directory: str, method: str
) -> tuple[list[Any], list[Any], dict[str, str]]:
    """Exports after two steps on the model in `base`: the logits that the engine answers with,
    those of plain peft in the same process, and the bits of the live adapter as peft stores it."""
    engine = engine_of(world, Path(directory, "base"), 3, method)
    steps(engine, world, 2)
    export_model(engine, letter_tokenizer(), RunDirectory(directory), world)
    world.barrier()
    base = transformers.AutoModelForCausalLM.from_pretrained(Path(directory, "base"))
    plain = PeftModel.from_pretrained(base, Path(directory, "model"))
    ours, theirs = logits(engine), logits(plain)
    with whole(engine.module.parameters()):
        live = get_peft_model_state_dict(engine.module, save_embedding_layers=False)
        return ours, theirs, bits(live)
