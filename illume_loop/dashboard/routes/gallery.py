"""The gallery page: a round's samples by filters, its best and worst, and parent beside candidate."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from starlette.responses import HTMLResponse, Response

from illume_db.evaluations import kept_draws
from illume_db.gallery import Filters, categories_of, extremes, gallery_page
from illume_loop.dashboard.dependencies import INT4, INT8, NO_NUL, RunDep, SourceDep, round_shown
from illume_loop.dashboard.render import page

router = APIRouter(prefix="/runs/{run_id}")
MOST_PAIRS = 48


def _empty_is_none(value: Any) -> Any:
    """Return None for a form field that was left empty."""
    return None if value == "" else value


Number = Annotated[float | None, BeforeValidator(_empty_is_none)]


class GalleryQuery(BaseModel):
    """The view and the filters of the page, from its query string."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    round: Annotated[int | None, BeforeValidator(_empty_is_none), Field(ge=1, le=INT4)] = None
    view: Literal["samples", "extremes", "pairs"] = "samples"
    category: str = Field("", max_length=64, pattern=NO_NUL)
    text: str = Field("", max_length=200, pattern=NO_NUL)
    low: Number = None
    high: Number = None
    verdict: Literal["", "right", "wrong"] = ""
    kept: Literal["", "yes", "no"] = ""
    differ: Literal["", "yes"] = ""
    after: Annotated[int, Field(ge=0, le=INT8)] = 0
    searched: Annotated[int, Field(ge=0, le=INT8)] = 0
    """The number of samples that the pages before this one searched, as their link to this page says."""

    @property
    def filters(self) -> Filters:
        """The filters as the database takes them."""
        return Filters(
            category=self.category,
            text=self.text,
            low=self.low,
            high=self.high,
            right={"": None, "right": True, "wrong": False}[self.verdict],
            kept={"": None, "yes": True, "no": False}[self.kept],
            differ=self.differ == "yes",
        )

    def query(self, **changes: object) -> dict[str, object]:
        """Return the query parameters of this page with some changed; empty ones are left out."""
        return {key: value for key, value in (self.model_dump() | changes).items() if value not in (None, "", 0)}


@router.get("/gallery", response_class=HTMLResponse)
def gallery(request: Request, run: RunDep, source: SourceDep, wanted: Annotated[GalleryQuery, Query()]) -> Response:
    """Show a round's samples that match the filters, or its best and worst, or parent and candidate side by side."""
    with source.reading() as session:
        shown = round_shown(session, run.id, wanted.round)
        wanted = wanted.model_copy(update={"round": shown.index})
        values: dict[str, Any] = {"rows": [], "best": [], "worst": [], "pairs": [], "after": None, "categories": []}
        values |= {"searched": 0, "in_round": 0}
        if shown.index is not None and shown.id is not None:
            values["categories"] = categories_of(session, shown.id)
            if wanted.view == "pairs":
                values["pairs"] = kept_draws(session, run.id, shown.index)[:MOST_PAIRS]
            elif wanted.view == "extremes":
                values["best"], values["worst"] = extremes(session, run.id, shown.id, wanted.filters)
            else:
                found = gallery_page(session, run.id, shown.id, wanted.filters, after=wanted.after)
                values["rows"], values["after"] = found.rows, found.after
                values["searched"] = wanted.searched + found.num_searched
                values["in_round"] = found.num_in_round
    return page(request, "gallery.html", run=run, tab="gallery", wanted=wanted, numbers=shown.numbers, **values)
