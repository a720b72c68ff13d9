"""Everything that illume-loop refuses to do, as one small tree.

The docstring of a class is its message: a `str.format` template filled from the keyword fields given when it is
raised, so `str(error)` is always one clear sentence that says what to do next. A single positional argument replaces
the template. Errors survive pickling, because they cross process borders. `exit_code` is what the command line ends
with: 1 failed, 2 usage, 3 unhealthy, 4 conflict. `repeats` says that the same work would end the same way again, so
that nobody tries it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class IllumeLoopError(Exception):
    """illume-loop failed; run the command again with --debug to see why."""

    exit_code: ClassVar[int] = 1
    repeats: ClassVar[bool] = False

    def __init__(self, message: str | None = None, /, **fields: object) -> None:
        self.fields: Mapping[str, object] = dict(fields)
        self._given = message
        super().__init__(message if message is not None else self._template().format_map(_Fields(fields)))

    @classmethod
    def _template(cls) -> str:
        return " ".join((cls.__doc__ or cls.__name__).split())

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self._given, dict(self.fields))


class _Fields(dict[str, object]):
    """A field left out reads as unknown: the error on its way matters more than its wording."""

    def __missing__(self, key: str) -> str:
        return "(unknown)"


def _rebuild(kind: type[IllumeLoopError], message: str | None, fields: dict[str, object]) -> IllumeLoopError:
    return kind(message, **fields)


class EngineDiffersError(IllumeLoopError):
    """The engine and transformers {what} differently, so their speeds say nothing; please report it."""

    repeats = True


# --- usage: the request cannot be meant as it stands -------------------------------------------------------------


class UsageError(IllumeLoopError):
    """The command cannot be carried out as it was given; see `illume-loop --help`."""

    exit_code = 2


class SettingsError(UsageError):
    """The settings are not valid: {reason}; `illume-loop config show` lists every setting with its bounds."""


class SettingsFileError(SettingsError):
    """Cannot read the settings file {path}: {reason}; give --config an existing TOML file or a shipped name."""


class DatabaseAddressError(UsageError):
    """The database {database} cannot be opened as it is addressed ({reason}); correct store.database_url (or
    ILLUME_STORE__DATABASE_URL), then run the same command again."""


class StudyError(UsageError):
    """The study {name} is not valid: {reason}; docs/how-to/run-a-study.md says what a study holds."""


class PromptOutsideGrammarError(UsageError):
    """Cannot read the prompt '{text}': {hint}."""


class UnreadableImageError(UsageError):
    """Cannot read {path} as an image: {reason}; give a PNG or JPEG file."""


class PromptFileError(UsageError):
    """Cannot read prompts from {place}: {reason}; nothing was imported or changed."""


class DataSourceError(UsageError):
    """Cannot read the data in {path}: {reason}; nothing was tokenised."""


class MixError(UsageError):
    """The recipe {name} cannot be followed: {reason}; docs/how-to/pretrain-on-your-data.md says what a recipe holds."""


class DetectorResultsError(UsageError):
    """Cannot use the results of GenEval's detector, {place}: {reason}; run it over the whole folder and give the file
    that it writes."""


class NoCheckerError(UsageError):
    """The domain '{domain}' has no exact checker, which {what} needs; {instead}."""


class NotARunDirectoryError(UsageError):
    """{path} is not a run directory: name one with --run-dir, or begin one there with `illume-loop start`."""


class NotFoundError(UsageError):
    """There is no {kind} '{name}'; {next}."""

    listed_by: ClassVar[Mapping[str, str]] = {
        "model version": "models ls",
        "recipe": "pretrain --help",
        "round": "rounds ls",
        "sample": "samples ls",
        "study": "ablate --help",
        "worker at work": "workers ls",
    }

    def __init__(self, message: str | None = None, /, **fields: object) -> None:
        command = self.listed_by.get(str(fields.get("kind")))
        told = f"run `illume-loop {command}` to see which there are" if command else "check the name"
        super().__init__(message, **{"next": told, **fields})


class NoSuchChoiceError(NotFoundError):
    """There is no {kind} '{name}'; choose one of {choices}."""


class NoTokenisedDataError(NotFoundError):
    """There is no tokenised data in {path}; make it with `illume-loop data tokenize SOURCE --model MODEL -o {path}`."""


class PartError(UsageError):
    """Cannot build a model from {name}: {reason}."""


class CalibrationFileError(UsageError):
    """Cannot read {path} as a calibration: {reason}; make one with `illume-loop judge fit -o FILE`."""


class NoTeacherError(UsageError):
    """There is no teacher to ask; set teacher.url and teacher.model, and ILLUME_TEACHER__KEY where it needs a key."""


class WrongCalibrationError(UsageError):
    """The calibration {path} is of the {what} {found}, and this run's is {expected}; fit one for the run's base with
    `illume-loop judge fit --model BASE -o FILE`."""


class TooFewLabelsError(UsageError):
    """Too few labels to calibrate {what}: {reason}; label more samples, or draw more with `illume-loop judge fit
    --prompts`."""

    repeats = True


class ReadingMissingError(UsageError):
    """The calibration needs the reading '{name}', which the judge does not give; fit one for this judge with
    `illume-loop judge fit`."""


class DatabasePasswordError(UsageError):
    """The run in {path} lies in the database {database}, whose password the directory does not keep; set
    ILLUME_STORE__DATABASE_URL to it with its password, then run the same command again."""


class PreflightError(UsageError):
    """One prompt was tried through every stage, and {stage} cannot work: {reason}. Nothing was drawn or trained; mend
    that and start again, or start without this try by `illume-loop start --no-preflight`."""

    repeats = True


class MissingExtraError(UsageError):
    """{feature} needs packages that are not installed; install them with `pip install 'illume-loop[{extra}]'`."""


# --- unhealthy: what the request needs is broken -----------------------------------------------------------------


class UnhealthyError(IllumeLoopError):
    """Something that illume-loop depends on is not in order."""

    exit_code = 3


class CorruptArtifactError(UnhealthyError):
    """{path} is damaged: expected {expected}, found {found}; restore the file from a copy, nothing else was changed."""


class DatabaseOutdatedError(UnhealthyError):
    """The database is at schema {found} and this version needs {expected}; run `illume-loop db upgrade`."""


class DatabaseDriftError(UnhealthyError):
    """The database says that it is at schema {found} and is not: {drift}; undo what changed it, or restore a copy."""


class DatabaseUnusableError(UnhealthyError):
    """The database {database} cannot be used ({reason}); see that it is there, whole and reachable."""


class StoreUnusableError(UnhealthyError):
    """The artifact store {store} cannot be used ({reason}); see that it is reachable, and that store.artifacts_url (or
    ILLUME_STORE__ARTIFACTS_URL) and its credentials are right, then run the same command again."""


class NoActiveVersionError(UnhealthyError):
    """No model version of this run is active; run `illume-loop doctor --repair`, or choose a version with
    `illume-loop models promote NAME`."""


class InconsistentRunError(UnhealthyError):
    """The database contradicts itself: {what}; see `illume-loop doctor`, and restore a copy of the database where that
    finds nothing to mend."""


class RunUnwellError(UnhealthyError):
    """{count} of {total} checks failed ({names}); do what is said beside each of them."""


class BrokerUnusableError(UnhealthyError):
    """Redis at {url} could not be reached for {seconds} s; see that it runs and that cluster.redis_url is right."""


class StageStalledError(UnhealthyError):
    """Round {index}, {stage}: nothing has gone on for {seconds} s. {who}. See `illume-loop workers ls` and the workers'
    logs, then run the same command again; it continues where it stopped."""


class NoWorkerError(UnhealthyError):
    """{who}; start one with `illume-loop worker`, or see why it ended with `illume-loop workers ls`."""


class NoCoordinatorError(UnhealthyError):
    """No coordinator of workers leads the run in {path}; start one with `illume-loop start --executor celery`."""


class UnfitWorkerError(UnhealthyError):
    """This worker cannot do units of the run {run}: {reason} Give this host what the run needs (the same release, its
    packages and plug-ins), then start the worker again."""


class TeacherError(UnhealthyError):
    """The teacher at {url} did not answer ({reason}); see that it runs, then run the same command again."""


class TeacherRefusedError(TeacherError):
    """The teacher at {url} refused the question ({reason}); see that teacher.url, teacher.model and its key are
    right."""


class TeacherUnclearError(TeacherRefusedError):
    """The teacher at {url} answered none of {num} questions with {wanted}; the last time it said: {said}. See that
    teacher.url is an endpoint for chat completions and that teacher.model reads images."""


class TeacherBudgetError(TeacherError):
    """The budget of {max_calls} calls to the teacher is spent; raise teacher.max_calls, then run the same command
    again."""


class NoIntactCheckpointError(UnhealthyError):
    """The training of round {index} cannot go on: each of its checkpoints is damaged ({files}). Restore one of them
    from a copy, or train from the beginning with `illume-loop start --fresh-training`."""


class StageDamagedError(UnhealthyError):
    """{stage} cannot go on: each of its checkpoints is damaged ({files}). Restore one of them from a copy, or delete
    {folder} to train it from its beginning."""


class RayUnusableError(UnhealthyError):
    """Ray at {address} cannot train: {reason}; see train.ray_address, train.workers and train.worker_resources, then
    run the same command again."""


class HubError(UnhealthyError):
    """There is no folder {name} here, and the hub could not be asked for a model of that name ({reason}); see that this
    host reaches it, or fetch the model elsewhere and name its folder."""


class StorageFullError(UnhealthyError):
    """No space left to write {path}; free some and run the same command again, it continues where it stopped."""


# --- conflict: the request is clear, and contradicts what is there -----------------------------------------------


class ConflictError(IllumeLoopError):
    """The command contradicts what is already there."""

    exit_code = 4


class RunExistsError(ConflictError):
    """{path} already holds a run, and --fresh never deletes one: name another directory with --run-dir, or leave
    out --fresh to continue it."""


class OtherDatabaseError(ConflictError):
    """The run in {path} lies in the database {database}, and {opened} does not know it; set store.database_url (or
    ILLUME_STORE__DATABASE_URL) to the first one, or begin a run in the second one with another --run-dir."""


class RunForgottenError(ConflictError):
    """The database {database} no longer knows the run in {path}: it was emptied, or another one took its place; restore
    a copy of it, or begin a new run with another --run-dir."""


class OtherStoreError(ConflictError):
    """The artifacts of the run in {path} lie in {store}, and {opened} has no checkpoint of its active version; set
    store.artifacts_url (or ILLUME_STORE__ARTIFACTS_URL) to the first one, or copy its content to the second one."""


class FolderInUseError(ConflictError):
    """{path} is there and not empty; name another directory with -o."""


class TokenizerChangedError(ConflictError):
    """{path} holds a tokenizer that was trained otherwise ({names}); name another directory with -o, or ask as before
    to go on with it."""


class OtherEvaluationError(ConflictError):
    """{path} is not the folder of this evaluation ({names}); name another one with -o, or repeat what made that one."""


class ReviewExistsError(ConflictError):
    """Sample {sample} has a review; put this one in its place with --replace."""


class PromotionError(ConflictError):
    """{name} cannot become active: {reason}; `illume-loop models ls` shows the versions and their states."""


class UnderTrialError(PromotionError):
    """{name} cannot be changed by hand: it is under trial in round {index}. Wait for the gate's decision, or end the
    trial with `illume-loop rounds cancel {index}`."""


class RoundOverError(ConflictError):
    """Round {index} is over ({state}); only a round that is under way can be cancelled. See `illume-loop rounds ls`."""


class NotRetriableError(ConflictError):
    """Round {index} cannot be run again: {reason}."""


class RunLockedError(ConflictError):
    """Another process (pid {pid}) is working in {path}; wait for it or stop it, then run this again."""


class NotStartableError(ConflictError):
    """The dashboard cannot continue this run from {path}: use `illume-loop start --run-dir DIR` where the run lies."""


class PortTakenError(ConflictError):
    """Another process listens at {address}; stop it, or name another port with --port."""


class SettingsChangedError(ConflictError):
    """The run in {path} was started with other settings ({names}); leave them as they were to continue it, or start
    another run with --run-dir."""


class StudyChangedError(ConflictError):
    """{path} holds the cell {cell} of this study as it was before ({names}); name another directory with -o, or undo
    the change."""


class ExportChangedError(ConflictError):
    """{path} holds an export that was asked for otherwise ({names}); name another directory with -o, or ask as before
    to go on with it."""


class TokensChangedError(ConflictError):
    """{path} holds data that was tokenised otherwise ({names}); name another folder with -o, or ask as before to go on
    with it."""


class OtherTokenizerError(ConflictError):
    """{path} holds ids of the tokenizer {found}, and that of {model} is {expected}; tokenise the sources with this
    model, into another folder."""


class RepaintingChangedError(ConflictError):
    """{path} holds a detokenizer of another {names}; name another folder with -o, or ask as before to go on with it."""


class RecipeChangedError(ConflictError):
    """{folder} holds {stage} as it was begun otherwise ({names}); ask as before to go on with it, or name another
    folder with -o."""


class LostLeaseError(ConflictError):
    """The lease on unit {unit} went to another worker, so this result is dropped; the other one will deliver it."""


class UnitCancelledError(LostLeaseError):
    """Round {index} was cancelled, so the unit {unit} is dropped."""


class IllegalTransitionError(ConflictError):
    """A {kind} cannot go from {current} to {target}."""


# --- failed: it was tried ----------------------------------------------------------------------------------------


class RoundFailedError(IllumeLoopError):
    """Round {index} failed: {reason} The same command again goes on with the next round; `illume-loop rounds retry
    {index}` has this one run again."""


class UnitDeadError(IllumeLoopError):
    """The unit {unit} failed {attempts} times and was given up: {reason}."""


class TooManyBadRowsError(IllumeLoopError):
    """{bad} of {read} rows cannot be used ({share}, and the bound is {bound}), most of them for '{reason}'; {path}
    lists each one. Mend the source, or go on with a higher --max-bad."""


class CellsFailedError(IllumeLoopError):
    """{failed} of {total} cells failed, and the table says why; first {cell}: {reason}."""


class NoVerdictError(IllumeLoopError):
    """The judge gave no number for an image of '{text}', so nothing can be decided; see that the base model's weights
    are whole, or judge with another one."""

    repeats = True


class HeldOutError(IllumeLoopError):
    """The manifest of round {index} is refused: {count} of its rows are not of the train split, the first of them
    '{text}' ({split}); whoever let them in would spoil the measure, so nothing was trained."""

    repeats = True


class TrainingWorkersError(IllumeLoopError):
    """Ray's workers failed {failures} times at one training: {reason}; their logs lie in {logs}."""


class EntropyRunawayError(IllumeLoopError):
    """The policy's entropy ran away: {entropy} nats per image token at update {update}, more than {ratio} times the
    {first} of the run's first update; start a new run with a lower train.learning_rate or a higher grpo.kl. The
    parent model is untouched."""

    repeats = True


class TrainingDivergedError(IllumeLoopError):
    """The training diverged, its {what} became {value}; lower train.learning_rate. The parent model is untouched."""

    repeats = True
