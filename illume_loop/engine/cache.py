"""The name of a decoder's cache of keys and values in the installed transformers.

transformers 5.24 renamed the argument and the output field `past_key_values` to `cache`, and announced that the old
name ends with 5.40. Bodies of both kinds work: each gets its own argument.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from torch import nn
from transformers.modeling_outputs import CausalLMOutputWithPast

NAMES = ("cache", "past_key_values")
"""The new name and the old one, in the order in which they are tried."""

OUTPUT_FIELD = next(name for name in NAMES if name in CausalLMOutputWithPast.__dataclass_fields__)
"""The field of transformers' outputs that holds the cache."""


def as_argument(body: nn.Module, cache: Any) -> dict[str, Any]:
    """Return `cache` under the name by which the forward of `body` takes it."""
    return {_argument_of(type(body).forward): cache}


@lru_cache
def _argument_of(forward: Callable[..., Any]) -> str:
    """Return the argument's name; a forward that only passes keywords on gets the name of transformers' outputs."""
    parameters = inspect.signature(forward).parameters
    return next((name for name in NAMES if name in parameters), OUTPUT_FIELD)
