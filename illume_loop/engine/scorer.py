"""Reading by likelihood: how probable a text is, given an image."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from illume_loop.models.illume.modeling import IGNORED_LABEL, IllumeForConditionalGeneration, log_probs_of
from illume_loop.models.protocol import Scores


@torch.inference_mode()
def text_log_likelihood(
    model: IllumeForConditionalGeneration, batch: dict[str, Tensor], image_features: Tensor
) -> Scores:
    """Sum of log p over the labelled ids of each row, shape (B,), nats.

    Only text ids compete: the head's image rows are left out, as no image id can follow in a caption.
    """
    device = image_features.device
    labels = batch["labels"][:, 1:].to(device)
    hidden = model.model(
        input_ids=batch["input_ids"].to(device),
        attention_mask=batch["attention_mask"].to(device),
        image_features=image_features,
    ).last_hidden_state[:, :-1]
    scored = labels != IGNORED_LABEL
    text_head = model.lm_head.weight[: model.config.num_text_ids]
    log_probs = log_probs_of(hidden[scored] @ text_head.T, labels[scored])
    sums = torch.zeros(labels.shape, device=device).masked_scatter(scored, log_probs).sum(dim=1)
    return sums.cpu().numpy().astype(np.float64)
