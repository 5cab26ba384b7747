"""Ways to adapt a model: which of its parameters a run trains."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bigft.config.errors import BadInput, Problem
from bigft.models.heads.swap import base_model
from bigft.models.layers import body, layer_numbers
from bigft.models.peft_methods import ia3, lora, p_tuning, prefix, prompt
from bigft.models.weights import fit_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# What peft puts into the names of parameters that stay what they are.
PEFT_PARTS = re.compile(r"^base_model\.model\.|(?<=\.)(modules_to_save\.\w+|base_layer)\.")


@dataclass(frozen=True, slots=True)
class Adapter:
    """apply: (model, config.adapt, tokenizer) -> the model to train.

    is_peft: the base stays as it is and peft's adapter is all that is trained and saved.
    """

    apply: Callable[[Any, Any, Any], Any]
    is_peft: bool = True


def adapt_model(
    model: PreTrainedModel, options: Any, tokenizer: PreTrainedTokenizerBase
) -> PreTrainedModel:
    """The model with `requires_grad` where `config.adapt` says, in peft's shell where it adds
    something; the model given is part of it.

    Raises BadInput, naming the key, where an option matches nothing, nothing is left to train, or
    something would be trained and not saved.
    """
    adapted: PreTrainedModel = ADAPTERS[options.method].apply(model, options, tokenizer)
    return adapted


def is_peft(options: Any) -> bool:
    """Whether the method saves an adapter in peft's layout instead of a model."""
    return ADAPTERS[options.method].is_peft


def freezes_base(options: Any) -> bool:
    """Whether no pretrained weight is trained, so that the base may be loaded in the dtype that
    it computes in."""
    return is_peft(options)


def load_options(options: Any, dtype: str) -> dict[str, Any]:
    """What `load_model` takes besides: the quantisation of the base. dtype: to compute in."""
    if options.method != "qlora":
        return {}
    from transformers import BitsAndBytesConfig

    return {
        "quantization_config": BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=options.bnb_4bit_use_double_quant,
            bnb_4bit_compute_dtype=dtype,
        )
    }


def virtual_tokens(options: Any) -> int:
    """How many positions of every row the method's own vectors take."""
    return getattr(options, "num_virtual_tokens", 0)


def check_new_is_trained(model: Any) -> None:
    """Raises BadInput where an adapter leaves a matrix as it is that the model's files do not hold:
    it is random, and no adapter makes up for that. Of the others all may stay: biases are 0."""
    trained = {_plain_name(name) for name, p in model.named_parameters() if p.requires_grad}
    plain = dict(base_model(model).named_parameters())
    sizes = {_plain_name(name): parameter.ndim for name, parameter in plain.items()}
    random = [name for name in fit_of(model).new if sizes.get(name, 0) > 1 and name not in trained]
    if not random or not hasattr(model, "peft_config"):
        return
    what = f"it would leave {random[0]} as it is, which is new, with random values"
    fix = "train the whole model first (adapt.method full), or take one whose files hold it"
    raise BadInput(Problem("adapt.method", what, fix))


def _plain_name(name: str) -> str:
    """Of a parameter in peft's shell the name in the model itself."""
    return PEFT_PARTS.sub("", name)


def check_shardable(model: Any) -> None:
    """Raises BadInput for an adapter on parameters that are no module's weight, as the stacked
    experts of a mixture: peft puts other tensors in their place for the length of a forward, and
    under ZeRO-3 the backward meets neither."""
    from peft.tuners.lora import LoraLayer, ParamWrapper

    bare, modules = [], set()
    for name, module in model.named_modules():
        if isinstance(module, ParamWrapper):
            path = f"{name}.{module.parameter_name}".removeprefix("base_model.model.")
            bare.append(path.replace(".base_layer.", "."))
        elif isinstance(module, LoraLayer):
            modules.add(name.rpartition(".")[2])
    if not bare:
        return
    more = f" and {len(bare) - 1} more" if len(bare) > 1 else ""
    what = f"takes in {bare[0]}{more}, parameters that are no linear modules, which peft cannot "
    what += "train at parallel.zero_stage 3"
    names = f"name modules alone ([{', '.join(sorted(modules))}])" if modules else "name others"
    raise BadInput(
        Problem("adapt.target_modules", what, f"{names}, or set parallel.zero_stage to 2")
    )


# -- without peft ---------------------------------------------------------------------------------


def _full(model: PreTrainedModel, options: Any, tokenizer: Any) -> PreTrainedModel:
    model.requires_grad_(True)
    return _without_computed_tables(model)


def _head(model: PreTrainedModel, options: Any, tokenizer: Any) -> PreTrainedModel:
    """What is not the body; of a language model the layer that makes its logits."""
    of_body = {id(parameter) for parameter in body(model).parameters()}
    if body(model) is base_model(model):  # T5: no module is its body alone
        output: Any = model.get_output_embeddings()
        below: Any = model.get_input_embeddings()
        of_body -= {id(p) for p in output.parameters()} - {id(p) for p in below.parameters()}
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) not in of_body)
    _without_computed_tables(model)
    _check_something_is_trained(model, "the head's weights are those of the embeddings (tied)")
    return model


def _freeze(model: PreTrainedModel, options: Any, tokenizer: Any) -> PreTrainedModel:
    numbers = layer_numbers(model)
    num_layers = max(numbers.values()) - 1
    problems = []
    if options.freeze_layers > num_layers:
        what = f"{options.freeze_layers}, but the model has {num_layers} layers"
        problems.append(Problem("adapt.freeze_layers", what, "freeze fewer"))
    lowest = 0 if options.freeze_embeddings else 1
    frozen = {name for name in numbers if lowest <= numbers[name] <= options.freeze_layers}
    for pattern in options.freeze_patterns:
        try:
            matched = {name for name in numbers if re.search(pattern, name)}
        except re.error as error:
            what = f"{pattern!r} is no regular expression ({error})"
            problems.append(Problem("adapt.freeze_patterns", what))
            continue
        if not matched:
            what = f"{pattern!r} matches no parameter"
            fix = f"names are like {next(iter(numbers))}"
            problems.append(Problem("adapt.freeze_patterns", what, fix))
        frozen |= matched
    if problems:
        raise BadInput(problems)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    _without_computed_tables(model)
    _check_something_is_trained(model, "every parameter is frozen")
    return model


def _without_computed_tables(model: PreTrainedModel) -> PreTrainedModel:
    """Freezes what the architecture computes and never trains (Marian's and Pegasus' sinusoidal
    positions): loading makes it trainable, and weight decay would wear it away."""
    import torch

    with torch.device("meta"):
        fresh = type(model)(copy.deepcopy(model.config))
    for name, parameter in fresh.named_parameters():
        if not parameter.requires_grad:
            model.get_parameter(name).requires_grad_(False)
    return model


def _check_something_is_trained(model: PreTrainedModel, why: str) -> None:
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise BadInput(
            Problem("adapt.method", f"nothing is trained: {why}", "freeze less, or use lora")
        )


ADAPTERS = {
    "full": Adapter(_full, is_peft=False),
    "head": Adapter(_head, is_peft=False),
    "freeze": Adapter(_freeze, is_peft=False),
    "lora": Adapter(lora),
    "dora": Adapter(lora),
    "qlora": Adapter(lora),
    "ia3": Adapter(ia3),
    "prompt": Adapter(prompt),
    "prefix": Adapter(prefix),
    "p-tuning": Adapter(p_tuning),
}
