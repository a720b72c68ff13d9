"""Worlds in which the loop can run; `get_domain` finds one by name."""

from __future__ import annotations

from illume_loop.domains.protocol import Domain


def get_domain(name: str) -> Domain:
    """The domain called `name`. Raises NotFoundError."""
    if name == "shapes":
        from illume_loop.domains.shapes.domain import ShapesDomain

        return ShapesDomain()
    from illume_loop.errors import NotFoundError

    raise NotFoundError(kind="domain", name=name)
