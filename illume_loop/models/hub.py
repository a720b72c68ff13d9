"""Models that are named by their id on the Hugging Face hub, as folders of this host.

Only safetensors weights and the text files beside them are fetched, so no code and no pickle of a model can run. The
files stay in the hub's own cache. They are found there again, also if the host no longer reaches the hub.
"""

from __future__ import annotations

import re
from pathlib import Path

from illume_loop.errors import HubError, NotFoundError
from illume_loop.files import disk_is_full

FETCHED = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model")
_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)


def is_hub_id(name: str) -> bool:
    """Return whether a name has the form of a hub id: owner/model."""
    return _ID.fullmatch(name) is not None


def is_at_hand(name: str) -> bool:
    """Return whether a model is on this host: in a folder, or in the hub's cache. Fetch nothing."""
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
    """Return whether a model needs no hub: its name is no hub id, or it is a folder here."""
    return not is_hub_id(name) or Path(name).exists()


def model_folder(name: str, kind: str = "model") -> Path:
    """Return the folder of a model, which is named by the folder or by a hub id; fetch a hub id.

    Raises NotFoundError, which names the kind, if the folder holds no model; HubError if the hub cannot be reached.
    """
    path = Path(name)
    if not is_there(path) and is_hub_id(name):
        path = fetch_model(name)
    if not is_there(path / "config.json"):
        raise NotFoundError(kind=kind, name=name)
    return path


def is_there(path: Path) -> bool:
    """Return whether a file or folder has this path; return False for a path that no file can have."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def fetch_model(name: str) -> Path:
    """Fetch the model of a hub id if the cache lacks it or has an older one; return its folder in the cache.

    Raises NotFoundError if the hub has no such model, can have none of this name, or hides it from this user. Raises
    HubError if the hub cannot be asked.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=[*FETCHED]))
    except (RepositoryNotFoundError, HFValidationError):
        raise NotFoundError(kind="folder or model on the hub", name=name) from None
    except Exception as error:  # the hub's HTTP client has a different error for each kind of wrong address
        if disk_is_full(error):
            raise
        raise HubError(name=name, reason=(str(error).splitlines() or [type(error).__name__])[0]) from error
