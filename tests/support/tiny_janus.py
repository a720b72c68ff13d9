"""A small random Janus in the published layout, built with transformers' own classes.

Images are 32 pixels square and have 16 ids of a codebook of 64. The tokenizer is a byte-level BPE with the published
special tokens, the chat template says what the published one says.
"""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    GenerationConfig,
    JanusConfig,
    JanusForConditionalGeneration,
    JanusProcessor,
    JanusVisionConfig,
    JanusVQVAEConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
)
from transformers.models.janus.image_processing_pil_janus import JanusImageProcessorPil

BOS, EOS, PAD = "<bos>", "<eos>", "<pad>"
OF_IMAGES = {"image_token": "<image_placeholder>", "boi_token": "<begin_of_image>", "eoi_token": "<end_of_image>"}
IMAGE_SIZE, PATCH_SIZE, WIDTH, CODES = 32, 8, 32, 64
TOKENS = (IMAGE_SIZE // PATCH_SIZE) ** 2
WORDS = (
    "a an red blue green yellow circle square ring cross above below left right of two three image with is there are "
    "Yes No yes no Please answer or Describe the in one sentence You helpful language vision assistant assess"
)
TEMPLATE = """
{%- for message in messages -%}
{%- set last = loop.last -%}
{{- '<|User|>: ' if message.role == 'user' else '<|Assistant|>: ' -}}
{%- for part in message.content -%}
{{- '<image_placeholder>\n' if part.type == 'image' else part.text -}}
{%- endfor -%}
{%- if not last or add_generation_prompt -%}
{{- '\n\n' if message.role == 'user' else '<eos>' -}}
{%- endif -%}
{%- endfor -%}
{{- '<|Assistant|>:' if add_generation_prompt else '' -}}
"""


def save_tiny_janus(folder: Path, *, tied: bool = True, dtype: torch.dtype = torch.float32) -> Path:
    """Write one, with weights large enough that its distributions are far from uniform."""
    processor = _processor()
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = JanusForConditionalGeneration(_config(processor.tokenizer, tied=tied))
        with torch.no_grad():
            for parameter in model.parameters():
                scale = 2.0 / parameter[0].numel() ** 0.5 if parameter.ndim > 1 else 0.2
                parameter.copy_(torch.randn_like(parameter) * scale + (parameter.ndim == 1) * parameter)
    tokenizer = processor.tokenizer
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        generation_kwargs={"boi_token_id": tokenizer.convert_tokens_to_ids(OF_IMAGES["boi_token"])},
        guidance_scale=5,
    )
    model.to(dtype).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _processor() -> JanusProcessor:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=[BOS, EOS, PAD, *OF_IMAGES.values(), "<|User|>", "<|Assistant|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([f" {word} {word}" for word in WORDS.split()] * 3, trainer)
    begins = [(BOS, backend.token_to_id(BOS))]
    backend.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=begins)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=BOS, eos_token=EOS, pad_token=PAD, extra_special_tokens=OF_IMAGES
    )
    shown = JanusImageProcessorPil(
        size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    return JanusProcessor(shown, tokenizer, TEMPLATE, use_default_system_prompt=True, num_image_tokens=TOKENS)


def _config(tokenizer: PreTrainedTokenizerFast, *, tied: bool) -> JanusConfig:
    text = LlamaConfig(
        vocab_size=len(tokenizer) + 3,  # as published: the table has rows that no word has
        hidden_size=WIDTH,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=1024,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    vision = JanusVisionConfig(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
        projection_dim=WIDTH,
        num_image_tokens=TOKENS,
    )
    images = JanusVQVAEConfig(
        num_embeddings=CODES,
        latent_channels=32,
        base_channels=32,
        channel_multiplier=[1, 1, 1, 1],
        num_res_blocks=1,
        projection_dim=WIDTH,
        image_token_embed_dim=WIDTH,
    )
    placeholder = tokenizer.convert_tokens_to_ids(OF_IMAGES["image_token"])
    return JanusConfig(
        text_config=text, vision_config=vision, vq_config=images, image_token_id=placeholder, tie_word_embeddings=tied
    )
