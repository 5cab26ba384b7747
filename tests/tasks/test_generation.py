"""Generated text is a function of its prompt and seed, and ranks stay in step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from distributed.ranks import run_ranks
from peft import LoraConfig, get_peft_model
from tasks.causal import answers_under_zero, causal_model, causal_task
from transformers import TemperatureLogitsWarper, TopPLogitsWarper

from bigft.config.tasks import Generation
from bigft.runtime.seeding import address
from bigft.tasks.generation import fitted, generate, left_padded, positions_of, stop_ids

PROMPTS = [[5, 6, 7], [8] * 9, [20, 21]]


def ids(
    model: Any,
    prompts: list[list[int]],
    seed: int = 0,
    stops: tuple[int, ...] = (3,),
    **options: Any,
) -> list[list[int]]:
    inputs = left_padded(prompts, 0, torch.device("cpu"))
    answer = generate(
        model,
        inputs,
        Generation(max_new_tokens=6, **options),
        stop_ids=stops,
        pad_token_id=0,
        draws=[address(seed, "test", *prompt) for prompt in prompts],
    )
    return answer[:, inputs["input_ids"].shape[1] :].tolist()


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma2"])
def test_an_answer_does_not_depend_on_what_it_is_generated_beside(architecture: str) -> None:
    task, model = causal_task(), causal_model(architecture)
    task.attach_head(model)
    together = ids(model, PROMPTS)
    assert together == [ids(model, [prompt])[0] for prompt in PROMPTS]
    assert len({tuple(row) for row in together}) == 3


def test_greedy_answers_are_the_stock_models_argmax() -> None:
    model = causal_model()
    (answer,) = ids(model, [PROMPTS[0]])
    seen = list(PROMPTS[0])
    for token in answer:
        with torch.no_grad():
            assert model(input_ids=torch.tensor([seen])).logits[0, -1].argmax() == token
        seen.append(token)


def test_draws_are_addressed_and_leave_no_trace() -> None:
    model = causal_model().train()
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = ids(model, PROMPTS, do_sample=True, temperature=5.0)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    torch.manual_seed(6)
    assert ids(model, PROMPTS, do_sample=True, temperature=5.0) == first
    assert ids(model, PROMPTS, seed=1, do_sample=True, temperature=5.0) != first


def test_a_draw_does_not_depend_on_what_it_is_drawn_beside() -> None:
    model = causal_model()
    together = ids(model, PROMPTS, do_sample=True, temperature=5.0)
    alone = [ids(model, [prompt], do_sample=True, temperature=5.0)[0] for prompt in PROMPTS]
    assert together == alone
    others = ids(model, [PROMPTS[1], PROMPTS[0]], do_sample=True, temperature=5.0)
    assert others == [together[1], together[0]]


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (2.0, 0.9)])
def test_draws_follow_the_distribution(temperature: float, top_p: float) -> None:
    """The first token of many draws, as often as transformers' own processors say; of none that
    top_p leaves out."""
    model = causal_model()
    number, prompt = 4000, PROMPTS[0]
    options = Generation(max_new_tokens=1, do_sample=True, temperature=temperature, top_p=top_p)
    inputs = left_padded([prompt] * number, 0, torch.device("cpu"))
    draws = [address("many", index) for index in range(number)]
    answer = generate(model, inputs, options, stop_ids=(), pad_token_id=0, draws=draws)
    with torch.no_grad():
        scores = model(input_ids=torch.tensor([prompt])).logits[:, -1]
    scores = TemperatureLogitsWarper(temperature)(None, scores)
    if top_p < 1:
        scores = TopPLogitsWarper(top_p)(None, scores)
    expected = scores.softmax(-1)[0] * number
    seen = torch.bincount(answer[:, -1], minlength=len(expected)).double()
    possible = expected > 0
    assert seen[~possible].sum() == 0
    chi_squared = ((seen - expected) ** 2 / expected)[possible].sum()
    freedom = int(possible.sum()) - 1
    assert abs(chi_squared - freedom) < 5 * (2 * freedom) ** 0.5


def test_any_stop_ends_an_answer() -> None:
    model = causal_model()
    (answer,) = ids(model, [PROMPTS[0]])
    stopped = ids(model, [PROMPTS[0]], stops=(3, answer[2]))[0]
    assert stopped == answer[: answer.index(answer[2]) + 1]


def test_beams_find_an_answer_that_is_at_least_as_likely() -> None:
    model = causal_model()

    def likelihood(answer: list[int]) -> float:
        row = torch.tensor([PROMPTS[0] + answer])
        with torch.no_grad():
            scores = model(input_ids=row).logits[0, 2:-1].log_softmax(-1)
        return float(scores.gather(1, row[0, 3:, None]).sum())

    assert likelihood(ids(model, [PROMPTS[0]], num_beams=4)[0]) >= likelihood(
        ids(model, [PROMPTS[0]])[0]
    )


def test_the_models_own_habits_do_not_count() -> None:
    model = causal_model()
    expected = ids(model, PROMPTS)
    model.generation_config.update(repetition_penalty=5.0, do_sample=True, top_k=3, num_beams=2)
    assert ids(model, PROMPTS) == expected


@pytest.mark.parametrize(
    "fields",
    [
        {"return_dict_in_generate": True, "output_scores": True},
        {"do_sample": True, "num_return_sequences": 2},
        {"stop_strings": ["a"]},
        {"prompt_lookup_num_tokens": 3},
        {"guidance_scale": 1.5},
        {"cache_implementation": "offloaded"},
        {"penalty_alpha": 0.6, "top_k": 4},
        {"min_new_tokens": 5, "no_repeat_ngram_size": 1, "suppress_tokens": [3]},
        {"max_time": 0.0},
    ],
)
@pytest.mark.parametrize("adapted", [False, True])
def test_a_habit_that_does_not_even_fit_the_call_does_not_count(
    fields: dict[str, Any], adapted: bool
) -> None:
    """And stays what it was: it is the model's, and is saved with it."""
    model: Any = causal_model()
    if adapted:
        model = get_peft_model(model, LoraConfig(target_modules=["q_proj"]))
    expected = ids(model, PROMPTS)
    base = model.get_base_model() if adapted else model
    base.generation_config.update(**fields)
    before = base.generation_config.to_dict()
    assert ids(model, PROMPTS) == expected
    assert base.generation_config.to_dict() == before


def test_a_prompt_leaves_room_for_its_answer() -> None:
    options = Generation(max_new_tokens=100)
    prompts, cut = fitted([list(range(70)), [1]], options, 64)
    assert cut.max_new_tokens == 32
    assert prompts == [list(range(38, 70)), [1]]
    assert fitted([[1, 2]], options, None) == ([[1, 2]], options)
    assert fitted([[1] * 90], options, 200) == ([[1] * 90], options)


def test_what_the_model_says_of_itself() -> None:
    model = causal_model()
    model.generation_config.eos_token_id = [5, 7]
    assert stop_ids(model, causal_task().tokenizer) == {3, 5, 7}
    assert positions_of(model) == 512


@pytest.mark.distributed
def test_ranks_generate_in_step_under_zero_3() -> None:
    prompts = [("one", 3), ("something longer", 9)], [("another", 7), ("", 2)]
    alone = run_ranks(answers_under_zero, 1, 0, [[*prompts[0], *prompts[1]]])[0]
    sharded = run_ranks(answers_under_zero, 2, 3, prompts)
    assert [*sharded[0], *sharded[1]] == alone
    assert alone[3] == ""
    assert all(alone[:3])
