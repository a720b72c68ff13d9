"""The page of a sample: its assessments, its reviews and its lineage."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, Response

from illume_db.review_queue import reviews_of_sample
from illume_db.samples import lineage, sample_detail
from illume_loop.dashboard.dependencies import RunDep, SampleId, SourceDep
from illume_loop.dashboard.render import page
from illume_loop.errors import NotFoundError

router = APIRouter(prefix="/runs/{run_id}")


@router.get("/samples/{sample_id}", response_class=HTMLResponse)
def sample(request: Request, run: RunDep, source: SourceDep, sample_id: SampleId) -> Response:
    """Show a sample."""
    with source.reading() as session:
        detail = sample_detail(session, run.id, sample_id)
        if detail is None:
            raise NotFoundError(kind="sample", name=sample_id)
        values: dict[str, Any] = {
            "lineage": lineage(session, run.id, sample_id),
            "reviews": reviews_of_sample(session, sample_id),
        }
    return page(request, "sample.html", run=run, tab="gallery", sample=detail, **values)
