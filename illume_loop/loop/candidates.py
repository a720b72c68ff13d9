"""Make the checkpoint that a training or the last update of a round wrote the candidate of its round."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

from sqlalchemy.orm import Session

from illume_db.rounds import set_candidate
from illume_db.tables import Round
from illume_db.versions import add_version
from illume_loop.loop.context import RunContext
from illume_loop.loop.unit_inputs import Effect


def publish_candidate(context: RunContext, round_: Round, origin: str, write: Callable[[Path], object]) -> Effect:
    """Publish the checkpoint that `write` makes at a path; return the effect that makes it the round's candidate.

    `origin` says in a few words what the version was made from.
    """
    out = context.scratch / f"candidate-{uuid4().hex}"
    try:
        write(out)
        checkpoint = context.checkpoints.publish(out)
    finally:
        shutil.rmtree(out, ignore_errors=True)

    def effect(session: Session) -> None:
        version = add_version(
            session,
            context.run_id,
            parent_id=round_.parent_version_id,
            state="candidate",
            sha256=checkpoint.sha256,
            num_bytes=checkpoint.num_bytes,
            origin=f"round {round_.index}, {origin}",
            at=context.clock(),
        )
        set_candidate(session, round_.id, version.id)

    return effect
