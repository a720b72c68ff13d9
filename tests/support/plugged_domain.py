"""A domain as somebody else plugs it in: the prompts of a prompt set, with a checker of its own."""

from __future__ import annotations

from PIL import Image

from illume_loop.domains.shapes import checker
from illume_loop.domains.shapes.grammar import parse
from illume_loop.domains.text.domain import TextDomain
from illume_loop.protocols import Prompt, Verdict


class CheckedTextDomain(TextDomain):
    """Prompts of the shapes world, whatever set they come from."""

    name = "plugged"
    exact = True

    def check(self, image: Image.Image, prompt: Prompt) -> Verdict:
        return checker.check(image, parse(prompt.text))
