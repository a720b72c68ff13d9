"""Sources of every kind, a base that tokenises them, and what comes of it; all made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from illume_loop.data.tokenizing import Outcome, TokenizeRequest, tokenize
from illume_loop.models.illume.backend import IllumeBackend
from tests.support.sources import write_sources


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_sources(Path(tmp_path_factory.mktemp("sources")))


@pytest.fixture(scope="session")
def tokenised(
    sources: dict[str, Path], sharp_backend: IllumeBackend, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Outcome]:
    """All sources in one folder, several shards."""
    folder = Path(tmp_path_factory.mktemp("tokenised"))
    request = TokenizeRequest(list(sources.values()), shard_rows=5, max_bad=0.5)
    return folder, tokenize(request, sharp_backend, "tiny", folder)
