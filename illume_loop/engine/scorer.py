"""Reading by likelihood: how probable a text is, and yes or no to the questions about an image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from illume_loop.models.illume.modeling import IllumeForConditionalGeneration
from illume_loop.models.protocol import Scores
from illume_loop.models.sequences import IGNORED_LABEL, log_probs_of


@torch.inference_mode()
def text_log_likelihood(
    model: IllumeForConditionalGeneration, batch: dict[str, Tensor], image_features: Tensor | None
) -> Scores:
    """Sum of log p over the labelled ids of each row, shape (B,), nats.

    Only text ids compete: the head's image rows are left out, as no image id can follow in a caption.
    """
    device = model.lm_head.weight.device
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


@torch.inference_mode()
def answer_log_odds(
    model: IllumeForConditionalGeneration,
    prefix: Sequence[int],
    image_features: Tensor,
    questions: Sequence[Sequence[Sequence[int]]],
    answers: tuple[int, int],
) -> list[Scores]:
    """log p(first answer) - log p(second answer) after each question of each image, one array for each image.

    `questions[i]` are the questions about image i as ids. The prefix with the image goes through the model once; its
    keys and values are shared by all questions of that image.
    """
    counts = [len(asked) for asked in questions]
    rows = [list(ids) for asked in questions for ids in asked]
    if not rows:
        return [np.zeros(0) for _ in questions]
    device = image_features.device
    ids = torch.tensor([list(prefix)] * len(questions), device=device)
    cache = DynamicCache()
    model.model(inputs_embeds=model.model.embed(ids, image_features), past_key_values=cache, use_cache=True)
    owner = torch.repeat_interleave(torch.arange(len(counts), device=device), torch.tensor(counts, device=device))
    cache.batch_select_indices(owner)
    length = max(map(len, rows))
    asked = torch.tensor([row + row[-1:] * (length - len(row)) for row in rows], device=device)
    # What is padded on the right comes after the last word, and a causal model does not look ahead.
    hidden = model.model(
        inputs_embeds=model.model.embed(asked, None), past_key_values=cache, use_cache=True
    ).last_hidden_state
    last = hidden[torch.arange(len(rows), device=device), torch.tensor([len(row) - 1 for row in rows], device=device)]
    logits = last @ model.lm_head.weight[list(answers)].T
    log_odds = (logits[:, 0] - logits[:, 1]).double().cpu().numpy()
    return np.split(log_odds, np.cumsum(counts)[:-1])
