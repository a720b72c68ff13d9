"""Models that are named by their id on the Hugging Face hub, as folders of this host.

Only weights as safetensors and the texts beside them are fetched, so there is neither code nor a pickle to be run.
Files stay in the hub's own cache, where they are found again, also by a host that no longer reaches the hub.
"""

from __future__ import annotations

import re
from pathlib import Path

from illume_loop.errors import HubError, NotFoundError
from illume_loop.files import disk_is_full

FETCHED = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model")
_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)


def is_hub_id(name: str) -> bool:
    """Whether a name that is no folder here may be one of the hub: owner/model."""
    return _ID.fullmatch(name) is not None


def is_at_hand(name: str) -> bool:
    """Return whether a model is on this host: a folder, or in the hub's cache. Nothing is fetched."""
    if is_fetched(name):
        return True
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        snapshot_download(name, allow_patterns=[*FETCHED], local_files_only=True)
    except LocalEntryNotFoundError:
        return False
    return True


def is_fetched(name: str) -> bool:
    """Whether a model can be had without the hub: its name is no hub id, or a folder here."""
    return not is_hub_id(name) or Path(name).exists()


def model_folder(name: str, kind: str = "model") -> Path:
    """The folder of a model that is named by it or by a hub id, which is fetched.

    Raises NotFoundError, naming the kind, where it holds no model, and HubError where the hub cannot be reached.
    """
    path = Path(name)
    if not is_there(path) and is_hub_id(name):
        path = fetch_model(name)
    if not is_there(path / "config.json"):
        raise NotFoundError(kind=kind, name=name)
    return path


def is_there(path: Path) -> bool:
    """Whether there is a file or folder of this name; none is where no file could have it."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def fetch_model(name: str) -> Path:
    """The folder of a hub id in the cache, fetched where it is missing or older than the hub's.

    Raises NotFoundError where the hub has no such model, can have none, or does not show it to us, and HubError where
    it cannot be asked.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=[*FETCHED]))
    except (RepositoryNotFoundError, HFValidationError):
        raise NotFoundError(kind="folder or model on the hub", name=name) from None
    except Exception as error:  # its HTTP client has an error for each way in which an address can be wrong
        if disk_is_full(error):
            raise
        raise HubError(name=name, reason=(str(error).splitlines() or [type(error).__name__])[0]) from error
