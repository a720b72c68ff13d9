"""The policies that a run's updates left: in memory, in saved states, or to be learned anew from stored rollouts.

Invariants:

- A saved state is only used if its files match its row. Without one, the policy is learned anew from the stored
  rollouts of the updates before, to the same weights.
- The newest state is kept, and the one that the round began with, so a failed round can begin again.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from sqlalchemy.orm import Session

from illume_db.leases import Lease
from illume_db.manifests import add_training_checkpoint, checkpoints_of_training, mark_checkpoints
from illume_db.rounds import round_of, round_of_candidate, rounds_before
from illume_db.runs import add_event, run_key
from illume_db.sessions import transaction
from illume_db.tables import ModelVersion, Round
from illume_db.updates import learned_rollouts, num_updates, policies_of, policy_states
from illume_db.versions import version_of
from illume_loop.errors import CorruptArtifactError, InconsistentRunError
from illume_loop.loop.context import DrawingPolicy, RunContext
from illume_loop.loop.unit_inputs import decode_of, derived_seed
from illume_loop.train.keeping import KeptCheckpoint, listed_checkpoint

if TYPE_CHECKING:
    from illume_loop.train.grpo import Policy, Rollout


class Policies:
    """The policies of a run as its updates left them: in memory, saved, or to be learned anew from stored rollouts."""

    def __init__(self, context: RunContext) -> None:
        self.context = context

    def before(self, round_: Round, index: int) -> Policy:
        """Return the policy as the update before `index` of a round left it.

        Before the first one it is the policy that the round's drawing version was published from, with its optimiser;
        or the version itself, if it is no policy.
        """
        lost: list[tuple[Round, int]] = []
        policy: Policy | None = None
        at = self._update_before(round_, index)
        while at is not None and (policy := self._left_by(*at)) is None:
            lost.append(at)
            at = self._update_before(*at)
        policy = policy or self._fresh(round_)
        for of_round, again in reversed(lost):
            policy.learn(self._stored(of_round, again))
        return policy

    def drawing(self, round_: Round, index: int) -> Policy:
        """Return a policy with the weights that the update before `index` of a round published, for drawing only.

        Raises InconsistentRunError if that update published none.
        """
        at = self._update_before(round_, index)
        if at is None:
            return self._kept_for_drawing(round_, None)
        of_round, number = at
        with transaction(self.context.engine) as session:
            sha256 = policies_of(session, of_round.id).get(number)
        if sha256 is None:
            raise InconsistentRunError(what=f"update {number} of round {of_round.index} published no policy")
        live = self.context.live_policy
        if live is not None and live.sha256 == sha256:
            return live.policy
        return self._kept_for_drawing(round_, sha256)

    def _kept_for_drawing(self, round_: Round, sha256: str | None) -> Policy:
        """Return the policy of the context that only draws, with the published weights or, without any, as it began."""
        base = self._first_version(round_).sha256
        kept, name = self.context.drawing_policy, sha256 or base
        if kept is None or kept.base_sha256 != base or (sha256 is None and kept.sha256 != base):
            self.context.drawing_policy = None  # there need not be room for a second one
            kept = DrawingPolicy(base, base, self._fresh(round_))
        if kept.sha256 != name:
            self.context.drawing_policy = None  # from here on its weights may be those of two policies
            kept.policy.load_weights(self.context.checkpoints.local_path(name))
        self.context.drawing_policy = DrawingPolicy(base, name, kept.policy)
        return kept.policy

    def _update_before(self, round_: Round, index: int) -> tuple[Round, int] | None:
        """Return the update that the policy learned from last before this one; None if there is none."""
        if index > 1:
            return round_, index - 1
        with transaction(self.context.engine) as session:
            of_version = round_of_candidate(session, round_.drawing_version_id)
            last = 0 if of_version is None else num_updates(session, of_version.id)
        return (of_version, last) if of_version is not None and last else None

    def _left_by(self, round_: Round, index: int) -> Policy | None:
        """Return the policy that an update left, from memory or from its saved state; None if both are gone."""
        with transaction(self.context.engine) as session:
            rows = [row for row in checkpoints_of_training(session, round_.id) if row.step == index]
            kept = [
                (row.id, KeptCheckpoint(row.step, Path(row.folder), row.files)) for row in rows if row.state == "kept"
            ]
        live = self.context.live_policy
        if live is not None and any(live.folder == str(saved.folder) for _, saved in kept):
            return live.policy
        self.context.live_policy = None  # there need not be room for a second one
        for id_, saved in kept:
            if self._is_whole(id_, saved):
                policy = self._fresh(round_)
                policy.load(saved.folder)
                return policy
        return None

    def _is_whole(self, id_: int, saved: KeptCheckpoint) -> bool:
        """Return whether the files of a saved state match their row; mark the row as damaged if not."""
        try:
            saved.check(self.context.on_progress)
        except CorruptArtifactError as error:
            with transaction(self.context.engine) as session:
                mark_checkpoints(session, [id_], "damaged")
                line = f"the saved policy after update {saved.step} is passed over: {error}"
                add_event(session, self.context.run_id, "damaged", line, at=self.context.clock())
            return False
        return True

    def _stored(self, round_: Round, index: int) -> list[Rollout]:
        from illume_loop.train.grpo import Rollout

        with transaction(self.context.engine) as session:
            rows = learned_rollouts(session, round_.id, index)
        return [Rollout(row.prompt, row.image_ids, row.log_probs, row.advantage) for row in rows]

    def _fresh(self, round_: Round) -> Policy:
        """Return a policy that has learned nothing, from the version that the chain of rounds began with."""
        from illume_loop.train.grpo import Policy

        settings = self.context.settings
        return Policy(
            self.context.checkpoints.local_path(self._first_version(round_).sha256),
            settings.train,
            settings.grpo,
            decode_of(settings.sampling),
            derived_seed("policy", settings.run.seed) % 2**31,
            self.context.on_progress,
        )

    def _first_version(self, round_: Round) -> ModelVersion:
        """Return the version that the chain of rounds began with, from which all of its policies are trained."""
        first = round_
        while (before := self._update_before(first, 1)) is not None:
            first, _ = before
        with transaction(self.context.engine) as session:
            return version_of(session, first.drawing_version_id)


def publish_policy(context: RunContext, policy: Policy) -> str:
    """Publish a policy's weights for the workers that draw, and return their sha256."""
    folder = context.scratch / f"policy-{uuid4().hex}"
    policy.save_weights(folder)
    published = context.checkpoints.publish(folder)
    shutil.rmtree(folder)
    return published.sha256


def drop_policies(context: RunContext, round_: Round, index: int, newest: str) -> None:
    """Delete the published policies that no update after `index` of a round draws with.

    `newest` is the policy that update `index` has just published. The last policy of the round whose candidate draws
    this round stays, because the round may be run again. Policies of equal weights have one name, so a name that is
    still needed stays too.
    """
    behind = context.settings.grpo.max_staleness
    with transaction(context.engine) as session:
        of_round = policies_of(session, round_.id)
        needed = {newest, *(sha256 for number, sha256 in of_round.items() if number >= index - behind)}
        began_with = round_of_candidate(session, round_.drawing_version_id)
        if began_with is not None:
            needed |= set(list(policies_of(session, began_with.id).values())[-1:])
        dropped = {sha256 for number, sha256 in of_round.items() if number == index - 1 - behind}
        if index == 1:
            for earlier in rounds_before(session, context.run_id, round_.index):
                dropped |= set(list(policies_of(session, earlier.id).values())[-1 - behind :])
    for sha256 in sorted(dropped - needed):
        context.checkpoints.remove(sha256)


def save_policy(context: RunContext, policy: Policy, lease: Lease) -> KeptCheckpoint:
    """Write the policy's state below the folder of the round's training, and return it with its hashes."""
    with transaction(context.engine) as session:
        parent = _folder(context, session, lease.round_id)
        states = policy_states(session, context.run_id)
        dropped = [Path(row.folder) for row in states if row.state == "dropped"]
        used = {row.folder for row in states}
    # Delete what no row needs: states that later ones replaced, and those of attempts that did not end.
    for folder in (*dropped, *(path for path in parent.glob("*") if str(path) not in used)):
        shutil.rmtree(folder, ignore_errors=True)
    folder = parent / uuid4().hex
    policy.save(folder)
    return listed_checkpoint(int(lease.payload["update"]), folder, context.on_progress)


def _folder(context: RunContext, session: Session, round_id: int) -> Path:
    name = f"{run_key(session, context.run_id)}-{round_id}"
    # A store that is no folder cannot hold a state in progress, and the run directory can.
    return context.checkpoints.folder_of_training(name) or context.scratch.parent / "training" / name


def keep_state(session: Session, context: RunContext, lease: Lease, index: int, saved: KeptCheckpoint) -> None:
    """Register the state of an update, and drop the run's other states except the one that the round began with."""
    round_ = round_of(session, lease.round_id)
    began_with = round_of_candidate(session, round_.drawing_version_id)
    kept_of = None if began_with is None else began_with.id
    states = policy_states(session, context.run_id)
    others = [row.id for row in states if row.state == "kept" and row.round_id != kept_of]
    mark_checkpoints(session, others, "dropped")
    add_training_checkpoint(
        session, lease.round_id, step=index, folder=str(saved.folder), files=dict(saved.files), at=context.clock()
    )
