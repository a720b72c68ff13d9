"""Worlds in which the loop can run; `get_domain` finds one by name.

Domains of others are entry points of the group `illume_loop.domains`: the name is what `run.domain` says, the object is
called with the run's PromptSet (empty where `run.prompts` names none) and returns a Domain (protocol.py).
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TYPE_CHECKING, cast

from illume_loop.domains.protocol import Domain
from illume_loop.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from illume_loop.domains.text.prompt_set import PromptSet

ENTRY_POINT_GROUP = "illume_loop.domains"


def get_domain(name: str, prompts: PromptSet | None = None) -> Domain:
    """The domain called `name`, over a prompt set where there is one.

    Raises NotFoundError, and UsageError where the domain takes no prompts.
    """
    if name == "shapes":
        from illume_loop.domains.shapes.domain import ShapesDomain

        if prompts:
            raise UsageError("the domain 'shapes' has prompts of its own; with run.prompts, set run.domain = 'text'")
        return ShapesDomain()
    from illume_loop.domains.text.prompt_set import PromptSet

    if name == "text":
        from illume_loop.domains.text.domain import TextDomain

        return TextDomain(prompts or PromptSet())
    for entry_point in entry_points(group=ENTRY_POINT_GROUP):
        if entry_point.name == name:
            return cast(Domain, entry_point.load()(prompts or PromptSet()))
    raise NotFoundError(kind="domain", name=name)
