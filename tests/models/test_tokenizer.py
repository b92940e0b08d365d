import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from glideslope.errors import CheckpointError
from glideslope.models.published.vocabularies import clip_tokenizer, gpt2_tokenizer, installed_clip, installed_gpt2
from glideslope.models.tokenizer import END, START, CaptionTokenizer, clean_for_clip
from glideslope.text.vocabulary_files import MAX_TOKEN_LENGTH, MAX_TOKENS, Vocabulary

CAPTIONS = ["a red apple", "a green apple", "flag: Côte d'Ivoire", "family: man, woman 👨‍👩‍👧", "keycap: 10"]
TOKENIZER = CaptionTokenizer.train(CAPTIONS, 320)


@given(st.text(max_size=60))
def test_any_text_survives_encoding_in_lower_case(text: str) -> None:
    ids = TOKENIZER.encode(text, 10_000)
    decoded = TOKENIZER.tokenizer.decode(ids, skip_special_tokens=False)
    expected = str(TOKENIZER.tokenizer.normalizer.normalize_str(text))
    assert decoded.removeprefix(" ") == expected.removeprefix(" ")
    assert all(0 <= token < TOKENIZER.vocab_size for token in ids)


def test_case_does_not_matter() -> None:
    assert TOKENIZER.encode("A RED Apple", 99) == TOKENIZER.encode("a red apple", 99)


def test_an_empty_caption_is_padding_only() -> None:
    tokens, mask = TOKENIZER.encode_padded([""], 6)
    assert tokens.tolist() == [[TOKENIZER.end_token] * 6]
    assert not mask.any()


def test_a_short_caption_is_padded_and_masked() -> None:
    ids = TOKENIZER.encode("a red apple", 99)
    tokens, mask = TOKENIZER.encode_padded(["a red apple", ""], len(ids) + 2)
    assert tokens[0].tolist() == [*ids, TOKENIZER.end_token, TOKENIZER.end_token]
    assert mask[0].tolist() == [True] * len(ids) + [False] * 2


def test_a_long_caption_is_cut_to_the_context() -> None:
    caption = "a red apple " * 200
    tokens, mask = TOKENIZER.encode_padded([caption], 8)
    assert tokens[0].tolist() == TOKENIZER.encode(caption, 8)
    assert mask.all()
    delimited, lengths = TOKENIZER.encode_delimited([caption], 8)
    assert delimited[0].tolist() == [TOKENIZER.start_token, *TOKENIZER.encode(caption, 6), TOKENIZER.end_token]
    assert lengths.tolist() == [8]


def test_the_noised_clip_gets_start_caption_end_and_the_length() -> None:
    ids = TOKENIZER.encode("keycap: 10 👨‍👩‍👧", 99)
    tokens, lengths = TOKENIZER.encode_delimited(["keycap: 10 👨‍👩‍👧", ""], 40)
    assert tokens.dtype == lengths.dtype == torch.int64
    assert tokens[0].tolist() == [TOKENIZER.start_token, *ids, TOKENIZER.end_token] + [0] * (38 - len(ids))
    assert lengths.tolist() == [len(ids) + 2, 2]


def test_a_caption_cannot_spell_a_special_token() -> None:
    special = {TOKENIZER.start_token, TOKENIZER.end_token}
    assert not special & set(TOKENIZER.encode(f"{START} an apple {END}", 99))


def test_the_vocabulary_is_no_larger_than_asked_and_holds_every_byte() -> None:
    assert 258 <= TOKENIZER.vocab_size <= 320


def test_the_order_of_the_captions_does_not_matter() -> None:
    assert CaptionTokenizer.train(reversed(CAPTIONS), 320).tokenizer.to_str() == TOKENIZER.tokenizer.to_str()


def test_another_process_learns_the_same_tokens() -> None:
    program = ("import sys; from glideslope.models.tokenizer import CaptionTokenizer as T; "
               "sys.stdout.buffer.write(T.train(sys.argv[1:], 320).tokenizer.to_str(pretty=True).encode())")
    environment = os.environ | {"PYTHONHASHSEED": "12345"}
    found = subprocess.run([sys.executable, "-c", program, *CAPTIONS], check=True, capture_output=True, env=environment).stdout
    assert found == TOKENIZER.tokenizer.to_str(pretty=True).encode()


def test_a_saved_tokenizer_loads_as_it_was(tmp_path: Path) -> None:
    TOKENIZER.save(tmp_path / "tokenizer.json")
    loaded = CaptionTokenizer.load(tmp_path / "tokenizer.json")
    assert loaded.tokenizer.to_str() == TOKENIZER.tokenizer.to_str()
    assert (loaded.start_token, loaded.end_token) == (TOKENIZER.start_token, TOKENIZER.end_token)


def test_a_missing_or_malformed_tokenizer_is_refused_with_its_path(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: No such file"):
        CaptionTokenizer.load(path)
    for content in (b"{}", b"not json", b"\xff\xfe"):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"tokenizer\.json: not a tokenizer"):
            CaptionTokenizer.load(path)
    with path.open("wb") as file:
        file.truncate(40_000_000)
    with pytest.raises(CheckpointError, match="more than 32000000 bytes"):
        CaptionTokenizer.load(path)


def test_a_tokenizer_without_the_special_tokens_is_refused() -> None:
    with pytest.raises(CheckpointError, match="this is not a caption tokenizer"):
        CaptionTokenizer(Tokenizer(models.BPE()))


OWN = json.loads(TOKENIZER.tokenizer.to_str())
KINDS = {"own": OWN, "gpt2": json.loads(gpt2_tokenizer(str(installed_gpt2())).tokenizer.to_str()),
         "clip": json.loads(clip_tokenizer(str(installed_clip())).tokenizer.to_str())}
DOUBLING = {"type": "Sequence", "normalizers": [{"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}] * 40}
ADDED = {"id": 0, "content": START, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
END_ADDED = ADDED | {"id": 1, "content": END}
HOSTILE: dict[str, dict[str, Any]] = {
    "a normaliser that doubles": {"normalizer": DOUBLING}, "one that expands": {"normalizer": {"type": "NFKD"}},
    "a pattern": {"normalizer": {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": ""}},
    "no normaliser": {"normalizer": None},
    "fixed padding": {"padding": {"strategy": {"Fixed": 4_000_000_000}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
                                  "pad_type_id": 0, "pad_token": START}},
    "truncation": {"truncation": {"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0}},
    "another cut": {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(x+x+)+y"}, "behavior": "Isolated", "invert": False}},
    "a template": {"post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": START, "type_id": 0}}] * 1000,
                                      "pair": [], "special_tokens": {}}},
    "a decoder": {"decoder": {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 100}},
    "an unknown part": {"script": "x"}, "an added word": {"added_tokens": [ADDED, END_ADDED, ADDED | {"id": 2, "content": "apple"}]},
    "a special token that takes the space beside it": {"added_tokens": [ADDED | {"lstrip": True}, END_ADDED]},
    "a special token that is none": {"added_tokens": [ADDED | {"special": False}, END_ADDED]}, "no special tokens": {"added_tokens": []}}
HOSTILE_MODELS: dict[str, dict[str, Any]] = {
    "dropout": {"dropout": 0.5}, "an unknown token": {"unk_token": START}, "a prefix": {"continuing_subword_prefix": "##"},
    "another model": {"type": "WordPiece"}, "bytes as a way out": {"byte_fallback": True}, "merges that do not count": {"ignore_merges": True},
    "one as true": {"fuse_unk": 1}, "another suffix": {"end_of_word_suffix": "x"}, "no vocabulary": {"vocab": {}},
    "no merges": {"merges": None},
    "a list as vocabulary": {"vocab": [["a", 0.0]]}, "numbers with a gap": {"vocab": OWN["model"]["vocab"] | {"zz": 4_000_000_000}},
    "a number twice": {"vocab": OWN["model"]["vocab"] | {"zz": 3}}, "a fraction": {"vocab": {**OWN["model"]["vocab"], "!": 2.0}},
    "a merge of what is no token": {"merges": [*OWN["model"]["merges"], ["zz", "y"]]}, "a merge of three": {"merges": ["a b c"]},
    "a merge into no token": {"merges": [["!", "!"]]},
    "a token without end": {"vocab": OWN["model"]["vocab"] | {"a" * (MAX_TOKEN_LENGTH + 1): len(OWN["model"]["vocab"])}}}


@pytest.mark.parametrize("case", HOSTILE)
@pytest.mark.parametrize("kind", KINDS)
def test_a_part_that_tokenizers_of_a_kind_do_not_have_is_refused(case: str, kind: str) -> None:
    with pytest.raises(CheckpointError, match=r"^x\.json: not a tokenizer\.json of a kind that is known: "):
        CaptionTokenizer.parse(json.dumps(KINDS[kind] | HOSTILE[case]).encode(), where="x.json")


@pytest.mark.parametrize("case", HOSTILE_MODELS)
def test_a_vocabulary_or_model_that_is_odd_is_refused(case: str) -> None:
    with pytest.raises(CheckpointError, match=r"^x\.json: not a tokenizer\.json of a kind that is known: "):
        CaptionTokenizer.parse(json.dumps(OWN | {"model": OWN["model"] | HOSTILE_MODELS[case]}).encode(), where="x.json")


def test_a_vocabulary_without_end_is_refused_before_it_is_built() -> None:
    many = {str(number): number for number in range(MAX_TOKENS + 1)}
    with pytest.raises(ValueError, match="at most 262144 of each"):
        Vocabulary.from_parts(many, [])
    with pytest.raises(ValueError, match="at most 262144 of each"):
        Vocabulary.from_parts({"a": 0}, [["a", "a"]] * (MAX_TOKENS + 1))


@pytest.mark.parametrize("text", ['{"version": "1.0", "version": "1.0"}', "[" * 100_000, '{"a": ' * 5000 + "1" + "}" * 5000, '{"a": NaN}',
                                  '{"model": 3}', "[]"])
def test_what_is_no_strict_json_is_refused(text: str) -> None:
    with pytest.raises(CheckpointError, match=r"^x\.json: not a tokenizer\.json"):
        CaptionTokenizer.parse(text.encode(), where="x.json")


@pytest.mark.parametrize("kind", KINDS)
def test_merges_may_be_spelled_as_older_versions_of_the_library_do(kind: str) -> None:
    model = KINDS[kind]["model"]
    older = KINDS[kind] | {"model": model | {"merges": [" ".join(pair) for pair in model["merges"]]}}
    del older["model"]["ignore_merges"]
    for value in (older, KINDS[kind]):
        assert json.loads(CaptionTokenizer.parse(json.dumps(value).encode(), where="x").tokenizer.to_str()) == KINDS[kind]


SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-1, 5), st.floats(0, 1), st.sampled_from(["", "a", "NFC", "Sequence", "</w>"]))


@given(st.sampled_from(["version", "truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder", "dropout", "unk_token",
                        "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", "byte_fallback", "ignore_merges", "type"]), SCALARS)
def test_whatever_a_field_is_changed_to_the_file_is_refused_or_encodes_as_before(field: str, value: Any) -> None:
    changed = OWN | ({field: value} if field in OWN else {"model": OWN["model"] | {field: value}})
    try:
        found = CaptionTokenizer.parse(json.dumps(changed).encode(), where="x")
    except CheckpointError:
        return
    assert found.tokenizer.to_str() == TOKENIZER.tokenizer.to_str()


@given(st.text(max_size=200))
def test_a_caption_has_no_more_tokens_than_its_composed_lower_case_has_bytes(text: str) -> None:
    assert len(TOKENIZER.encode(text, 1_000_000)) <= 3 * len(text.encode("utf-8", "replace")) + 1  # composing at most triples the bytes


def test_no_token_is_learned_that_could_not_be_read_again(tmp_path: Path) -> None:
    learned = CaptionTokenizer.train(["a" * 5000] * 3 + ["b" * 4096] * 3, 400)
    assert max(map(len, learned.tokenizer.get_vocab())) <= MAX_TOKEN_LENGTH
    learned.save(tmp_path / "tokenizer.json")
    assert CaptionTokenizer.load(tmp_path / "tokenizer.json").encode("a" * 5000, 9) == learned.encode("a" * 5000, 9)


def test_captions_longer_than_the_context_are_counted() -> None:
    tokenizer = CaptionTokenizer.train(["a b", "a b c"], 300)
    captions = ["", "a b", "a b c d e"]
    lengths = [len(tokenizer.encode(caption, 1000)) for caption in captions]
    for room in range(max(lengths) + 2):
        assert tokenizer.count_cut(captions, room) == sum(length > room for length in lengths)


@pytest.mark.parametrize("caption", ["&#" + "9" * 5_000 + ";", "&amp;#" + "9" * 5_000, "a &#" + "0" * 5_000 + "65 b"])
def test_a_reference_to_no_character_is_a_caption_like_any_other(caption: str) -> None:
    assert "\ufffd" in clean_for_clip(caption)
    assert clean_for_clip("&#65; &amp;#66; &#99999999;") == "a b \ufffd"
