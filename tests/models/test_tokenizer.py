import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from glideslope.errors import CheckpointError
from glideslope.models.tokenizer import END, START, CaptionTokenizer

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


def test_a_tokenizer_without_the_special_tokens_is_refused() -> None:
    with pytest.raises(CheckpointError, match="this is not a caption tokenizer"):
        CaptionTokenizer(Tokenizer(models.BPE()))
