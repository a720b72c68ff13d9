"""The assessor `teacher`: a vision-language model behind an OpenAI-compatible endpoint, asked questions of yes or no.

Guarantee: no call waits without an end, none is made beyond the budget, and an answer that is neither yes nor no is
never taken for one: it is asked for again, and after the last try it is None. The key goes to the endpoint that was
configured and nowhere else, so redirects are refused, and it is in no error.

What is not worth another try (the endpoint refuses, the budget is spent) ends all questions at once.
"""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException, HTTPMessage
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, OpenerDirector, Request, build_opener

from PIL import Image

from illume_loop.config import TeacherSettings
from illume_loop.errors import NoTeacherError, TeacherBudgetError, TeacherError, TeacherRefusedError

INSTRUCTION = 'Look at the image and answer the question about it with {"answer": "yes"} or {"answer": "no"} only.'
ANSWER_SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "string", "enum": ["yes", "no"]}},
    "required": ["answer"],
    "additionalProperties": False,
}
MAX_TOKENS = 16
LEAST_SIDE = 224
"""Pixels; smaller images are enlarged by a whole number, because few teachers see anything on 48 x 48."""
MOST_BYTES = 1_000_000
"""Of a response; an answer has a few hundred."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
WORTH_ANOTHER_TRY = (408, 409, 425, 429, 500, 502, 503, 504)
ANSWERS = {"yes": True, "no": False}

Answer = bool | None
"""None where the teacher said neither yes nor no, as often as it was asked."""
Spend = Callable[[], bool]
"""Takes one call from the budget; whether there was one left."""


def fixed_budget(max_calls: int) -> Spend:
    """A budget for this process alone."""
    lock, left = threading.Lock(), [max_calls]

    def spend() -> bool:
        with lock:
            left[0] -= 1
            return left[0] >= 0

    return spend


class Teacher:
    """A client of the endpoint; safe for threads."""

    def __init__(self, settings: TeacherSettings, spend: Spend, sleep: Callable[[float], object] = time.sleep) -> None:
        """Raises NoTeacherError where none is configured."""
        if not settings.url or not settings.model:
            raise NoTeacherError
        self._settings, self._spend, self._sleep = settings, spend, sleep
        self._opener: OpenerDirector = build_opener(_NoRedirects)

    def ask(
        self,
        images: Sequence[Image.Image],
        questions: Sequence[Sequence[str]],
        on_images: Callable[[int], None] = lambda _: None,
    ) -> list[list[Answer]]:
        """The answers to each image's questions; `on_images` hears how many images have all of theirs, one by one.

        Raises TeacherError where the endpoint stays silent, TeacherRefusedError, TeacherBudgetError.
        """
        pictures = [_data_url(image) for image in images]
        flat = [(picture, text) for picture, texts in zip(pictures, questions, strict=True) for text in texts]
        with ThreadPoolExecutor(self._settings.parallel) as pool:
            futures = [pool.submit(self._answer, picture, text) for picture, text in flat]
            try:
                waiting, answers = iter(futures), list[list[Answer]]()
                for texts in questions:
                    answers.append([next(waiting).result() for _ in texts])
                    on_images(len(answers))
                return answers
            finally:
                for future in futures:
                    future.cancel()

    def _answer(self, picture: str, question: str) -> Answer:
        reason: str | None = None
        for attempt in range(self._settings.retries + 1):
            if not self._spend():
                raise TeacherBudgetError(max_calls=self._settings.max_calls)
            try:
                answer = _answer_in(self._call(self._body(picture, question, attempt)))
            except _FailedCallError as failed:
                reason = failed.reason
                if attempt < self._settings.retries:
                    self._sleep(min(failed.wait_s or FIRST_PAUSE_S * 2**attempt, LONGEST_PAUSE_S))
                continue
            reason = None
            if answer is not None:
                return answer
        if reason is not None:
            raise TeacherError(url=self._settings.url, reason=reason)
        return None

    def _body(self, picture: str, question: str, attempt: int) -> dict[str, Any]:
        content = [{"type": "image_url", "image_url": {"url": picture}}, {"type": "text", "text": question}]
        schema = {"name": "answer", "strict": True, "schema": ANSWER_SCHEMA}
        return {
            "model": self._settings.model,
            "messages": [{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": content}],
            "max_tokens": MAX_TOKENS,
            # The most probable answer; where that was no answer, another draw may be one.
            "temperature": 0.0 if attempt == 0 else 1.0,
            "response_format": {"type": "json_schema", "json_schema": schema},
        }

    def _call(self, body: dict[str, Any]) -> bytes:
        settings = self._settings
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if settings.key:
            headers["Authorization"] = f"Bearer {settings.key}"
        url = settings.url.rstrip("/") + "/chat/completions"
        request = Request(url, json.dumps(body).encode(), headers, method="POST")
        try:
            with self._opener.open(request, timeout=settings.timeout_s) as response:
                content: bytes = response.read(MOST_BYTES + 1)
        except HTTPError as error:
            with error:
                if error.code not in WORTH_ANOTHER_TRY:
                    raise TeacherRefusedError(url=settings.url, reason=f"HTTP {error.code}{_told(error)}") from None
                raise _FailedCallError(f"HTTP {error.code}", _seconds(error.headers.get("Retry-After"))) from None
        except URLError as error:
            raise _FailedCallError(str(error.reason)) from None
        except (OSError, HTTPException) as error:
            raise _FailedCallError(str(error) or type(error).__name__) from None
        if len(content) > MOST_BYTES:
            raise _FailedCallError(f"its response has more than {MOST_BYTES} bytes")
        return content


class _FailedCallError(Exception):
    """A call that may go better the next time; the endpoint may have said after how many seconds."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        self.reason, self.wait_s = reason, wait_s
        super().__init__(reason)


class _NoRedirects(HTTPRedirectHandler):
    """The default handler would send the key on to wherever it is told to go."""

    def redirect_request(
        self, _req: Request, _fp: IO[bytes], _code: int, _msg: str, _headers: HTTPMessage, _newurl: str
    ) -> None:
        """No request: the redirect itself becomes the error."""


def _answer_in(content: bytes) -> Answer:
    """The answer in a response; None where it holds none."""
    try:
        text = json.loads(content)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError):
        return None
    if not isinstance(text, str):
        return None
    # Endpoints that know no response_format answer with the bare word.
    bare = text.strip().rstrip(".").lower()
    if bare in ANSWERS:
        return ANSWERS[bare]
    try:
        said = json.loads(text)
    except ValueError:
        return None
    answer = said.get("answer") if isinstance(said, dict) and len(said) == 1 else None
    return ANSWERS.get(answer) if isinstance(answer, str) else None


def _told(error: HTTPError) -> str:
    """What the endpoint says of its refusal, in a few words."""
    try:
        told = json.loads(error.read(MOST_BYTES))["error"]
        message = told["message"] if isinstance(told, dict) else told
    except (OSError, HTTPException, ValueError, KeyError, TypeError):
        return ""
    return f": {' '.join(str(message).split())[:200]}"


def _seconds(retry_after: str | None) -> float | None:
    """A Retry-After header in seconds; a date is not read, the usual pause does for it."""
    try:
        return max(0.0, float(retry_after)) if retry_after else None
    except ValueError:
        return None


def _data_url(image: Image.Image) -> str:
    factor = -(-LEAST_SIDE // min(image.size))
    if factor > 1:
        image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
