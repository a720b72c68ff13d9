"""The processor of ILLUME: tokenizers made here, and SigLIP's Pillow image processor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, ProcessorMixin
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

SPECIAL_TOKENS = ("<pad>", "<bos>", "<eos>", "<boi>", "<eoi>", "<img>", "<unk>")


# A run of punctuation is one word, so that questions and JSON need few words.
_SPLIT = pre_tokenizers.Sequence(
    [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex(r"[^\p{L}\p{N}]+"), "isolated")]
)


class IllumeProcessor(ProcessorMixin):
    """A processor of text and images for an ILLUME model."""

    attributes: ClassVar[list[str]] = ["image_processor", "tokenizer"]

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, **kwargs: Any) -> None:
        super().__init__(image_processor, tokenizer, **kwargs)  # type: ignore[no-untyped-call]


def split_words(text: str) -> list[str]:
    """Split a text into words as the tokenizer of `build_processor` does."""
    return [word for word, _ in _SPLIT.pre_tokenize_str(text.lower())]


def build_processor(words: Sequence[str], image_size: int) -> IllumeProcessor:
    """Build a processor for a closed vocabulary and square images of `image_size` pixels."""
    vocabulary = {token: index for index, token in enumerate([*SPECIAL_TOKENS, *words])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = _SPLIT
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        additional_special_tokens=["<boi>", "<eoi>", "<img>"],
        clean_up_tokenization_spaces=False,
    )
    return IllumeProcessor(image_processor=image_processor(image_size), tokenizer=tokenizer)


def byte_tokenizer(words: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """Train a byte-level tokenizer with these words, for language models without one of their own."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1 << 16,
        special_tokens=["<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([f"{word} {word}" for word in words], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", clean_up_tokenization_spaces=False)


def image_processor(image_size: int, **pixels: Any) -> SiglipImageProcessorPil:
    """Build the image processor that makes a square of each whole image, whatever its shape.

    `pixels` says how the pixels are normalised.
    """
    return SiglipImageProcessorPil(size={"height": image_size, "width": image_size}, **pixels)
