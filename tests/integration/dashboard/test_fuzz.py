"""Nonsense in every parameter that the OpenAPI document names: no answer is an error of the server."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, given, settings

from tests.support.dashboard import RUN, dashboard_over

EXAMPLES = 8
"""For each operation; a few hundred requests in all."""


@pytest.fixture(scope="module")
def app(seen_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    copy = Path(shutil.copytree(seen_run, tmp_path_factory.mktemp("fuzz") / "run"))
    with dashboard_over(copy) as found:
        yield found


def test_no_operation_fails_on_nonsense(app: FastAPI) -> None:
    client = TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False, follow_redirects=False)
    csrf = re.search(r'name="csrf" value="([^"]+)"', client.get(f"{RUN}/review").text)
    assert csrf
    schema = schemathesis.openapi.from_dict(app.openapi())
    tried: set[str] = set()
    for found in schema.get_all_operations():
        operation = found.ok()

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def ask(case: schemathesis.Case) -> None:
            values = {name: value if name != "run_id" else 1 for name, value in (case.path_parameters or {}).items()}
            path = case.operation.path
            for name, value in values.items():
                path = path.replace(f"{{{name}}}", str(value))
            body = case.body if isinstance(case.body, dict) else {}
            if path.endswith("/live"):
                path += "?once=true"
            answer = client.request(
                case.method,
                path,
                params=None if "once" in path else case.query,
                data={**body, "csrf": csrf[1]} if case.method == "POST" else None,
            )
            assert answer.status_code < 500, (case.method, path, case.query, body, answer.text[-300:])
            tried.add(case.operation.label)

        ask()
    assert len(tried) >= 18
