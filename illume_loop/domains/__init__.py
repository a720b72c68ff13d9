"""The worlds of prompts in which the loop can run; `get_domain` finds one by name.

Plug-in domains are entry points of the group `illume_loop.domains`. The entry point's name is the value of
`run.domain`. Its object is called with the run's PromptSet, which is empty if `run.prompts` names none, and returns a
Domain (protocols.py). This module adds the optional parts that a plug-in lacks.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from types import MethodType
from typing import TYPE_CHECKING, Any, cast

from illume_loop.errors import IllumeLoopError, NotFoundError, UsageError
from illume_loop.protocols import OPTIONAL, REQUIRED, Domain, OptionalParts

if TYPE_CHECKING:
    from illume_loop.domains.text.prompt_set import PromptSet

ENTRY_POINT_GROUP = "illume_loop.domains"


def get_domain(name: str, prompts: PromptSet | None = None) -> Domain:
    """Return the domain called `name`, over a prompt set if there is one.

    Raises NotFoundError, and UsageError if the domain takes no prompts or a plug-in's domain cannot be used.
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
            return _completed(_made(entry_point, prompts or PromptSet()), name)
    raise NotFoundError(kind="domain", name=name)


def _made(entry_point: EntryPoint, prompts: PromptSet) -> Any:
    """Return the domain that a plug-in makes. Raises UsageError if it fails."""
    try:
        return entry_point.load()(prompts)
    except IllumeLoopError:
        raise
    except Exception as error:  # the code of a plug-in may fail in any way
        raise UsageError(
            f"the domain '{entry_point.name}' of the plug-in {entry_point.value} cannot be made "
            f"({type(error).__name__}: {error}); see that its package is installed whole"
        ) from error


def _completed(domain: Any, name: str) -> Domain:
    """Return a plug-in's domain with the defaults of the optional parts that it lacks.

    Raises UsageError if it lacks a required part.
    """
    required = (*REQUIRED, "check") if getattr(domain, "exact", False) else REQUIRED
    lacking = [part for part in required if not hasattr(domain, part)]
    if lacking:
        raise UsageError(
            f"the domain '{name}' has no {' and no '.join(f'`{part}`' for part in lacking)}: write what is missing, "
            "docs/how-to/plug-in-a-domain.md lists the parts of a domain"
        )
    for part in OPTIONAL:
        if not hasattr(domain, part):
            setattr(domain, part, MethodType(getattr(OptionalParts, part), domain))
    return cast(Domain, domain)
