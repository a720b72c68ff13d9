"""Text and pixels in: tokenizers made here, and SigLIP's Pillow image processor, behind one processor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, ProcessorMixin
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

SPECIAL_TOKENS = ("<pad>", "<bos>", "<eos>", "<boi>", "<eoi>", "<img>", "<unk>")


# Runs of punctuation are words of their own, so that questions and JSON need few of them.
_SPLIT = pre_tokenizers.Sequence(
    [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex(r"[^\p{L}\p{N}]+"), "isolated")]
)


class IllumeProcessor(ProcessorMixin):
    """Prepares text and images for an ILLUME model."""

    attributes: ClassVar[list[str]] = ["image_processor", "tokenizer"]

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, **kwargs: Any) -> None:
        super().__init__(image_processor, tokenizer, **kwargs)  # type: ignore[no-untyped-call]


def split_words(text: str) -> list[str]:
    """The words of a text as the tokenizer of `build_processor` takes them."""
    return [word for word, _ in _SPLIT.pre_tokenize_str(text.lower())]


def build_processor(words: Sequence[str], image_size: int) -> IllumeProcessor:
    """A processor for a closed vocabulary and square images of `image_size` pixels."""
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
    """A tokenizer of bytes and these words, as byte-level ones are, for language models without one of their own."""
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
    """What makes square pixels of images, all of each whatever its shape; `pixels` says how they are normalised."""
    return SiglipImageProcessorPil(size={"height": image_size, "width": image_size}, **pixels)
