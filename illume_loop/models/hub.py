"""Models that are named by their id on the Hugging Face hub, as folders of this host.

Only weights as safetensors and the texts beside them are fetched, so there is neither code nor a pickle to be run.
Files stay in the hub's own cache, where they are found again, also by a host that no longer reaches the hub.
"""

from __future__ import annotations

import re
from pathlib import Path

from illume_loop.errors import HubError, NotFoundError

FETCHED = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model")
_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)


def is_hub_id(name: str) -> bool:
    """Whether a name that is no folder here may be one of the hub: owner/model."""
    return _ID.fullmatch(name) is not None


def model_folder(name: str, kind: str = "model") -> Path:
    """The folder of a model that is named by it or by a hub id, which is fetched.

    Raises NotFoundError, naming the kind, where it holds no model, and HubError where the hub cannot be reached.
    """
    path = Path(name)
    if not path.exists() and is_hub_id(name):
        path = fetch_model(name)
    if not (path / "config.json").is_file():
        raise NotFoundError(kind=kind, name=name)
    return path


def fetch_model(name: str) -> Path:
    """The folder of a hub id in the cache, fetched where it is missing or older than the hub's.

    Raises NotFoundError where the hub has no such model (or does not show it to us), HubError where it cannot be asked.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=[*FETCHED]))
    except RepositoryNotFoundError:
        raise NotFoundError(kind="folder or model on the hub", name=name) from None
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise HubError(name=name, reason=str(error).splitlines()[0]) from error
