"""The unified vocabulary of a model built from parts: text ids as they were, then special ids, then image ids.

    [0, I)              what the tokenizer had: rows of embedding and head are the language model's own, bit by bit
    [I, num_text_ids)   special ids that it lacked, and rows that no word has
    [num_text_ids, V)   image ids

Rows from I on are new: the mean of the language model's own, where every id is as probable as a usual word, plus noise
of a tenth of their spread, by which ids can be told apart (Hewitt 2021, "Initializing new word embeddings").
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from illume_loop.models.illume.parts import num_ids

BEGIN_IMAGE, END_IMAGE, IMAGE, PAD = "<boi>", "<eoi>", "<img>", "<pad>"
NOISE = 0.1
"""Of new rows, as a share of the standard deviation of old ones."""
ROWS = 64
"""Text rows come in multiples of this, which matrix units want."""


def extend_tokenizer(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Add the special tokens that are lacking; the ids of `<boi>`, `<eoi>` and `<img>`.

    One without a token to begin with, as Qwen's, begins with what stood between its training texts: the token that it
    pads with, or else the one that ends a text. One without a token to pad with, as Llama's, gets one.
    """
    if tokenizer.bos_token_id is None:
        tokenizer.bos_token = tokenizer.pad_token or tokenizer.eos_token
    if tokenizer.pad_token_id is None:
        tokenizer.add_special_tokens({"pad_token": PAD})
    of_images = [BEGIN_IMAGE, END_IMAGE, IMAGE]
    tokenizer.add_special_tokens({"extra_special_tokens": of_images}, replace_extra_special_tokens=False)
    return [int(tokenizer.convert_tokens_to_ids(token)) for token in of_images]  # type: ignore[arg-type]


def num_text_rows(tokenizer: PreTrainedTokenizerBase, num_rows: int) -> int:
    """Rows for text of an extended tokenizer and a language model of so many rows, which may be more than its words."""
    return -(-max(num_rows, num_ids(tokenizer)) // ROWS) * ROWS


@torch.no_grad()
def grown(rows_VH: Tensor, num_inherited: int, num_rows: int, seed: int) -> Tensor:
    """A table of `num_rows`, whose first `num_inherited` rows are those given and whose others are new."""
    inherited = rows_VH[:num_inherited].float()
    noise = torch.randn(num_rows - num_inherited, rows_VH.shape[1], generator=torch.Generator().manual_seed(seed))
    new = inherited.mean(0) + NOISE * inherited.std(0) * noise
    return torch.cat([rows_VH[:num_inherited], new.to(rows_VH)])
