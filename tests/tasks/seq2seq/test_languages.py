"""Codes of one language match however they are spelled; what is not sure is not guessed."""

from __future__ import annotations

import pytest

from bigft.tasks.scripts import script_in
from bigft.tasks.seq2seq.languages import matching, script_of

NLLB = [
    *("eng_Latn", "fra_Latn", "zho_Hans", "zho_Hant", "yue_Hant", "arb_Arab", "arb_Latn"),
    *("nob_Latn", "nno_Latn", "pes_Arab", "prs_Arab", "srp_Cyrl", "swh_Latn", "jpn_Jpan"),
]
MBART = ["en_XX", "fr_XX", "zh_CN", "ar_AR", "fa_IR", "ja_XX", "pt_XX"]


@pytest.mark.parametrize(
    ("code", "names", "found"),
    [
        # A tokenizer's code, and the keys of data.
        ("eng_Latn", ["en", "fr"], ["en"]),
        ("en_XX", ["en", "fr"], ["en"]),
        ("en", ["eng_Latn", "fra_Latn"], ["eng_Latn"]),
        ("deu_Latn", ["de", "en"], ["de"]),
        ("ger", ["de", "en"], ["de"]),
        ("nob_Latn", ["no", "nn"], ["no"]),
        ("cmn_Hans", ["zh", "en"], ["zh"]),
        ("zho_Hans", ["zh", "zh_TW"], ["zh"]),
        ("zho_Hant", ["zh", "zh_TW"], ["zh_TW"]),
        ("zh_TW", ["zh"], ["zh"]),
        ("ar_AR", ["ar", "ar_EG"], ["ar"]),
        ("pt_PT", ["pt", "pt_BR"], ["pt"]),
        ("java", ["__java__", "__en_XX__"], ["__java__"]),
        ("en", ["__java__", "__en_XX__"], ["__en_XX__"]),
        # A user's code, and what a tokenizer has.
        *[
            (code, NLLB, [name])
            for code, name in {
                "zh": "zho_Hans", "zh_TW": "zho_Hant", "yue": "yue_Hant", "ar": "arb_Arab",
                "no": "nob_Latn", "fa": "pes_Arab", "sr": "srp_Cyrl", "sw": "swh_Latn",
                "ENG": "eng_Latn", "ja_XX": "jpn_Jpan",
            }.items()
        ],
        *[
            (code, MBART, [name])
            for code, name in {
                "zho_Hans": "zh_CN", "arb_Arab": "ar_AR", "pes_Arab": "fa_IR", "pt": "pt_XX",
                "fra": "fr_XX", "EN": "en_XX",
            }.items()
        ],
        # Several, or none.
        ("pt_XX", ["pt_BR", "pt_PT"], ["pt_BR", "pt_PT"]),
        ("zh_TW", MBART, []),
        ("sr_Latn", NLLB, []),
        ("hr", ["sr", "bs"], []),
        ("zh", ["yue", "en"], []),
        ("eng_Lat", NLLB, []),
        ("jp", NLLB, []),
        ("english", NLLB, []),
        ("", NLLB, []),
    ],
)  # fmt: skip
def test_names_match_by_language_and_script(code: str, names: list[str], found: list[str]) -> None:
    assert matching(code, names) == found


@pytest.mark.parametrize(
    ("code", "script"),
    [
        *[(code, "Hans") for code in ("zh", "zh_CN", "zho_Hans", "cmn", "zh-cmn", "chi", "ZH")],
        *[(code, "Hant") for code in ("zh_TW", "zho_Hant", "yue", "zh_HK")],
        *[(code, "Jpan") for code in ("ja", "jpn_Jpan", "ja_XX", "jpn")],
        *[(code, "Kore") for code in ("ko", "ko_KR")],
        *[("kor_Hang", "Hang"), ("tha_Thai", "Thai"), ("th_TH", "Thai"), ("my_MM", "Mymr")],
        *[("en_XX", "Latn"), ("ja_Latn", "Latn"), ("jp", None), ("Chinese", None)],
    ],
)
def test_a_code_tells_the_script(code: str, script: str | None) -> None:
    assert script_of(code) == script


@pytest.mark.parametrize(
    ("texts", "script"),
    [
        (["我们用 TensorFlow 2.0 training", "PyTorch 也好"], "Hani"),
        (["東京大学", "私は学生です", "データ"], "Jpan"),
        (["대한민국 만세", "漢字와 한글"], "Kore"),
        (["ที่นี่", "ok"] * 2 + ["มา"], "Thai"),
        (["A man called 李", "went out", "and in"], None),
        ([], None),
    ],
)
def test_most_texts_tell_the_script_whatever_else_is_in_them(
    texts: list[str], script: str | None
) -> None:
    assert script_in(texts) == script
