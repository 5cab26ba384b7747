"""`bigft recipes`: the shipped configs are listed, and printed as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from bigft.cli import main, recipes

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def test_every_config_is_listed_with_its_task_and_what_it_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == sorted(path.stem for path in CONFIGS.iterdir())
    quickstart = next(line for line in lines if line.startswith("quickstart"))
    assert quickstart.split(maxsplit=2)[1:] == [
        "token-classification",
        "Named entities in English sentences: a small pretrained model, two minutes on two CPU "
        "cores",
    ]
    assert max(map(len, lines)) <= 150


@pytest.mark.parametrize("name", ["opus_mt_en_zh", "opus_mt_en_zh.yaml"])
def test_a_recipe_is_printed_as_its_file_is(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", name]) == 0
    assert capsys.readouterr().out == (CONFIGS / "opus_mt_en_zh.yaml").read_text(encoding="utf-8")


def test_a_printed_recipe_runs_from_any_directory(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["recipes", "tiny_llama"]) == 0
    Path("my.yaml").write_text(capsys.readouterr().out)
    assert main(["check", "my.yaml"]) == 0


def test_a_checkout_without_links_has_recipes_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    link = tmp_path / "recipes"
    link.write_text("../configs")
    monkeypatch.setattr(recipes, "PLACES", (link, CONFIGS))
    assert main(["recipes", "quickstart"]) == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("quickstrat", "did you mean quickstart?"),
        ("llama3_8b", "did you mean llama3_8b_lora or llama3_70b_qlora or llama3_8b_full_zero3?"),
        ("xyz", "there are banking77, bert_conll2003, clinc150,"),
    ],
)
def test_an_unknown_name_is_refused_with_those_that_are_near(
    name: str, fix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["recipes", name]) == 2
    assert capsys.readouterr().err.startswith(f"bigft recipes: no recipe {name!r}; {fix}")
