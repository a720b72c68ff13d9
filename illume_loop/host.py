"""The names of this host and of this process, as lists and logs show them."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

_MOUNTS = Path("/proc/self/mountinfo")
_CONTAINER = re.compile(r"/([0-9a-f]{12})[0-9a-f]{52}/\S* /etc/(?:hostname|hosts|resolv\.conf) ")


def host_name(setting: str = "") -> str:
    """Return the name that `runtime.host_name` sets, or the one that the system has."""
    return setting or socket.gethostname()


def process_name(host: str, mounts: Path = _MOUNTS) -> str:
    """Return a name that no other live process has: host, container (if there is one) and process id.

    In a container the process id alone is not unique, because each container counts from 1.
    """
    container = container_id(mounts)
    within = f"{container}.{os.getpid()}" if container and not host.startswith(container) else str(os.getpid())
    return f"{host}:{within}"


def container_id(mounts: Path = _MOUNTS) -> str:
    """Return the short id of the container that this process is in, as `docker ps` shows it; empty if there is none.

    Docker and Podman mount /etc/hostname and its neighbours from a folder that is named by the container's id.
    """
    try:
        text = mounts.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    found = _CONTAINER.search(text)
    return found[1] if found else ""
