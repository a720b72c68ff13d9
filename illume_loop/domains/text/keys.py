"""When two prompts ask for the same picture, as far as their words tell.

Guarantee: prompts that differ in case, in blanks, in the full stop at the end, or in an opening such as "a photo of"
have one key. Benchmarks word their prompts differently, and one that is held out must not be trained on in other dress.
"""

from __future__ import annotations

import hashlib
import re

LONGEST_KEY = 200
"""Characters; the key of a longer prompt is its beginning and a hash of all of it."""

_OPENING = re.compile(
    r"^(an?|the|some)?\s*(photo(graph)?|picture|image|drawing|painting|illustration|render(ing)?)s? "
    r"(of|with|showing)\s+"
)


def key_of(text: str) -> str:
    """The key of a prompt, at most 256 characters."""
    plain = " ".join(text.casefold().split()).rstrip(" .!")
    bare = _OPENING.sub("", plain) or plain
    if len(bare) <= LONGEST_KEY:
        return bare
    return f"{bare[: LONGEST_KEY - 65]} {hashlib.sha256(bare.encode()).hexdigest()}"
