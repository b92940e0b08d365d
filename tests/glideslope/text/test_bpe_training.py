from tokenizers import Tokenizer, models, pre_tokenizers

from glideslope.text.bpe_training import train_bpe
from glideslope.text.vocabulary_files import MAX_TOKEN_LENGTH

TEXTS = ["a red apple on a table", "a green apple", "a blue table", "eine rote Birne", "красное яблоко", "a" * 3000]


def train(texts: list[str], vocab_size: int = 320) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    train_bpe(tokenizer, texts, vocab_size=vocab_size, special_tokens=["<start>", "<end>"])
    return tokenizer


def test_the_order_of_the_texts_does_not_matter() -> None:
    assert train(TEXTS).to_str() == train(TEXTS[::-1]).to_str() == train(TEXTS[3:] + TEXTS[:3]).to_str()


def test_special_tokens_come_first_every_byte_is_a_token_and_the_size_is_kept() -> None:
    vocabulary = train(TEXTS).get_vocab()
    assert (vocabulary["<start>"], vocabulary["<end>"]) == (0, 1)
    assert set(pre_tokenizers.ByteLevel.alphabet()) < set(vocabulary)
    assert len(vocabulary) <= 320
    assert max(map(len, train(TEXTS, 4000).get_vocab())) <= MAX_TOKEN_LENGTH
