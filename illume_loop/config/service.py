"""`[store]` and `[cluster]`: where rows and files are kept, and how processes on several hosts work together."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlsplit

from pydantic import Field, field_validator

from illume_db.urls import checked
from illume_loop.config.section import Section, checked_url


class StoreSettings(Section):
    """Where rows and files are kept."""

    database_url: str = Field(
        "",
        repr=False,
        description="Database, as postgresql://USER@HOST:5432/DATABASE; empty is SQLite in the run directory.",
    )
    artifacts_url: str = Field(
        "", repr=False, description="fsspec URL of images and checkpoints; empty is the run directory."
    )

    @field_validator("database_url")
    @classmethod
    def _database_url_is_one(cls, url: str) -> str:
        # The password first: what `checked` says of a URL may show its beginning.
        return checked(checked_url(url))


class ClusterSettings(Section):
    """How coordinator and workers find each other and how long they wait; only `executor = "celery"` uses it."""

    redis_url: str = Field(
        "redis://127.0.0.1:6379/0", repr=False, description="Redis that carries messages; rediss:// for TLS."
    )
    lease_s: float = Field(120.0, gt=0.0, le=86_400, description="Seconds that a lease lasts without progress.")
    heartbeat_s: float = Field(5.0, gt=0.0, le=3600, description="Seconds between two heartbeats.")
    stall_after_s: float = Field(
        600.0, gt=0.0, le=86_400, description="Seconds without progress after which a busy worker ends itself."
    )
    drain_deadline_s: float = Field(
        60.0,
        ge=0.0,
        le=86_400,
        description="Seconds that a stopping worker has to finish its unit before it hands it back.",
    )
    visibility_timeout_s: int = Field(
        3600, ge=1, le=604_800, description="Seconds after which Redis delivers an unacknowledged message again."
    )
    poll_s: float = Field(0.5, gt=0.0, le=60.0, description="Longest seconds between two looks of the coordinator.")
    reissue_after_s: float = Field(
        30.0, gt=0.0, le=86_400, description="Seconds after which a unit that nobody took is sent again."
    )
    stage_deadline_s: float = Field(
        3600.0, gt=0.0, le=604_800, description="Seconds without any progress after which the coordinator gives up."
    )
    leader_lease_s: float = Field(
        15.0, gt=0.0, le=3600, description="Seconds after which a standby takes over from a silent coordinator."
    )
    reconnect_s: float = Field(
        60.0, gt=0.0, le=86_400, description="Seconds for which an unreachable Postgres or Redis is tried again."
    )
    units_per_worker: int = Field(2, ge=1, le=1000, description="Units sent out for each live worker, at most.")
    cache_dir: str = Field("", description="Checkpoints pulled to this host; empty is illume-loop in the user's cache.")

    @field_validator("redis_url")
    @classmethod
    def _redis_url_is_one(cls, url: str) -> str:
        if urlsplit(checked_url(url)).scheme not in ("redis", "rediss"):
            raise ValueError("it must begin with redis:// or rediss://")
        if not urlsplit(url).hostname:
            raise ValueError("it names no host; write redis://HOST:6379/0 instead")
        if not re.fullmatch(r"/?|/\d{1,5}", urlsplit(url).path):
            raise ValueError("its path is the number of a database; write redis://HOST:6379/0 instead")
        if any(not name.startswith("ssl_") for name, _ in parse_qsl(urlsplit(url).query, keep_blank_values=True)):
            raise ValueError("its parameters may only be those of TLS (ssl_...)")
        return url
