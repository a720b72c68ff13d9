"""Losses that compute only the logits that a label needs. They replace TRL's fused head.

`train.savings` names two forms:

    labelled-logits   TRL's loss over the unified vocabulary, at labelled positions only. TRL does the same if Triton
                      is installed; without Triton it scores every position and drops the unlabelled ones.
    block-logits      Text labels compete with text ids, image labels with image ids. This is another distribution,
                      p(id | block): the one that the engine draws, reads and writes from
                      (docs/decisions/0019-which-logits-a-label-needs.md).

Both use TRL's chunked kernel, so neither the forward nor the backward pass holds a matrix of positions by vocabulary.
If a temperature is given, the logits of image labels are divided by it. A model that is then drawn from at this
temperature draws images as diverse as the rows (docs/decisions/0044-rows-are-fitted-as-they-were-drawn.md).
"""

from __future__ import annotations

import types
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from trl.kernels import ChunkedLogProbFunction
from trl.trainer.utils import FusedCausalLMOutput

from illume_loop.models.sequences import IGNORED_LABEL

CHUNK_IDS = 16_384
"""The columns of one tile of logits. It is the size of the paper's codebook, so image labels need one tile."""


def label_log_probs(
    hidden_NH: Tensor,
    head_VH: Tensor,
    labels_N: Tensor,
    block_sizes: list[int],
    bias_V: Tensor | None = None,
    temperature: float = 1.0,
) -> Tensor:
    """Return log p of each label within its block of ids, shape (N,), in nats, with logits divided by `temperature`.

    It is differentiable in `hidden_NH` and `head_VH`. `block_sizes` cuts the vocabulary into consecutive blocks that
    sum to V; a single block gives the plain softmax. A block without labels costs no logits, and its rows of the head
    get a gradient of zeros.
    """
    log_probs = hidden_NH.new_zeros(labels_N.shape, dtype=torch.float32)
    first = 0
    biases = [None] * len(block_sizes) if bias_V is None else bias_V.split(block_sizes)
    for rows_KH, bias_K, size in zip(head_VH.split(block_sizes), biases, block_sizes, strict=True):
        inside = (labels_N >= first) & (labels_N < first + size)
        scored, *_ = ChunkedLogProbFunction.apply(
            hidden_NH[inside],
            rows_KH,
            bias_K,
            labels_N[inside] - first,
            temperature,
            min(size, CHUNK_IDS),
            None,
            1.0,
            (),
        )
        log_probs = log_probs.masked_scatter(inside, scored)
        first += size
    return log_probs


def use_logits(model: PreTrainedModel, *, by_block: bool, image_temperature: float = 1.0) -> None:
    """Replace TRL's head by this one in a model that a TRL trainer has patched.

    The logits of a position whose label is an image id are divided by `image_temperature`, those of others by 1.
    The image ids follow the text ids. The number of text ids is the configuration's `num_text_ids`, or the text
    configuration's `vocab_size` if it has none. Entropy and accuracy, which TRL computes from all logits, stay zero:
    this project reports neither.
    """
    head = model.get_output_embeddings()
    assert head is not None
    patched = model.forward
    num_ids = head.weight.shape[0]
    num_text_ids = int(getattr(model.config, "num_text_ids", model.config.get_text_config().vocab_size))
    block_sizes = [num_text_ids, num_ids - num_text_ids] if by_block else [num_ids]

    def forward(
        self: PreTrainedModel,
        *args: Any,
        fused_lm_head: bool = False,
        labels: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Any,
    ) -> Any:
        if not fused_lm_head or labels is None:
            return patched(*args, labels=labels, **kwargs)
        hidden = self.base_model(*args, **kwargs | {"use_cache": False}).last_hidden_state[:, :-1]
        labels = labels[:, 1:].to(hidden.device)
        labelled = labels != IGNORED_LABEL
        head = self.get_output_embeddings()  # looked up each time, because wrappers replace it
        weight, bias = head.weight, getattr(head, "bias", None)
        log_probs = hidden.new_zeros(labels.shape, dtype=torch.float32)
        of_image = labels >= num_text_ids
        for chosen, temperature in ((labelled & ~of_image, 1.0), (labelled & of_image, image_temperature)):
            scored = label_log_probs(hidden[chosen], weight, labels[chosen], block_sizes, bias, temperature)
            log_probs = log_probs.masked_scatter(chosen, scored)
        count = labelled.sum().clamp(min=1) if num_items_in_batch is None else num_items_in_batch
        unmeasured = torch.zeros_like(log_probs, requires_grad=False)
        return FusedCausalLMOutput(
            loss=-log_probs.sum() / count,
            log_probs=log_probs,
            entropy=unmeasured,
            is_top1=unmeasured,
            label_mask=labelled,
        )

    model.forward = types.MethodType(forward, model)
