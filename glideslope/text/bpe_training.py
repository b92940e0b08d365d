"""One trainer of byte-level byte-pair encodings, for the base model's captions and for lite0's."""

from collections.abc import Iterable, Sequence

from tokenizers import Tokenizer, pre_tokenizers, trainers

from .vocabulary_files import MAX_TOKEN_LENGTH


def train_bpe(tokenizer: Tokenizer, texts: Iterable[str], *, vocab_size: int, special_tokens: Sequence[str]) -> None:
    """Teach a tokenizer its vocabulary; every text can be encoded, for all bytes are tokens.

    Args:
        tokenizer: an untrained byte-pair encoding with its normaliser and its pieces.
        texts: to learn from, one at a time; the same texts in any order give the same vocabulary.
        vocab_size: most tokens, special ones included.
        special_tokens: get the first numbers.
    """
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=list(special_tokens), show_progress=False,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), max_token_length=MAX_TOKEN_LENGTH)
    tokenizer.train_from_iterator(texts, trainer)
