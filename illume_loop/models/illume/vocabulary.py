"""The unified vocabulary of a composed model: the old text ids, then special ids, then image ids.

    [0, I)              the tokenizer's ids: rows of embedding and head are the language model's own, bit by bit
    [I, num_text_ids)   special ids that it lacked, and rows that no word has
    [num_text_ids, V)   image ids

Rows from I on are new. Each is the mean of the language model's own rows, under which every id is as probable as a
usual word, plus noise of a tenth of their spread, by which ids can be told apart (Hewitt 2021, "Initializing new word
embeddings").
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from illume_loop.models.illume.parts import num_ids

BEGIN_IMAGE, END_IMAGE, IMAGE, PAD = "<boi>", "<eoi>", "<img>", "<pad>"
NOISE = 0.1
"""The noise of new rows, as a share of the standard deviation of old ones."""
ROWS = 64
"""Text rows come in multiples of this, which suits matrix units."""


def extend_tokenizer(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Add the special tokens that are lacking; return the ids of `<boi>`, `<eoi>` and `<img>`.

    A tokenizer without a token that begins a text, such as Qwen's, gets the token that stood between its training
    texts: its padding token, or else the token that ends a text. A tokenizer without a padding token, such as Llama's,
    gets a new one.
    """
    if tokenizer.bos_token_id is None:
        tokenizer.bos_token = tokenizer.pad_token or tokenizer.eos_token
    if tokenizer.pad_token_id is None:
        tokenizer.add_special_tokens({"pad_token": PAD})
    of_images = [BEGIN_IMAGE, END_IMAGE, IMAGE]
    tokenizer.add_special_tokens({"extra_special_tokens": of_images}, replace_extra_special_tokens=False)
    return [int(tokenizer.convert_tokens_to_ids(token)) for token in of_images]  # type: ignore[arg-type]


def num_text_rows(tokenizer: PreTrainedTokenizerBase, num_rows: int) -> int:
    """Return the number of text rows for an extended tokenizer and a language model of `num_rows` rows.

    The language model may have more rows than the tokenizer has words.
    """
    return -(-max(num_rows, num_ids(tokenizer)) // ROWS) * ROWS


@torch.no_grad()
def grown(rows_VH: Tensor, num_inherited: int, num_rows: int, seed: int) -> Tensor:
    """Build a table of `num_rows` rows: the first `num_inherited` rows are those given, the others are new."""
    inherited = rows_VH[:num_inherited].float()
    noise = torch.randn(num_rows - num_inherited, rows_VH.shape[1], generator=torch.Generator().manual_seed(seed))
    new = inherited.mean(0) + NOISE * inherited.std(0) * noise
    return torch.cat([rows_VH[:num_inherited], new.to(rows_VH)])
