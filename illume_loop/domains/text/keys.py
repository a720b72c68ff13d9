"""The key of a prompt, which is the same for prompts that ask for the same picture, as far as their words tell.

Benchmarks word their prompts differently, and a held-out prompt must not be trained on in another wording.

Invariants:
- Prompts that differ only in case, in blanks, in the full stop at the end, or in an opening such as "a photo of" have
  the same key.
"""

from __future__ import annotations

import hashlib
import re

LONGEST_KEY = 200
"""Characters; the key of a longer prompt is its beginning and a hash of the whole prompt."""

_OPENING = re.compile(
    r"^(an?|the|some)?\s*(photo(graph)?|picture|image|drawing|painting|illustration|render(ing)?)s? "
    r"(of|with|showing)\s+"
)


def key_of(text: str) -> str:
    """Return the key of a prompt, at most LONGEST_KEY characters."""
    plain = " ".join(text.casefold().split()).rstrip(" .!")
    bare = _OPENING.sub("", plain) or plain
    if len(bare) <= LONGEST_KEY:
        return bare
    return f"{bare[: LONGEST_KEY - 65]} {hashlib.sha256(bare.encode()).hexdigest()}"
