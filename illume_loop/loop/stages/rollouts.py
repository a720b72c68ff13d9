"""Draw and score the samples of an update in units of their own, by generators and assessors.

Invariants:

- A sample is stored with its log-probabilities in the transaction that ends its unit. It is learned from once, by the
  update that it was drawn for.
- The policy that draws is named by the hash of its weights, and is never older than the update's staleness.
"""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy.orm import Session

from illume_db.leases import Lease
from illume_db.rounds import round_of
from illume_db.samples import add_assessments
from illume_db.sessions import transaction
from illume_db.updates import add_pending_rollouts, pending_rollouts
from illume_db.versions import base_version, version_of
from illume_loop.loop.context import RunContext
from illume_loop.loop.policies import Policies
from illume_loop.loop.rollouts import (
    add_drawn,
    draw_rows,
    new_samples,
    prompts_of_update,
    rows_of_update,
    score_images,
    staleness_of,
)
from illume_loop.loop.unit_inputs import Effect, OnItems, span_of_update


def draw_rollouts(context: RunContext, lease: Lease, on_items: OnItems) -> Effect:
    """Draw some samples of an update by the policy that an earlier update published."""
    settings, index = context.settings, int(lease.payload["update"])
    with transaction(context.engine) as session:
        round_ = round_of(session, lease.round_id)
        chosen = prompts_of_update(context, session, round_, index)
    rows = rows_of_update(settings, chosen, index)
    first = lease.first_row - span_of_update(settings, index)[0]
    staleness = staleness_of(settings.grpo, index)
    policy = Policies(context).drawing(round_, index - staleness)
    on_items(0, lease.num_items)
    drawn = draw_rows(context, policy, round_, rows[first : first + lease.num_items])
    names = context.images.write_all(drawn.images)
    context.fresh_images.update(zip(names, drawn.images, strict=True))
    samples = new_samples(drawn, names)

    def effect(session: Session) -> None:
        ids = add_drawn(session, round_, samples, at=context.clock(), staleness=staleness)
        log_probs = dict(zip(ids, drawn.log_probs_BL, strict=True))
        add_pending_rollouts(session, round_.id, index, first, log_probs)

    return effect


def score_rollouts(context: RunContext, lease: Lease, on_items: OnItems) -> Effect:
    """Score some samples of an update by each scorer. Samples that no unit could draw are left out."""
    settings, index = context.settings, int(lease.payload["update"])
    first = lease.first_row - span_of_update(settings, index)[0]
    with transaction(context.engine) as session:
        round_ = round_of(session, lease.round_id)
        version = version_of(session, round_.drawing_version_id)
        base = base_version(session, context.run_id)
        rows = pending_rollouts(session, round_.id, index, first, first + lease.num_items)
    images = [context.take_image(row.image_sha256) for row in rows]
    seeds = [row.seed for row in rows]
    of_scorers = score_images(
        context, version, base, [row.prompt for row in rows], images, seeds, lambda: on_items(0, lease.num_items)
    )
    found = [
        replace(one, sample_id=row.sample_id)
        for of_scorer in of_scorers
        for one, row in zip(of_scorer, rows, strict=True)
    ]
    return lambda session: add_assessments(session, found)
