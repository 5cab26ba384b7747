"""Generated text, in step over ranks, and the same whatever was generated before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from bigft.config.tasks import Generation
from bigft.runtime.seeding import address

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

OF_THE_MODEL = ("bos_token_id", "decoder_start_token_id", "forced_bos_token_id",
                "forced_eos_token_id")  # fmt: skip


def generate(
    engine: Any,
    inputs: Mapping[str, torch.Tensor],
    options: Generation,
    *,
    stop_ids: Iterable[int],
    pad_token_id: int,
    draws: Sequence[int],
    **settings: Any,
) -> torch.Tensor:
    """Ids that `model.generate` returns. Under ZeRO-3 collective: every rank must call it equally
    often, and a rank that is done runs along until all are.

    engine: what training calls, or a model.  inputs: of generate; decoders want them padded at the
        left.  stop_ids: any of them ends a text.
    draws: the address of each row's draws (`seeding.address`). With `do_sample` a row's text is a
        function of its prompt and this number, whatever it stands beside; drawn beams depend on the
        other rows too. Other randomness is left as it is.
    settings: further fields of GenerationConfig, or `streamer`.
    """
    import torch
    from transformers import GenerationConfig

    model = getattr(engine, "module", engine)
    streamer = settings.pop("streamer", None)
    drawing: dict[str, Any] = {}
    processors: list[Any] = []
    draws_beams = options.do_sample and options.num_beams > 1
    if draws_beams:
        drawing = {"temperature": options.temperature, "top_p": options.top_p, "top_k": 0}
    elif options.do_sample:
        processors = _drawing(options, draws)
    config = GenerationConfig(
        max_new_tokens=options.max_new_tokens,
        num_beams=options.num_beams,
        do_sample=draws_beams,
        eos_token_id=sorted(set(stop_ids)),
        pad_token_id=pad_token_id,
        use_cache=True,
        **drawing,
        **settings,
    )
    sharded = getattr(engine, "zero_optimization_partition_weights", lambda: False)()
    device = next(iter(inputs.values())).device
    training = model.training
    model.eval()
    try:
        fork = torch.random.fork_rng([device] if device.type == "cuda" else [])
        with torch.no_grad(), fork, _without_habits(model):
            torch.manual_seed(address("beams", *draws))
            answer: torch.Tensor = model.generate(
                **inputs,
                generation_config=config,
                logits_processor=processors,
                synced_gpus=bool(sharded),
                streamer=streamer,
            )
    finally:
        model.train(training)
    return answer


@contextmanager
def _without_habits(model: Any) -> Iterator[None]:
    """For the block the model's generation_config says only with which tokens a text begins and
    must end. What else it says would stand where the call says nothing, and may not even fit it."""
    from transformers import GenerationConfig

    from bigft.models.heads.swap import base_model

    base = base_model(model)
    owners = [model] if model is base else [model, base]  # peft gives the shell's to its base
    own = [owner.generation_config for owner in owners]
    kept = {name: getattr(base.generation_config, name, None) for name in OF_THE_MODEL}
    try:
        for owner in owners:
            owner.generation_config = GenerationConfig(**kept)
        yield
    finally:
        for owner, before in zip(owners, own, strict=True):
            owner.generation_config = before


def _drawing(options: Generation, draws: Sequence[int]) -> list[Any]:
    """Logits processors after which the highest score is a draw from the distribution (Gumbel's
    trick): the noise of a row comes from its own generator, one vector a token."""
    import torch
    from transformers import TemperatureLogitsWarper, TopPLogitsWarper

    generators: list[torch.Generator] = []

    def add_noise(ids_BT: torch.Tensor, scores_BV: torch.Tensor) -> torch.Tensor:
        if not generators:  # now the device is known
            new = [torch.Generator(scores_BV.device).manual_seed(number) for number in draws]
            generators.extend(new)
        noise_BV = torch.empty_like(scores_BV)
        for row_V, generator in zip(noise_BV, generators, strict=True):
            row_V.exponential_(generator=generator)
        return scores_BV - noise_BV.log()

    processors: list[Any] = [TemperatureLogitsWarper(options.temperature)]
    if options.top_p < 1:
        processors.append(TopPLogitsWarper(options.top_p))
    return [*processors, add_noise]


def streamer(tokenizer: PreTrainedTokenizerBase, write: Callable[[str], object]) -> Any:
    """For `generate`: gives what follows the prompt to `write` as it comes."""
    from transformers import TextStreamer

    class Streamer(TextStreamer):
        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            write(text + "\n" * stream_end)

    return Streamer(
        tokenizer, skip_prompt=True, skip_special_tokens=True, clean_up_tokenization_spaces=False
    )


def left_padded(
    prompts: Sequence[Sequence[int]], pad_token_id: int, device: torch.device
) -> dict[str, torch.Tensor]:
    """input_ids and attention_mask of prompts that end together, as decoders continue them."""
    import torch

    width = max(map(len, prompts))
    rows = [[pad_token_id] * (width - len(prompt)) + list(prompt) for prompt in prompts]
    masks = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return {
        "input_ids": torch.tensor(rows, device=device),
        "attention_mask": torch.tensor(masks, device=device),
    }


def fitted(
    prompts: Sequence[list[int]], options: Generation, positions: int | None
) -> tuple[list[list[int]], Generation]:
    """Prompts and options that the model has room for: an answer may take half of its positions,
    and a prompt that is longer than the rest loses its beginning. Each record's answer is the same
    whatever it is generated beside."""
    if positions is None:
        return list(prompts), options
    room = min(options.max_new_tokens, positions // 2)
    cut = [prompt[-(positions - room) :] for prompt in prompts]
    return cut, options.model_copy(update={"max_new_tokens": room})


def positions_of(engine: Any) -> int | None:
    """The longest sequence that the model takes; None where its config does not say."""
    config = getattr(engine, "module", engine).config.get_text_config()
    positions: int | None = getattr(config, "max_position_embeddings", None)
    return positions


def stop_ids(engine: Any, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """The tokens that end a text: the tokenizer's eos, and the model's own."""
    own = getattr(engine, "module", engine).generation_config.eos_token_id
    listed = own if isinstance(own, list) else [own]
    return {token for token in (tokenizer.eos_token_id, *listed) if token is not None}
