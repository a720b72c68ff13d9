"""How a round's training is kept: checkpoints in the store's folder, each with a row that makes it count.

Invariants:
- A training goes on from the newest checkpoint whose row says so and whose files are what the row says. If each of them
  is damaged, the training is refused until somebody gives them up.
- Each lease has a folder of its own, named by its fencing token, and writes nowhere else.
- Rows change only in a transaction that holds the lease. Files are deleted only after their rows were given up in such
  a transaction, or if they lie in the folder of an older lease. So a worker that lost its unit registers nothing, and
  its successor's checkpoints are safe from it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from illume_db.errors import FencedOutError
from illume_db.leases import Lease, hold_lease
from illume_db.rounds import round_of
from illume_db.runs import add_event, run_key
from illume_db.sessions import transaction
from illume_db.tables import TrainingCheckpoint
from illume_db.trainings import checkpoints_of_training, keep_training_checkpoint, mark_checkpoints
from illume_loop.artifacts.checkpoints import CheckpointStore
from illume_loop.errors import CorruptArtifactError, LostLeaseError, NoIntactCheckpointError
from illume_loop.loop.states import RoundState
from illume_loop.loop.workbench import Workbench
from illume_loop.train.keeping import KEEPING, Keeping, KeptCheckpoint, intact_first, listed_checkpoint

NUM_KEPT = 2
"""The newest one, and the one before it in case that the newest is damaged."""


@contextmanager
def kept_training(bench: Workbench, lease: Lease) -> Iterator[None]:
    """Keep the training that goes on inside; what it kept is given up when it has ended well.

    What a training of a cancelled round kept is deleted. A store that is no folder keeps nothing. Raises
    NoIntactCheckpointError, FencedOutError.
    """
    with transaction(bench.engine) as session:
        folder = bench.checkpoints.folder_of_training(f"{run_key(session, bench.run_id)}-{lease.round_id}")
    if folder is None:
        yield
        return
    kept = _Kept(bench, lease, folder / f"{lease.token}" / uuid4().hex)
    token = KEEPING.set(Keeping(kept.folder, kept.intact(), kept.keep))
    try:
        yield
        kept.drop(0)
    except (LostLeaseError, FencedOutError):
        if kept.is_cancelled():
            _delete_up_to(folder, lease.token)
        raise
    finally:
        KEEPING.reset(token)
    _delete_up_to(folder, lease.token)


def _delete_up_to(folder: Path, token: int) -> None:
    """Delete what the leases up to this one have left of a training; a later one may be at work beside them."""
    for of_lease in folder.iterdir() if folder.is_dir() else ():
        # A folder of the release before is named by no token.
        if not of_lease.name.isdigit() or int(of_lease.name) <= token:
            shutil.rmtree(of_lease, ignore_errors=True)
    with suppress(OSError):
        folder.rmdir()


def forget_training(checkpoints: CheckpointStore, run_key: str, round_id: int) -> None:
    """Delete what a training kept that nobody goes on with; its rows must be marked as dropped before."""
    folder = checkpoints.folder_of_training(f"{run_key}-{round_id}")
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


class _Kept:
    def __init__(self, bench: Workbench, lease: Lease, folder: Path) -> None:
        self.bench, self.lease, self.folder = bench, lease, folder

    def intact(self) -> list[KeptCheckpoint]:
        """The registered checkpoints from the newest whole one on; the damaged ones before it are noted as such."""
        with transaction(self.bench.engine) as session:
            rows = [_checkpoint(row) for row in checkpoints_of_training(session, self.lease.round_id)]
        damaged: list[str] = []
        intact = intact_first(
            rows, lambda checkpoint, error: damaged.append(self._note(checkpoint, error)), self.bench.on_progress
        )
        if rows and not intact:
            with transaction(self.bench.engine) as session:
                index = round_of(session, self.lease.round_id).index
            raise NoIntactCheckpointError(index=index, files="; ".join(damaged))
        return list(intact)

    def is_cancelled(self) -> bool:
        """Whether a person has cancelled the round, so that nobody goes on with this training."""
        with transaction(self.bench.engine) as session:
            return bool(round_of(session, self.lease.round_id).state == RoundState.CANCELLED)

    def keep(self, step: int, folder: Path) -> KeptCheckpoint:
        """Register a checkpoint and delete those that are too many; its own files where the lease is lost."""
        checkpoint = listed_checkpoint(step, folder, self.bench.on_progress)
        try:
            with transaction(self.bench.engine) as session:
                keep_training_checkpoint(
                    session,
                    self.lease,
                    step=step,
                    folder=str(folder),
                    files=dict(checkpoint.files),
                    at=self.bench.clock(),
                )
        except FencedOutError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self.drop(NUM_KEPT)
        return checkpoint

    def drop(self, num_kept: int) -> None:
        """Give up all but the newest; first the rows, so that no row is left without its files.

        Raises FencedOutError.
        """
        with transaction(self.bench.engine) as session:
            hold_lease(session, self.lease)
            rows = checkpoints_of_training(session, self.lease.round_id)[num_kept:]
            folders = [Path(row.folder) for row in rows]
            mark_checkpoints(session, [row.id for row in rows], "dropped")
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)

    def _note(self, checkpoint: KeptCheckpoint, error: CorruptArtifactError) -> str:
        with transaction(self.bench.engine) as session:
            hold_lease(session, self.lease)
            rows = checkpoints_of_training(session, self.lease.round_id)
            ids = [row.id for row in rows if row.folder == str(checkpoint.folder) and row.state == "kept"]
            if ids:
                mark_checkpoints(session, ids, "damaged")
                line = f"checkpoint of step {checkpoint.step} of a training is passed over: {error}"
                add_event(session, self.bench.run_id, "damaged", line, at=self.bench.clock())
        return str(error.fields["path"])


def _checkpoint(row: TrainingCheckpoint) -> KeptCheckpoint:
    return KeptCheckpoint(row.step, Path(row.folder), row.files)
