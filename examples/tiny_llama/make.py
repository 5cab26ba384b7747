"""Writes the files beside it: short instructions with answers, a tokenizer trained on their text,
and the config of a small Llama. The same files at every run:

    python examples/tiny_llama/make.py [DIRECTORY]

Every answer is computed; every sentence was written for this project.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

HERE = Path(__file__).resolve().parent
SIZES = {"train": 900, "dev": 66, "test": 66}
VOCABULARY = 2048
SPECIALS = ["<|pad|>", "<|im_start|>", "<|im_end|>"]
# ChatML's form; every message ends with the eos token, so that an answer learns to end.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": VOCABULARY,
    "hidden_size": 128,
    "intermediate_size": 352,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "bos_token_id": None,
    "eos_token_id": SPECIALS.index("<|im_end|>"),
    "pad_token_id": SPECIALS.index("<|pad|>"),
}

TOKENIZER_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "pad_token": "<|pad|>",
    "eos_token": "<|im_end|>",
    "extra_special_tokens": ["<|im_start|>"],
    "clean_up_tokenization_spaces": False,
    "model_max_length": CONFIG["max_position_embeddings"],
    "chat_template": CHAT_TEMPLATE,
}

DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTHS = {
    "January": 31, "February": 28, "March": 31, "April": 30, "May": 31, "June": 30, "July": 31,
    "August": 31, "September": 30, "October": 31, "November": 30, "December": 31,
}  # fmt: skip
WORDS = [
    "apple", "bread", "chair", "dance", "eagle", "fence", "grape", "house", "island", "jacket",
    "kettle", "lemon", "mirror", "night", "orange", "pencil", "queen", "river", "spoon", "table",
    "uncle", "village", "window", "yellow", "zebra", "anchor", "button", "candle", "desert",
    "engine", "flower", "garden", "hammer", "insect", "jungle", "ladder", "market", "needle",
    "office", "pepper", "rabbit", "saddle", "temple", "valley", "wagon", "basket", "copper",
    "dragon", "forest", "guitar", "helmet",
]  # fmt: skip
Question = tuple[str, str]  # with its answer


def calendar(names: list[str], kind: str, pick: random.Random) -> Question:
    at, steps = pick.randrange(len(names)), pick.randint(1, 5)
    forward = pick.random() < 0.6
    later = names[(at + (steps if forward else -steps)) % len(names)]
    plural = kind + "s" * (steps > 1)
    ask = pick.choice(["Which {0} is {1} {2} {3} {4}?", "What comes {1} {2} {3} {4}?"])
    return ask.format(kind, steps, plural, "after" if forward else "before", names[at]), later


def weekday(pick: random.Random) -> Question:
    return calendar(DAYS, "day", pick)


def month(pick: random.Random) -> Question:
    return calendar(list(MONTHS), "month", pick)


def days_in_month(pick: random.Random) -> Question:
    name = pick.choice(list(MONTHS))
    leap = pick.random() < 0.3
    year = "a leap year" if leap else "a common year"
    ask = pick.choice(["How many days has {} in {}?", "How long is {} in {}, in days?"])
    return ask.format(name, year), str(MONTHS[name] + (leap and name == "February"))


def addition(pick: random.Random) -> Question:
    a, b = pick.randint(0, 20), pick.randint(0, 20)
    return f"What is {a} plus {b}?", str(a + b)


def subtraction(pick: random.Random) -> Question:
    b, a = sorted((pick.randint(0, 20), pick.randint(0, 20)))
    return f"What is {a} minus {b}?", str(a - b)


def largest(pick: random.Random) -> Question:
    numbers = pick.sample(range(100), 3)
    which, choose = pick.choice([("largest", max), ("smallest", min)])
    return f"Which is the {which}: {numbers[0]}, {numbers[1]} or {numbers[2]}?", str(
        choose(numbers)
    )


def sorting(pick: random.Random) -> Question:
    numbers = pick.sample(range(10), 4)
    answer = " ".join(map(str, sorted(numbers)))
    return f"Sort these numbers: {' '.join(map(str, numbers))}.", answer


def alphabet(pick: random.Random) -> Question:
    words = pick.sample(WORDS, 3)
    return f"Put in alphabetical order: {', '.join(words)}.", ", ".join(sorted(words))


def first_letter(pick: random.Random) -> Question:
    word = pick.choice(WORDS)
    which, at = pick.choice([("first", 0), ("last", -1)])
    return f'What is the {which} letter of "{word}"?', word[at]


def even(pick: random.Random) -> Question:
    number = pick.randint(0, 99)
    return f"Is {number} even or odd?", "odd" if number % 2 else "even"


def reverse(pick: random.Random) -> Question:
    words = pick.sample(WORDS, 3)
    return f"Say these words backwards: {' '.join(words)}.", " ".join(reversed(words))


KINDS: list[Callable[[random.Random], Question]] = [
    weekday, month, days_in_month, addition, subtraction, largest, sorting, alphabet, first_letter,
    even, reverse,
]  # fmt: skip


def conversations(pick: random.Random) -> Iterator[list[dict[str, str]]]:
    """Endless, one of the kinds after the other; every fifth asks twice."""
    number = 0
    while True:
        kind = KINDS[number % len(KINDS)]
        messages = []
        for _ in range(2 if number % 5 == 4 else 1):
            question, answer = kind(pick)
            messages += [
                {"role": "user", "content": question},
                {"role": "assistant", "content": answer},
            ]
        yield messages
        number += 1


def splits() -> dict[str, list[list[dict[str, str]]]]:
    """What is tested is not trained: no conversation stands in two of them."""
    source = conversations(random.Random(20240229))
    made: dict[str, list[list[dict[str, str]]]] = {}
    for name in ("test", "dev", "train"):
        others = [messages for rows in made.values() for messages in rows]
        rows: list[list[dict[str, str]]] = []
        made[name] = rows
        while len(rows) < SIZES[name]:
            messages = next(source)
            if messages not in others and (name == "train" or messages not in rows):
                rows.append(messages)
    return made


def texts(train: list[list[dict[str, str]]]) -> Iterator[str]:
    """What the tokenizer is trained on: all of train, and the sentences of examples/ner."""
    yield from (message["content"] for messages in train for message in messages)
    for sentence in (HERE.parent / "ner/train.conll").read_text(encoding="utf-8").split("\n\n"):
        yield " ".join(line.split("\t")[0] for line in sentence.splitlines())


def trained_tokenizer(train: list[list[dict[str, str]]]) -> Tokenizer:
    """Byte-level BPE, so that no text is unknown; digits stand alone, so that numbers add up."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIALS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(train), trainer)
    return tokenizer


def write(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    made = splits()
    for name in SIZES:
        lines = [json.dumps({"messages": messages}) + "\n" for messages in made[name]]
        (directory / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    trained_tokenizer(made["train"]).save(str(directory / "tokenizer.json"))
    for name, content in (("tokenizer_config", TOKENIZER_CONFIG), ("config", CONFIG)):
        text = json.dumps(content, indent=2) + "\n"
        (directory / f"{name}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
