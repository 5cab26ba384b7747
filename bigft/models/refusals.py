"""Why the files of a model cannot be used: what was found instead, and what to do about it."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bigft.config.errors import BadInput, Problem, reason
from bigft.config.fields import RUN_FILE, RUN_MODEL
from bigft.config.sections import ModelConfig
from bigft.models.files import missing_parts, weight_files
from bigft.runtime.pointers import Pointer, pointer_in

if TYPE_CHECKING:
    from transformers import PreTrainedModel

KEY = "model.model_name_or_path"
SHOWN = 3  # names
OF_A_DIRECTORY = "it should hold config.json, tokenizer.json and model.safetensors"
# What peft calls the parts of its shell, in the names of a state dict.
OF_PEFT = re.compile(
    r"(^|\.)(lora_\w+|ia3_l|prompt_encoder|base_layer|modules_to_save|original_module)(\.|$)"
)


def not_loaded(key: str, name: str, error: Exception) -> BadInput:
    """What a tokenizer, a config or weights that a library could not load are refused with."""
    what = f"{name!r} cannot be loaded ({reason(error, first_line=True)})"
    if found := next(_pointers(Path(name)), None):
        file, pointer = found
        what = f"{file} in {name!r} is a pointer of {pointer.tool}, not the file itself"
        fix = f"fetch it (git -C {name} {pointer.fetch}), or give the hub id"
    elif adapter := _adapter(name):
        what, fix = adapter
    elif Path(name).is_dir() and list(Path(name).glob("pytorch_model*.bin")):
        what = f"the weights in {name!r} are pytorch_model.bin, a pickle, which may run code"
        fix = "load it where you trust it and save_pretrained it: that writes model.safetensors"
    elif "Unrecognized configuration class" in str(error):
        fix = "give a model of this task, or the task of this model"
    elif Path(name).is_dir():
        fix = OF_A_DIRECTORY
    elif name.startswith((".", "/")) or name.count("/") > 1:
        what, fix = f"there is no directory {name!r}", "give a model's directory, or a hub id"
    else:
        fix = "give a directory, or a hub id (HF_HUB_OFFLINE=1 takes only what is in the cache)"
        beside = [path.name for path in Path(name).parent.glob("*") if path.is_dir()]
        if near := get_close_matches(Path(name).name, beside, n=1):
            fix = f"did you mean the directory {Path(name).parent / near[0]}? or {fix}"
    return BadInput(Problem(key, what, fix))


def check_is_there(key: str, name: str) -> None:
    """Raises BadInput for the model of a run that has left none yet."""
    if (run := _run_of(name)) and not Path(name).is_dir():
        what = f"the run {run} has left no {RUN_MODEL}/ yet"
        fix = f"let it finish (`bigft status {run}` says how it stands), or name another model"
        raise BadInput(Problem(key, what, fix))


def check_is_whole(model: ModelConfig) -> None:
    """Raises BadInput for an adapter where weights are wanted: transformers would go and look for
    its base."""
    if not model.from_scratch and (adapter := _adapter(model.model_name_or_path)):
        raise BadInput(Problem(KEY, *adapter))


def _adapter(name: str) -> tuple[str, str] | None:
    """What is wrong with an adapter as a model, and how to fix it; None: it is none."""
    if not Path(name, "adapter_config.json").is_file():
        return None
    if run := _run_of(name):
        what = f"the run {run} left an adapter, not a whole model"
        return what, f"merge it into its base, `bigft export {run} --merge`, and name {run}/merged"
    fix = "name its base; base_model_name_or_path in adapter_config.json says which"
    return f"{name!r} is an adapter of peft, not a model", fix


def _run_of(name: str) -> Path | None:
    """The run directory whose model it is."""
    place = Path(name)
    is_of_run = place.name == RUN_MODEL and (place.parent / RUN_FILE).is_file()
    return place.parent if is_of_run else None


def weights_not_loaded(model: ModelConfig, error: Exception, skeleton: Any) -> BadInput:
    """`not_loaded` of weights, whose files are looked at.

    skeleton: the model without values; None where it cannot be built.
    """
    name = model.model_name_or_path
    files = _weight_files(model)
    if not any(map(pointer_in, files)):
        if damaged := next(_damaged(files), None):
            return BadInput(damaged)
        stored = [file for file in files if not file.endswith(".json")]
        if skeleton is not None and (problem := incomplete(skeleton, name, stored)):
            return BadInput(problem)
    refused = not_loaded(KEY, name, error)
    if not files and refused.problems[0].fix == OF_A_DIRECTORY:
        what = f"{name!r} holds no weights"
        fix = "put model.safetensors there, or set model.from_scratch to true to train new ones"
        return BadInput(Problem(KEY, what, fix))
    return refused


def misnamed(
    model: PreTrainedModel, name: str, missing: Set[str], unexpected: Set[str]
) -> Problem | None:
    """What is wrong with the names of weights that do not fit: they are those of an adapter on a
    base, or hold a part too much, as wrappers add one. None: they are names of other weights.

    missing, unexpected: names of the model that the files lack, and of the files that it lacks.
    """
    if of_adapter := sorted(filter(OF_PEFT.search, unexpected)):
        what = f"the weights of {name!r} hold an adapter of peft beside its base's: "
        what += _listed(of_adapter)
        fix = "load it with peft, and save_pretrained what merge_and_unload() returns"
        return Problem(KEY, what, fix)
    prefix = f"{model.base_model_prefix}."
    wanted = {*missing, *(each.removeprefix(prefix) for each in missing)}
    found = {key: part for key in unexpected if (part := _surplus(key, wanted)) is not None}
    if 2 * len(found) <= len(unexpected):
        return None
    ((part, count), *_) = Counter(found.values()).most_common()
    example = min(key for key in found if found[key] == part)
    what = f"{count} of the weights of {name!r} have {part!r} too much in their names, as {example}"
    fix = (
        "rename them, or save_pretrained the model without what wraps it (DDP, torch.compile, peft)"
    )
    return Problem(KEY, what, fix)


def incomplete(skeleton: PreTrainedModel, name: str, files: Iterable[str | Path]) -> Problem | None:
    """Which tensors are missing beside others that make one parameter with them."""
    names = missing_parts(skeleton, files)
    if not names:
        return None
    what = f"the weights of {name!r} lack {_listed(names)}, though they hold others of this kind"
    return Problem(KEY, what, "fetch or save the model again, whole")


def _surplus(key: str, wanted: Set[str]) -> str | None:
    """The part of a name without which it is a name that is wanted."""
    words = key.split(".")
    for length in range(1, len(words)):
        for start in range(len(words) - length):
            if ".".join(words[:start] + words[start + length :]) in wanted:
                return ".".join(words[start : start + length]) + "."
    return None


def _pointers(directory: Path) -> Iterator[tuple[str, Pointer]]:
    """Files of a repository that was cloned without what is kept elsewhere."""
    for path in sorted(directory.glob("*")):
        if path.is_file() and (pointer := pointer_in(path)):
            yield path.name, pointer


def _weight_files(model: ModelConfig) -> list[str]:
    """The weights that are read, and their index, as far as they can be found."""
    directory = Path(model.model_name_or_path)
    if model.from_scratch:
        return []
    if directory.is_dir():
        return [str(path) for path in sorted(directory.glob("model*.safetensors*"))]
    with suppress(OSError, ValueError, KeyError, AssertionError):  # a hub's, or not even found
        return weight_files(model)
    return []


def _damaged(files: Iterable[str]) -> Iterator[Problem]:
    from safetensors import SafetensorError, safe_open

    for file in files:
        try:
            if file.endswith(".json"):
                shards = {*json.loads(Path(file).read_bytes())["weight_map"].values()}
                for name in sorted(shards):
                    if not Path(file).with_name(name).exists():
                        yield Problem(file, f"names {name}, which is not there", "fetch or copy it")
            else:
                with safe_open(file, framework="pt"):
                    pass
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            what = f"truncated or damaged ({reason(error)})"
            yield Problem(file, what, "fetch or copy it again")


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
