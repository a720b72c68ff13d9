"""Train a candidate on a round's manifest, and keep checkpoints of the training so that it continues after a crash.

The checkpoints lie in the store's folder. A checkpoint counts only if the database has a row of it.

Invariants:

- A training continues from the newest checkpoint that is registered as kept and whose files match its row. If all of
  them are damaged, the training is refused until a person gives them up.
- Each lease has a folder of its own, named by its fencing token, and writes nowhere else.
- Rows change only in a transaction that holds the lease. Files are deleted only after their rows were given up in such
  a transaction, or if they lie in the folder of an older lease. So a worker that lost its unit registers nothing and
  cannot delete its successor's checkpoints.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from illume_db.curation import ExampleRow, examples_of
from illume_db.errors import FencedOutError
from illume_db.leases import Lease, lock_leased_unit
from illume_db.manifests import checkpoints_of_training, keep_training_checkpoint, manifest_of, mark_checkpoints
from illume_db.rounds import round_of
from illume_db.runs import add_event, run_key
from illume_db.sessions import transaction
from illume_db.tables import TrainingCheckpoint
from illume_db.versions import base_version, version_of
from illume_loop.artifacts.checkpoints import CheckpointStore
from illume_loop.errors import (
    CorruptArtifactError,
    InconsistentRunError,
    LostLeaseError,
    NoIntactCheckpointError,
)
from illume_loop.judge.instructions import correction, critique
from illume_loop.loop.candidates import publish_candidate
from illume_loop.loop.canonical import check_splits, manifest_sha256
from illume_loop.loop.context import RunContext
from illume_loop.loop.states import RoundState
from illume_loop.loop.unit_inputs import Effect, OnItems, derived_seed, real_seed
from illume_loop.protocols import CorrectRow, DrawRow, EditRow, ImageIds, PairRow, ReadRow, RealPair, TrainingRow
from illume_loop.train.keeping import (
    CHECKPOINT_PLAN,
    CheckpointPlan,
    KeptCheckpoint,
    from_first_intact,
    listed_checkpoint,
)
from illume_loop.train.trackers import tracked

ENCODE_BATCH = 256

Encode = Callable[[Sequence[Image.Image]], ImageIds]


def training_rows(
    rows: Sequence[ExampleRow],
    pairs: Sequence[RealPair],
    encode: Encode,
    read_image: Callable[[str], Image.Image],
) -> list[TrainingRow]:
    """Return the rows with their images and ids, in order. `encode` returns the ids of the real images to draw."""
    to_encode = [row.real_index for row in rows if row.kind == "draw" and row.real_index is not None]
    real_ids = _encode_all([pairs[index].image for index in to_encode], encode)
    ids_of_pair = dict(zip(to_encode, real_ids, strict=True))
    return [_training_row(row, pairs, ids_of_pair, read_image) for row in rows]


def _training_row(
    row: ExampleRow,
    pairs: Sequence[RealPair],
    ids_of_pair: dict[int, NDArray[np.int32]],
    read_image: Callable[[str], Image.Image],
) -> TrainingRow:
    if row.sample is not None:
        if row.answer is not None:
            instruction = critique(row.sample.prompt.claim)
            if row.rejected is None:
                return ReadRow(read_image(row.sample.image_sha256), row.answer, instruction)
            worse = read_image(row.rejected.image_sha256)
            request = correction(row.sample.prompt.claim)
            return CorrectRow(worse, instruction, row.answer, request, row.sample.image_ids)
        if row.rejected is not None:
            return PairRow(row.text, row.sample.image_ids, row.rejected.image_ids)
        if row.kind == "draw":
            return DrawRow(row.text, row.sample.image_ids)
        if row.kind == "edit":
            if row.sample.prompt.source_sha256 is None:
                raise InconsistentRunError(what=f"sample {row.sample.sample_id} is an edit and has no source image")
            source = read_image(row.sample.prompt.source_sha256)
            return EditRow(source, row.sample.prompt.instruction or "", row.sample.image_ids)
        return ReadRow(read_image(row.sample.image_sha256), row.sample.prompt.claim)
    if row.real_index is None:
        raise InconsistentRunError(what=f"a row of a manifest, '{row.text}', is of no sample and of no real pair")
    if row.kind == "draw":
        return DrawRow(row.text, ids_of_pair[row.real_index])
    return ReadRow(pairs[row.real_index].image, row.text)


def _encode_all(images: Sequence[Image.Image], encode: Encode) -> list[NDArray[np.int32]]:
    batches = (images[start : start + ENCODE_BATCH] for start in range(0, len(images), ENCODE_BATCH))
    return [ids_L for batch in batches for ids_L in encode(batch)]


NUM_KEPT = 2
"""The number of checkpoints kept: the newest one, and the one before it in case the newest is damaged."""


@contextmanager
def checkpointed_training(context: RunContext, lease: Lease) -> Iterator[None]:
    """Keep checkpoints of the training inside the block, and give them up when it has ended well.

    They are also deleted if the round was cancelled. A store that is not a folder keeps no checkpoints. Raises
    NoIntactCheckpointError, FencedOutError.
    """
    with transaction(context.engine) as session:
        folder = context.checkpoints.folder_of_training(f"{run_key(session, context.run_id)}-{lease.round_id}")
    if folder is None:
        yield
        return
    kept = _TrainingCheckpoints(context, lease, folder / f"{lease.token}" / uuid4().hex)
    token = CHECKPOINT_PLAN.set(CheckpointPlan(kept.folder, kept.intact(), kept.keep))
    try:
        yield
        kept.drop(0)
    except (LostLeaseError, FencedOutError):
        if kept.is_cancelled():
            _delete_up_to(folder, lease.token)
        raise
    finally:
        CHECKPOINT_PLAN.reset(token)
    _delete_up_to(folder, lease.token)


def _delete_up_to(folder: Path, token: int) -> None:
    """Delete the folders of the leases up to this token. A later lease may still be at work in its own folder."""
    for of_lease in folder.iterdir() if folder.is_dir() else ():
        # The release before did not name its folders by tokens.
        if not of_lease.name.isdigit() or int(of_lease.name) <= token:
            shutil.rmtree(of_lease, ignore_errors=True)
    with suppress(OSError):
        folder.rmdir()


def forget_training(checkpoints: CheckpointStore, run_key: str, round_id: int) -> None:
    """Delete the checkpoints of a training that nobody continues. Their rows must be marked as dropped before."""
    folder = checkpoints.folder_of_training(f"{run_key}-{round_id}")
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


class _TrainingCheckpoints:
    def __init__(self, context: RunContext, lease: Lease, folder: Path) -> None:
        self.context, self.lease, self.folder = context, lease, folder

    def intact(self) -> list[KeptCheckpoint]:
        """Return the registered checkpoints from the newest intact one on, and mark those before it as damaged."""
        with transaction(self.context.engine) as session:
            rows = [_checkpoint(row) for row in checkpoints_of_training(session, self.lease.round_id)]
        damaged: list[str] = []
        intact = from_first_intact(
            rows, lambda checkpoint, error: damaged.append(self._note(checkpoint, error)), self.context.on_progress
        )
        if rows and not intact:
            with transaction(self.context.engine) as session:
                index = round_of(session, self.lease.round_id).index
            raise NoIntactCheckpointError(index=index, files="; ".join(damaged))
        return list(intact)

    def is_cancelled(self) -> bool:
        """Return whether a person has cancelled the round, so that nobody continues this training."""
        with transaction(self.context.engine) as session:
            return bool(round_of(session, self.lease.round_id).state == RoundState.CANCELLED)

    def keep(self, step: int, folder: Path) -> KeptCheckpoint:
        """Register a checkpoint, and delete all but the newest ones.

        If the lease is lost, it deletes the files of the new checkpoint and raises FencedOutError.
        """
        checkpoint = listed_checkpoint(step, folder, self.context.on_progress)
        try:
            with transaction(self.context.engine) as session:
                keep_training_checkpoint(
                    session,
                    self.lease,
                    step=step,
                    folder=str(folder),
                    files=dict(checkpoint.files),
                    at=self.context.clock(),
                )
        except FencedOutError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self.drop(NUM_KEPT)
        return checkpoint

    def drop(self, num_kept: int) -> None:
        """Give up all but the newest `num_kept` checkpoints.

        The rows change before the files are deleted, so that no kept row lacks its files. Raises FencedOutError.
        """
        with transaction(self.context.engine) as session:
            lock_leased_unit(session, self.lease)
            rows = checkpoints_of_training(session, self.lease.round_id)[num_kept:]
            folders = [Path(row.folder) for row in rows]
            mark_checkpoints(session, [row.id for row in rows], "dropped")
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)

    def _note(self, checkpoint: KeptCheckpoint, error: CorruptArtifactError) -> str:
        with transaction(self.context.engine) as session:
            lock_leased_unit(session, self.lease)
            rows = checkpoints_of_training(session, self.lease.round_id)
            ids = [row.id for row in rows if row.folder == str(checkpoint.folder) and row.state == "kept"]
            if ids:
                mark_checkpoints(session, ids, "damaged")
                line = f"checkpoint of step {checkpoint.step} of a training is passed over: {error}"
                add_event(session, self.context.run_id, "damaged", line, at=self.context.clock())
        return str(error.fields["path"])


def _checkpoint(row: TrainingCheckpoint) -> KeptCheckpoint:
    return KeptCheckpoint(row.step, Path(row.folder), row.files)


def train(context: RunContext, lease: Lease, on_items: OnItems) -> Effect:
    """Train a candidate on the round's manifest and publish its checkpoint.

    The hash and the splits of the manifest are verified first.
    """
    settings = context.settings
    with transaction(context.engine) as session:
        round_ = round_of(session, lease.round_id)
        parent = version_of(session, round_.parent_version_id)
        base = base_version(session, context.run_id)
        manifest = manifest_of(session, round_.id)
        examples = examples_of(session, manifest.id)
    found = manifest_sha256(examples)
    if found != manifest.sha256:
        raise CorruptArtifactError(path=f"manifest of round {round_.index}", expected=manifest.sha256, found=found)
    check_splits(examples, context.domain.split_of, round_.index)
    start = parent if settings.train.from_ == "parent" else base
    pairs = context.domain.real_pairs(settings.curate.real_rows, real_seed(settings.run.seed, round_.index))
    rows = training_rows(
        examples, pairs, lambda images: context.models.take(start.sha256).encode(images), context.images.read
    )

    def write(out: Path) -> None:
        seed = derived_seed("train", settings.run.seed, round_.index) % 2**31
        with (
            checkpointed_training(context, lease),
            tracked(settings.train.report_to, context.trackers, f"round-{round_.index}"),
        ):
            context.toolbox.train(
                context.checkpoints.local_path(start.sha256), rows, out, settings.fitting, seed, on_items
            )

    return publish_candidate(context, round_, f"trained from {start.name}", write)
