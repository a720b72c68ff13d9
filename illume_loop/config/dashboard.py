"""`[dashboard]`: who is let in."""

from __future__ import annotations

from typing import Self

from pydantic import Field, field_validator, model_validator

from illume_loop.config.section import Section

_LEAST_PASSWORD = 12


class DashboardSettings(Section):
    """Who may do what on `illume-loop dashboard`; each password is that of a role, and empty is none."""

    reader_password: str = Field(
        "", repr=False, description="Lets people look; only from its variable or a file that it names (..._FILE)."
    )
    reviewer_password: str = Field(
        "", repr=False, description="Lets people look and review; from its variable or file only."
    )
    admin_password: str = Field(
        "", repr=False, description="Lets people promote and roll back too; from its variable or file only."
    )

    @field_validator("reader_password", "reviewer_password", "admin_password")
    @classmethod
    def _password_is_long(cls, password: str) -> str:
        if password and len(password) < _LEAST_PASSWORD:
            raise ValueError(f"it must have {_LEAST_PASSWORD} characters at least")
        return password

    @model_validator(mode="after")
    def _each_password_is_of_one_role(self) -> Self:
        given = [password for password in self.model_dump().values() if password]
        if len(set(given)) < len(given):
            raise ValueError("two roles of [dashboard] have the same password; give each its own")
        return self
