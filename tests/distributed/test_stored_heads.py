"""What a base's files hold of a head is in `model/`, whatever shards the training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from distributed.ranks import run_ranks
from distributed.scenarios import train
from transformers import AutoModelForTokenClassification, BertForTokenClassification, BertModel

pytestmark = pytest.mark.distributed

STORED = ["I-PER", "B-ORG", "O", "B-PER"]  # the data has locations and no organisations


def test_rows_follow_label_names_at_zero_2_and_3(
    config_for: Callable[..., dict[str, Any]],
    write_data: Callable[..., Path],
    tiny_bert: Path,
    tmp_path: Path,
) -> None:
    options = {"id2label": dict(enumerate(STORED)), "ignore_mismatched_sizes": True}
    stored = BertForTokenClassification.from_pretrained(tiny_bert, **options)
    body = BertModel.from_pretrained(tiny_bert)  # with a pooler, as MiniLM
    with torch.no_grad():
        stored.classifier.bias.copy_(torch.arange(4.0))
    for name, model in {"permuted": stored, "body": body}.items():
        model.save_pretrained(tmp_path / name)
    configs = [
        config_for(
            f"{name}-{stage}",
            write_data([3, 11, 1, 7]),
            model__model_name_or_path=str(tmp_path / name),
            model__tokenizer_name=str(tiny_bert),
            optim__learning_rate=1e-9,  # the weights stay what they were
            parallel__zero_stage=stage,
            train__max_steps=1,
        )
        for name in ("permuted", "body")
        for stage in (2, 3)
    ]
    run_ranks(train, 2, configs)
    heads = []
    for config in configs:
        place = Path(config["train"]["output_dir"]) / "model"
        heads.append(AutoModelForTokenClassification.from_pretrained(place))
    for model in heads[:2]:
        assert sorted(model.config.label2id) == ["B-LOC", "B-PER", "I-LOC", "I-PER", "O"]
        for label, row in model.config.label2id.items():
            for ours, theirs in zip(
                model.classifier.parameters(), stored.classifier.parameters(), strict=True
            ):
                if label in STORED:
                    torch.testing.assert_close(ours[row], theirs[STORED.index(label)])
        new = model.classifier.bias[model.config.label2id["B-LOC"]].item()
        assert new == pytest.approx(0, abs=1e-6)
    for two, three in (heads[:2], heads[2:]):
        for ours, theirs in zip(two.parameters(), three.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs)
    for model in heads[2:]:
        weights = body.state_dict()
        for name, ours in model.bert.state_dict().items():
            torch.testing.assert_close(ours, weights[name])
