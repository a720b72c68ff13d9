"""The settings that say where and how processes run: devices, threads, stores, the cluster, the dashboard."""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Literal, Self
from urllib.parse import parse_qsl, urlsplit

from pydantic import Field, field_validator, model_validator

from illume_db.urls import checked
from illume_loop.settings.section import ADVANCED, Section, checked_url


class RuntimeSettings(Section):
    """The table `[runtime]`: how a process uses its machine.

    Only three of these settings change results: `threads` and `device` change the last bits of sums, and `weights`
    rounds the weights.
    """

    threads: int = Field(0, ge=0, le=4096, description="CPU threads; 0 means OMP_NUM_THREADS, or one per core.")
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:N.")
    weights: Literal["stored", "bfloat16"] = Field(
        "stored",
        description="Precision of the weights for sampling and assessing; bfloat16 halves the memory of a trained "
        "version but rounds most of a small update away.",
    )
    max_attempts: int = Field(
        3, ge=1, le=100, description="Attempts at a unit before it counts as dead.", json_schema_extra=ADVANCED
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Lowest severity that is logged."
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="Log lines as text, or as JSON with run, round and unit.", json_schema_extra=ADVANCED
    )
    metrics_address: str = Field(
        "",
        pattern=r"^([\w.-]+:[1-9]\d{0,4})?$",
        description="host:port for Prometheus metrics; a higher port is used if this one is taken; empty turns metrics "
        "off.",
    )
    traces_url: str = Field(
        "",
        pattern=r"^(https?://[^\s@]+)?$",
        description="OTLP endpoint for OpenTelemetry traces, such as http://host:4318; empty turns traces off.",
        json_schema_extra=ADVANCED,
    )
    host_name: str = Field(
        "",
        pattern=r"^[\w.:-]{0,64}$",
        description="Name of this host in `workers ls`; empty means the system's host name.",
        json_schema_extra=ADVANCED,
    )
    health_file: str = Field(
        "",
        description="File to which a worker or coordinator writes its health, for a container's health check; empty "
        "writes none.",
        json_schema_extra=ADVANCED,
    )


class StoreSettings(Section):
    """The table `[store]`: where the database and the files are."""

    database_url: str = Field(
        "",
        repr=False,
        description="Database, as postgresql://USER@HOST:5432/DATABASE; empty means SQLite in the run directory.",
    )
    artifacts_url: str = Field(
        "", repr=False, description="fsspec URL of images and checkpoints; empty means the run directory."
    )

    @field_validator("database_url")
    @classmethod
    def _database_url_is_one(cls, url: str) -> str:
        # `checked_url` comes first: the error message of `checked` may show the beginning of the URL and so a password.
        return checked(checked_url(url))


class ClusterSettings(Section):
    """The table `[cluster]`: how coordinator and workers communicate; only `executor = "celery"` uses it."""

    redis_url: str = Field(
        "redis://127.0.0.1:6379/0", repr=False, description="Redis server for messages; rediss:// for TLS."
    )
    lease_s: float = Field(
        120.0, gt=0.0, le=86_400, description="Seconds that a lease lasts without progress.", json_schema_extra=ADVANCED
    )
    heartbeat_s: float = Field(
        5.0, gt=0.0, le=3600, description="Seconds between two heartbeats.", json_schema_extra=ADVANCED
    )
    stall_after_s: float = Field(
        600.0,
        gt=0.0,
        le=86_400,
        description="Seconds without progress after which a busy worker exits.",
        json_schema_extra=ADVANCED,
    )
    drain_deadline_s: float = Field(
        60.0,
        ge=0.0,
        le=86_400,
        description="Seconds that a stopping worker has to finish its unit; after that it gives the unit back.",
        json_schema_extra=ADVANCED,
    )
    visibility_timeout_s: int = Field(
        3600,
        ge=1,
        le=604_800,
        description="Seconds after which Redis delivers an unacknowledged message again.",
        json_schema_extra=ADVANCED,
    )
    poll_s: float = Field(
        0.5,
        gt=0.0,
        le=60.0,
        description="Maximum seconds between two ticks of the coordinator.",
        json_schema_extra=ADVANCED,
    )
    reissue_after_s: float = Field(
        30.0,
        gt=0.0,
        le=86_400,
        description="Seconds after which a unit that no worker has taken is sent again.",
        json_schema_extra=ADVANCED,
    )
    stage_deadline_s: float = Field(
        3600.0,
        gt=0.0,
        le=604_800,
        description="Seconds without any progress after which the coordinator gives up.",
        json_schema_extra=ADVANCED,
    )
    leader_lease_s: float = Field(
        15.0,
        gt=0.0,
        le=3600,
        description="Seconds after which a standby takes over from a silent coordinator.",
        json_schema_extra=ADVANCED,
    )
    reconnect_s: float = Field(
        60.0,
        gt=0.0,
        le=86_400,
        description="Seconds to keep retrying when Postgres or Redis is unreachable.",
        json_schema_extra=ADVANCED,
    )
    units_per_worker: int = Field(
        2, ge=1, le=1000, description="Maximum units sent out per live worker.", json_schema_extra=ADVANCED
    )
    cache_dir: str = Field(
        "",
        description="Directory for checkpoints pulled to this host; empty means illume-loop in the user's cache.",
        json_schema_extra=ADVANCED,
    )

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


_LEAST_PASSWORD = 12

_PASSWORDS = ("reader_password", "reviewer_password", "admin_password")


def networks_in(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    """Return the networks in a comma-separated text. Raises ValueError."""
    return tuple(ip_network(one, strict=False) for part in text.split(",") if (one := part.strip()))


class DashboardSettings(Section):
    """The table `[dashboard]`: the password of each role. A role with an empty password cannot log in."""

    reader_password: str = Field(
        "", repr=False, description="Password of readers, who can look; set it by its variable, or ..._FILE, only."
    )
    reviewer_password: str = Field(
        "", repr=False, description="Password of reviewers, who can also review; by its variable or ..._FILE only."
    )
    admin_password: str = Field(
        "",
        repr=False,
        description="Password of admins, who can also continue, stop, promote and roll back; by its variable or "
        "..._FILE only.",
    )

    trusted_proxies: str = Field(
        "127.0.0.0/8, ::1",
        max_length=1000,
        description="Addresses and networks whose X-Forwarded-* and Forwarded headers are trusted; empty trusts none.",
        json_schema_extra=ADVANCED,
    )

    @field_validator("trusted_proxies")
    @classmethod
    def _proxies_are_networks(cls, proxies: str) -> str:
        try:
            networks_in(proxies)
        except ValueError as error:
            raise ValueError(f"{error}; list addresses or networks such as 127.0.0.1, 10.0.0.0/8") from None
        return proxies

    @field_validator(*_PASSWORDS)
    @classmethod
    def _password_is_long(cls, password: str) -> str:
        if password and len(password) < _LEAST_PASSWORD:
            raise ValueError(f"it must have at least {_LEAST_PASSWORD} characters")
        return password

    @model_validator(mode="after")
    def _each_password_is_of_one_role(self) -> Self:
        given = [password for name in _PASSWORDS if (password := getattr(self, name))]
        if len(set(given)) < len(given):
            raise ValueError("two roles of [dashboard] have the same password; give each its own")
        return self
