#!/usr/bin/env bash
# transformers 5.23.0, torch 2.13.0.
#
# Guess: a GenerationConfig that is passed to generate() is all that counts; the model's generation_config.json is the default.
# Seen: every field that the passed one leaves at its default is taken from the model's. A greedy call then returns an object instead of
# a tensor, is refused for fields of sampling that the base was published with, wants a tokenizer, or ends after one token.
# no_repeat_ngram_size and min_new_tokens get in the same way: an evaluation measures the base's habits too.
# Output:
#   return_dict_in_generate: GenerateDecoderOnlyOutput
#   do_sample, num_return_sequences: ValueError
#   stop_strings: ValueError
#   max_time: 1 new id
#   nothing: 6 new ids
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0 numpy 2>/dev/null
cat >"$place/find.py" <<'PYTHON'
import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
model = LlamaForCausalLM(LlamaConfig(vocab_size=64, **shape)).eval()
prompt = torch.tensor([[5, 6, 7]])
asked = GenerationConfig(max_new_tokens=6, do_sample=False, eos_token_id=63, pad_token_id=0)


def answer(of_the_model):
    model.generation_config = GenerationConfig(**of_the_model)
    try:
        given = model.generate(prompt, generation_config=asked)
    except ValueError:
        return "ValueError"
    if not isinstance(given, torch.Tensor):
        return type(given).__name__
    new = given.shape[1] - prompt.shape[1]
    return f"{new} new id" + "s" * (new > 1)


habits = [
    {"return_dict_in_generate": True},
    {"do_sample": True, "num_return_sequences": 2},
    {"stop_strings": ["a"]},
    {"max_time": 1e-9},
    {},
]
found = [f"{', '.join(habit) or 'nothing'}: {answer(habit)}" for habit in habits]
print("\n".join(found))
assert found == [
    "return_dict_in_generate: GenerateDecoderOnlyOutput",
    "do_sample, num_return_sequences: ValueError",
    "stop_strings: ValueError",
    "max_time: 1 new id",
    "nothing: 6 new ids",
], "it has changed"
PYTHON
"$place/venv/bin/python" "$place/find.py"
