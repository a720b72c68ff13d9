"""`[dashboard]`: who is let in, and which proxies are believed."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Self

from pydantic import Field, field_validator, model_validator

from illume_loop.config.section import Section

_LEAST_PASSWORD = 12
_PASSWORDS = ("reader_password", "reviewer_password", "admin_password")


def networks_in(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    """Return the networks that a text lists, divided by commas. Raises ValueError."""
    return tuple(ip_network(one, strict=False) for part in text.split(",") if (one := part.strip()))


class DashboardSettings(Section):
    """Who may do what on `illume-loop dashboard`: each password opens a role, and an empty one opens none."""

    reader_password: str = Field(
        "", repr=False, description="Lets people look; only from its variable or a file that it names (..._FILE)."
    )
    reviewer_password: str = Field(
        "", repr=False, description="Lets people look and review; from its variable or file only."
    )
    admin_password: str = Field(
        "", repr=False, description="Lets people promote and roll back too; from its variable or file only."
    )

    trusted_proxies: str = Field(
        "127.0.0.0/8, ::1",
        max_length=1000,
        description="Addresses and networks whose X-Forwarded-* and Forwarded headers count; empty is none.",
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
            raise ValueError(f"it must have {_LEAST_PASSWORD} characters at least")
        return password

    @model_validator(mode="after")
    def _each_password_is_of_one_role(self) -> Self:
        given = [password for name in _PASSWORDS if (password := getattr(self, name))]
        if len(set(given)) < len(given):
            raise ValueError("two roles of [dashboard] have the same password; give each its own")
        return self
