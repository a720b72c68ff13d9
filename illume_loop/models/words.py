"""The words of prompts that a model has never seen, told in one sentence."""

from __future__ import annotations

from collections.abc import Sequence

from illume_loop.protocols import KnowsWords, UnifiedModel

MOST_TOLD = 8


def unknown_words_told(name: str, model: UnifiedModel, prompts: Sequence[str]) -> str:
    """Return the sentence that names the words; it is empty where the model called `name` knows all of them.

    A model whose tokenizer spells words out knows every word.
    """
    if not isinstance(model, KnowsWords):
        return ""
    unknown = [words for prompt in prompts if (words := model.unknown_words(prompt))]
    if not unknown:
        return ""
    words = list(dict.fromkeys(word for of_prompt in unknown for word in of_prompt))
    shown = ", ".join(f"'{word}'" for word in words[:MOST_TOLD])
    more = f" and {len(words) - MOST_TOLD} more words" if len(words) > MOST_TOLD else ""
    where = f" (in {len(unknown)} of {len(prompts)} prompts)" if len(prompts) > 1 else ""
    return f"{name} was never taught {shown}{more}{where}, and takes no notice of what that says"
