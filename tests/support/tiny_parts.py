"""Small random language models and vision encoders in the layouts in which real ones are published.

Weights and configurations are saved by transformers, tokenizers are made with `tokenizers` and lie in the files, with
the special tokens and the settings, that Llama's and Qwen2.5's have.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    CLIPConfig,
    CLIPModel,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    LlamaConfig,
    PreTrainedModel,
    Qwen2Config,
    SiglipConfig,
    SiglipModel,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

WORDS = (
    "a an red blue green yellow circle square ring cross above below left right of two three image with is there are "
    "Yes No yes no describe the make it"
)
TEXT = [f"{word} {word}, {word} {word}?" for word in WORDS.split()] * 3
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
VISION: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
PADDING = 23
"""Rows of Qwen's table that no word has."""


def save_llama(folder: Path) -> Path:
    """Llama's layout: a head of its own, words that hold the space before them, no token to pad with."""
    folder.mkdir(parents=True)
    vocabulary = _llama_tokenizer(folder)
    config = LlamaConfig(**SIZES, vocab_size=vocabulary, bos_token_id=1, eos_token_id=2, tie_word_embeddings=False)
    _save_language(config, folder)
    return folder


def save_qwen(folder: Path) -> Path:
    """Qwen2.5's layout: tied embeddings, biases of queries, keys and values, a padded table, no token to begin with."""
    folder.mkdir(parents=True)
    ends, vocabulary = _qwen_tokenizer(folder)
    config = Qwen2Config(
        **SIZES, vocab_size=vocabulary + PADDING, bos_token_id=ends, eos_token_id=ends + 2, tie_word_embeddings=True
    )
    _save_language(config, folder)
    return folder


def save_siglip(folder: Path) -> Path:
    """A whole SigLIP: 4 x 4 patches of 8 pixels, without a class token."""
    text = {**VISION, "vocab_size": 50, "max_position_embeddings": 8, "projection_size": 32}
    config = SiglipConfig(text_config=text, vision_config={**VISION, "image_size": 32, "patch_size": 8})
    _save_vision(SiglipModel(config), folder)
    SiglipImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def save_clip(folder: Path) -> Path:
    """A whole CLIP: a class token and 6 x 6 patches of 8 pixels."""
    text = {**VISION, "vocab_size": 50, "max_position_embeddings": 8}
    config = CLIPConfig(text_config=text, vision_config={**VISION, "image_size": 48, "patch_size": 8})
    _save_vision(CLIPModel(config), folder)
    CLIPImageProcessorPil(size={"shortest_edge": 48}, crop_size={"height": 48, "width": 48}).save_pretrained(folder)
    return folder


def save_dinov2(folder: Path) -> Path:
    """A DINOv2 by itself: a class token, four registers and 6 x 6 patches of 7 pixels."""
    sizes = {name: size for name, size in VISION.items() if name != "intermediate_size"}
    config = Dinov2WithRegistersConfig(**sizes, image_size=42, patch_size=7, num_register_tokens=4)
    _save_vision(Dinov2WithRegistersModel(config), folder)
    of_imagenet = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    CLIPImageProcessorPil(
        size={"shortest_edge": 48}, crop_size={"height": 42, "width": 42}, **of_imagenet
    ).save_pretrained(folder)
    return folder


def sharpen(model: PreTrainedModel, seed: int) -> None:
    """Weights so large that distributions are far from uniform: of nearly equal logits every order is right."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(noise * (2.0 / parameter[0].numel() ** 0.5))
            else:
                parameter.add_(0.2 * noise)


def _save_language(config: Any, folder: Path) -> None:
    model = AutoModelForCausalLM.from_config(config)
    sharpen(model, 3)
    model.save_pretrained(folder)


def _save_vision(model: PreTrainedModel, folder: Path) -> None:
    sharpen(model, 4)
    model.save_pretrained(folder)


def _merges(pre_tokenizer: Any, alphabet: list[str]) -> dict[str, Any]:
    """Vocabulary and merges of a BPE over the words."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizer
    trainer = trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(TEXT, trainer)
    trained: dict[str, Any] = json.loads(backend.to_str())["model"]
    return trained


def _llama_tokenizer(folder: Path) -> int:
    """As SentencePiece's with bytes to fall back on; the number of its ids."""
    metaspace = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    trained = _merges(pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first"), [])
    special = ["<unk>", "<s>", "</s>"]
    tokens = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *trained["vocab"]]
    merges = [tuple(merge) for merge in trained["merges"]]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    backend = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    backend.pre_tokenizer = metaspace
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(content=" ", left=1)]
    )
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    backend.save(str(folder / "tokenizer.json"))
    _write(
        folder / "tokenizer_config.json",
        add_bos_token=True,
        add_eos_token=False,
        bos_token="<s>",
        clean_up_tokenization_spaces=False,
        eos_token="</s>",
        legacy=False,
        model_max_length=4096,
        pad_token=None,
        tokenizer_class="LlamaTokenizer",
        unk_token="<unk>",
    )
    return len(vocabulary)


def _qwen_tokenizer(folder: Path) -> tuple[int, int]:
    """As Qwen2.5's; the id of `<|endoftext|>`, and the number of its ids."""
    split = pre_tokenizers.Split(Regex(QWEN_SPLIT), "isolated")
    of_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trained = _merges(pre_tokenizers.Sequence([split, of_bytes]), pre_tokenizers.ByteLevel.alphabet())
    merges = [tuple(merge) for merge in trained["merges"]]
    backend = Tokenizer(models.BPE(trained["vocab"], merges))
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, of_bytes])
    backend.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    backend.save(str(folder / "tokenizer.json"))
    _write(
        folder / "tokenizer_config.json",
        add_prefix_space=False,
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        bos_token=None,
        clean_up_tokenization_spaces=False,
        eos_token="<|im_end|>",
        errors="replace",
        model_max_length=131072,
        pad_token="<|endoftext|>",
        tokenizer_class="Qwen2Tokenizer",
        unk_token=None,
    )
    return backend.token_to_id("<|endoftext|>"), backend.get_vocab_size()


def _write(path: Path, **entries: object) -> None:
    path.write_text(json.dumps(entries, indent=2))
