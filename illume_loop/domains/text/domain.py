"""The text world behind the Domain protocol: the prompts of a prompt set, in the set's splits.

The domain has no checker, so `exact` is False: the run's base decides about held-out draws (judge/referee.py). It has
no real pictures, so there are none to replay, to read or to edit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from random import Random
from typing import NoReturn

from PIL import Image

from illume_loop.domains.text.keys import key_of
from illume_loop.domains.text.prompt_set import SPLITS, PromptSet
from illume_loop.domains.text.spec import questions_of_spec
from illume_loop.errors import NoCheckerError, PromptOutsideGrammarError, UsageError
from illume_loop.protocols import OptionalParts, Prompt, Question, Split, Verdict


class TextDomain(OptionalParts):
    """The domain of the prompts of a prompt set."""

    name = "text"
    exact = False

    def __init__(self, prompts: PromptSet) -> None:
        self._of_split = {split: tuple(prompts.of_split.get(split, ())) for split in SPLITS}
        everything = [prompt for of_split in self._of_split.values() for prompt in of_split]
        self.categories: Sequence[str] = tuple(sorted({prompt.category for prompt in everything}))
        self._by_text = {prompt.text: prompt for prompt in everything}
        self._split_of_key = {prompt.key: split for split, found in self._of_split.items() for prompt in found}

    def prompts(self, split: Split, count: int, seed: int) -> list[Prompt]:
        """Return `count` different prompts of one split; see `Domain.prompts`.

        The order of the prompts in the file has no effect.
        """
        queues: dict[str, list[Prompt]] = {}
        for prompt in sorted(self._of_split[split], key=lambda prompt: prompt.text):
            queues.setdefault(prompt.category, []).append(prompt)
        for category, queue in sorted(queues.items()):
            Random(f"text/{category}/{split}/{seed}").shuffle(queue)
        chosen: list[Prompt] = []
        while len(chosen) < count and any(queues.values()):
            chosen.extend(queue.pop() for _, queue in sorted(queues.items()) if queue)
        if not self._by_text and count:
            raise UsageError(
                f"the domain '{self.name}' has 0 prompts in the split '{split}', {count} were asked for: import some "
                "with `illume-loop prompts import FILE --split SPLIT` and set run.prompts to that set, or take the "
                "prompts of the shapes world with run.domain = 'shapes'"
            )
        if len(chosen) < count:
            raise UsageError(
                f"the prompt set has {len(chosen)} prompts in the split '{split}', {count} were asked for; import more "
                "with `illume-loop prompts import`, or ask for fewer (sampling.prompts_per_round, gate.heldout_prompts)"
            )
        return chosen[:count]

    def parse(self, text: str) -> Prompt:
        """Return the set's prompt with this text, or a new prompt without a spec.

        Every text is a prompt. Raises PromptOutsideGrammarError for an empty one.
        """
        plain = " ".join(text.split())
        if not plain:
            raise PromptOutsideGrammarError(text=text, hint="it is empty")
        return self._by_text.get(plain) or Prompt(plain, self.name, key_of(plain), {})

    def split_of(self, text: str) -> Split | None:
        """Return the split of the prompts that ask for the same picture; see `Domain.split_of`."""
        return self._split_of_key.get(key_of(text))

    def partner(self, prompt: Prompt, seed: int) -> Prompt | None:
        """Return another train prompt of the category that differs in exactly one word; None if there is none."""
        partners = self._partners.get(prompt.text, [])
        return Random(f"text/partner/{seed}/{prompt.text}").choice(partners) if partners else None

    def check(self, image: Image.Image, prompt: Prompt) -> Verdict:
        """Raise NoCheckerError: the domain has no checker."""
        self._refuse("a verdict")

    def questions(self, prompt: Prompt) -> list[Question]:
        """Return the questions of a prompt's spec; see `Domain.questions`."""
        return questions_of_spec(prompt.spec, prompt.text) if prompt.spec else []

    def _refuse(self, what: str) -> NoReturn:
        raise NoCheckerError(domain=self.name, what=what, instead="let a model or a teacher judge")

    @cached_property
    def _partners(self) -> dict[str, list[Prompt]]:
        """The partners of each train prompt, by its text.

        They are train prompts of the same category that differ in one word and ask for another picture.
        """
        by_pattern: defaultdict[tuple[str, int, tuple[str, ...]], list[Prompt]] = defaultdict(list)
        for prompt in sorted(self._of_split["train"], key=lambda prompt: prompt.text):
            words = prompt.text.casefold().split()
            for place in range(len(words)):
                by_pattern[prompt.category, place, (*words[:place], *words[place + 1 :])].append(prompt)
        found: defaultdict[str, list[Prompt]] = defaultdict(list)
        for alike in by_pattern.values():
            for prompt in alike:
                found[prompt.text] += [other for other in alike if other.key != prompt.key]
        return found
