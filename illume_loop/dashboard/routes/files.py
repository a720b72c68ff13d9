"""The pages that serve images and thumbnails by their hash."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.responses import Response

from illume_loop.dashboard.dependencies import Sha256, SourceDep
from illume_loop.errors import CorruptArtifactError

router = APIRouter()
FOR_GOOD = {"Cache-Control": "private, max-age=31536000, immutable"}
"""The header for files that never change: a hash always names the same image."""


@router.get("/images/{sha256}", response_class=Response)
def image(source: SourceDep, sha256: Sha256) -> Response:
    """Return an image at its full size."""
    try:
        return Response(source.images.read_bytes(sha256), media_type="image/png", headers=FOR_GOOD)
    except CorruptArtifactError:
        raise HTTPException(404, "This image is not kept, or its file is damaged") from None


@router.get("/thumbs/{sha256}", response_class=Response)
def thumbnail(source: SourceDep, sha256: Sha256) -> Response:
    """Return the thumbnail of an image."""
    try:
        return Response(source.thumbnails.get(sha256), media_type="image/png", headers=FOR_GOOD)
    except CorruptArtifactError:
        raise HTTPException(404, "This image is not kept, or its file is damaged") from None
