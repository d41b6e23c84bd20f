"""Tokenizers trained on the texts of a pre-training: byte pairs for English, characters for Chinese."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

START, PAD, UNKNOWN = "<s>", "<pad>", "<unk>"


def byte_pairs(texts: Sequence[str], vocabulary_size: int) -> PreTrainedTokenizerFast:
    """A lower-casing byte-level BPE that puts ``<s>`` before every text."""
    core = Tokenizer(models.BPE())
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    core.decoder = decoders.ByteLevel()
    core.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocabulary_size,
            special_tokens=[PAD, START],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    core.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=True), start_first(core)])
    return finished(core)


def characters(texts: Sequence[str], vocabulary_size: int) -> PreTrainedTokenizerFast:
    """A lower-casing tokenizer with one token per character that puts ``<s>`` before every text.

    Its vocabulary holds the most frequent characters of ``texts``; all others are ``<unk>``.  Full-width
    punctuation stays as it is.
    """
    core = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    core.decoder = decoders.Fuse()
    core.train_from_iterator(
        texts,
        trainers.WordLevelTrainer(
            vocab_size=vocabulary_size, special_tokens=[PAD, START, UNKNOWN], show_progress=False
        ),
    )
    core.post_processor = start_first(core)
    return finished(core)


def start_first(core: Tokenizer) -> processors.TemplateProcessing:
    """Puts the start token before a text."""
    start = core.token_to_id(START)
    return processors.TemplateProcessing(single=f"{START} $A", special_tokens=[(START, start)])


def finished(core: Tokenizer) -> PreTrainedTokenizerFast:
    """The tokenizer as transformers saves it; the start token also ends a text."""
    tokens = {} if core.token_to_id(UNKNOWN) is None else {"unk_token": UNKNOWN}
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=START,
        eos_token=START,
        pad_token=PAD,
        padding_side="right",
        clean_up_tokenization_spaces=False,
        **tokens,
    )


TOKENIZERS: dict[str, Callable[[Sequence[str], int], PreTrainedTokenizerFast]] = {
    "byte-pairs": byte_pairs,
    "characters": characters,
}
