"""The assessor `teacher`: a vision-language model behind an OpenAI-compatible endpoint.

It answers yes/no questions about images, or writes assessments of them.

The client learns from the endpoint's refusals what it takes (dialect.py); a call repeated for that is no retry.

Invariants:
- Every call ends in a limited time, and no call is made beyond the budget.
- A reply that is not in the form that was asked for (neither yes nor no, or other JSON) is never taken for an answer.
  The question is asked again, and after the last try the answer is None.
- The key goes to the configured endpoint and nowhere else (redirects are refused), and it is in no message.
- An error that no other try can help (the endpoint refuses, the budget is spent) ends all questions at once.
"""

from __future__ import annotations

import base64
import io
import json
import logging
import random
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import Message
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPMessage, HTTPResponse
from typing import IO, Any, Generic, TypeVar
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, OpenerDirector, Request, build_opener

from PIL import Image

from illume_loop.errors import (
    NoTeacherError,
    TeacherBudgetError,
    TeacherError,
    TeacherRefusedError,
    TeacherUnclearError,
)
from illume_loop.judge.dialect import Ask, Dialect, LearnedDialect, learned_of, yes_or_no
from illume_loop.judge.replies import Answer, Refusal, Reply, read_reply, refusal_of, shortened
from illume_loop.redaction import learn_secret, redact
from illume_loop.settings import TeacherSettings

LEAST_SIDE = 224
"""Pixels. Smaller images are enlarged by a whole number, because few teachers see anything on 48 x 48 pixels."""

MOST_BYTES = 1_000_000
"""The most bytes of a response; an answer has a few hundred."""

CALL_TIMEOUTS = 10
"""The most timeouts that one call may take in all, for an endpoint that keeps sending something."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0

LOADING_PAUSE_S, LOADING_S = 5.0, 180.0
"""The pause between two calls to an endpoint that loads its model, and the most time that it may take. These calls are
no retries."""

UNCLEAR_QUESTIONS = 8
"""The fewest questions in one batch that, if none is answered, mean that the endpoint is not understood at all."""

WORTH_ANOTHER_TRY = frozenset({408, 409, 425, 429, *range(500, 600)} - {501, 505})

UNNAMED = (400, 422)
"""The statuses after which a question is asked once more with the fewest parameters, whatever the refusal says."""

T = TypeVar("T")

Spend = Callable[[], bool]
"""A function that takes one call from the budget; it returns False if none was left."""

log = logging.getLogger(__name__)


def fixed_budget(max_calls: int) -> Spend:
    """Return a budget for this process alone."""
    lock, left = threading.Lock(), [max_calls]

    def spend() -> bool:
        with lock:
            left[0] -= 1
            return left[0] >= 0

    return spend


@dataclass(frozen=True, slots=True)
class ParsedAnswer(Generic[T]):
    """A teacher's answer: its value, None if no try gave one, and the number of replies in another form."""

    value: T | None
    num_invalid: int = 0


class Teacher:
    """A client of the endpoint; safe for threads."""

    def __init__(
        self,
        settings: TeacherSettings,
        spend: Spend,
        sleep: Callable[[float], object] = time.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Set up the client. Raises NoTeacherError if the settings name no endpoint or no model.

        `jitter` returns numbers from 0 to 1 that vary the pauses.
        """
        if not settings.url or not settings.model:
            raise NoTeacherError
        if settings.key:
            learn_secret(settings.key)
        self._settings, self._spend, self._sleep, self._jitter = settings, spend, sleep, jitter
        self._opener: OpenerDirector = build_opener(_NoRedirects)
        self._unclear = ""

    def ask(
        self,
        images: Sequence[Image.Image],
        questions: Sequence[Sequence[str]],
        on_images: Callable[[int], None] = lambda _: None,
        on_answer: Callable[[int, str, Answer], None] = lambda *_: None,
    ) -> list[list[Answer]]:
        """Return the answers to each image's questions.

        `on_images` is called, in the order of the images, with the number of those whose questions are all answered.
        `on_answer` is called with an image's index, a question and its answer as soon as the answer is there, on one of
        several threads. So a paid answer can be kept even if other questions fail.

        Raises TeacherError if the endpoint stays silent, TeacherRefusedError if it refuses, TeacherBudgetError if the
        budget is spent, and TeacherUnclearError if it answered none of many questions.
        """
        asked = [[yes_or_no(text) for text in texts] for texts in questions]
        told = self.told(images, asked, on_images, lambda place, ask, said: on_answer(place, ask.text, said.value))
        return [[one.value for one in of_image] for of_image in told]

    def told(
        self,
        images: Sequence[Image.Image],
        asked: Sequence[Sequence[Ask[T]]],
        on_images: Callable[[int], None] = lambda _: None,
        on_told: Callable[[int, Ask[T], ParsedAnswer[T]], None] = lambda *_: None,
    ) -> list[list[ParsedAnswer[T]]]:
        """Return what the teacher tells of each image when it is `asked`; see `ask` for the rest."""
        pictures = [_data_url(image) if asks else "" for image, asks in zip(images, asked, strict=True)]

        def answer(place: int, ask: Ask[T]) -> ParsedAnswer[T]:
            said = self._answer(pictures[place], ask)
            on_told(place, ask, said)
            return said

        flat = [(place, ask) for place, asks in enumerate(asked) for ask in asks]
        with ThreadPoolExecutor(self._settings.parallel) as pool:
            futures = [pool.submit(answer, place, ask) for place, ask in flat]
            try:
                waiting, told = iter(futures), list[list[ParsedAnswer[T]]]()
                for asks in asked:
                    told.append([next(waiting).result() for _ in asks])
                    on_images(len(told))
                self._check_understood([one for of_image in told for one in of_image], flat[0][1] if flat else None)
                return told
            finally:
                for future in futures:
                    future.cancel()

    def _check_understood(self, told: Sequence[ParsedAnswer[T]], ask: Ask[T] | None) -> None:
        if ask is not None and len(told) >= UNCLEAR_QUESTIONS and all(one.value is None for one in told):
            raise TeacherUnclearError(url=self._settings.url, num=len(told), wanted=ask.wanted, said=self._unclear)

    def _answer(self, picture: str, ask: Ask[T]) -> ParsedAnswer[T]:
        learned = learned_of(self._settings.url, self._settings.model, ask)
        attempt, waited, reason, num_invalid = 0, 0.0, "", 0
        while attempt <= self._settings.retries:
            if not self._spend():
                raise TeacherBudgetError(max_calls=self._settings.max_calls)
            asked = learned.now
            # The first try takes the most probable reply. If its form is wrong, that of another draw may be right.
            body = asked.body(self._settings.model, picture, ask, 1.0 if num_invalid else 0.0)
            try:
                reply = self._call(learned.addresses[asked.address], asked, ask, body)
            except _FailedCallError as failed:
                reason = failed.reason
                if failed.is_loading and waited < LOADING_S:
                    waited += self._pause(failed.wait_s or LOADING_PAUSE_S, told=True)
                    continue
                if attempt < self._settings.retries:
                    self._pause(failed.wait_s or FIRST_PAUSE_S * 2**attempt, told=failed.wait_s is not None)
                attempt += 1
                continue
            if isinstance(reply, Refusal) and not reply.is_filtered:
                self._learn(learned, asked, reply)
                continue
            answer = ask.read(reply.text) if isinstance(reply, Reply) else None
            if answer is not None:
                return ParsedAnswer(answer, num_invalid)
            if reply is None and learned.move_on(asked):
                continue
            if isinstance(reply, Reply) and reply.cut_off and learned.lengthen(asked):
                continue
            reason, num_invalid = "", num_invalid + 1
            attempt += 1
        if reason:
            raise TeacherError(url=self._settings.url, reason=reason)
        return ParsedAnswer(None, num_invalid)

    def _learn(self, learned: LearnedDialect, asked: Dialect, refusal: Refusal) -> None:
        """Change how the endpoint is asked. Raises TeacherRefusedError if nothing is left to change."""
        if refusal.status in (404, 405) and learned.move_on(asked):
            return
        if learned.learn(asked, refusal):
            log.info("the teacher at %s refused a parameter, which it gets no more: %s", self._settings.url, refusal)
            return
        if refusal.status in UNNAMED and learned.strip(asked, refusal):
            return
        told = learned.give_up(asked) or refusal
        raise TeacherRefusedError(url=self._settings.url, reason=redact(str(told)))

    def _pause(self, seconds: float, *, told: bool) -> float:
        """Wait about `seconds`, varied so that many callers do not come back at once; return the pause.

        If the endpoint told the time, the pause is no shorter, up to LONGEST_PAUSE_S.
        """
        spread = 1.0 + 0.25 * self._jitter() if told else 0.75 + 0.5 * self._jitter()
        pause = min(seconds * spread, LONGEST_PAUSE_S)
        self._sleep(pause)
        return pause

    def _call(self, url: str, asked: Dialect, ask: Ask[Any], body: dict[str, Any]) -> Reply | Refusal | None:
        """Send the request of an `ask`; return the reply or the refusal, None if the response is neither.

        Raises _FailedCallError if another try may succeed.
        """
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._settings.key:
            bearer = asked.key_header == "Authorization"
            headers[asked.key_header] = f"Bearer {self._settings.key}" if bearer else self._settings.key
        request = Request(url, json.dumps(body).encode(), headers, method="POST")
        try:
            with self._opener.open(request, timeout=self._settings.timeout_s) as response:
                content = self._read(response)
        except HTTPError as error:
            with error:
                return self._refused(asked, refusal_of(error.code, _rest(error), _seconds(error.headers)))
        except URLError as error:
            raise _FailedCallError(str(error.reason)) from None
        except (OSError, HTTPException, zlib.error) as error:
            raise _FailedCallError(str(error) or type(error).__name__) from None
        reply = read_reply(content)
        if isinstance(reply, Refusal):
            return self._refused(asked, reply)
        self._note(ask, reply, content)
        return reply

    def _refused(self, asked: Dialect, refusal: Refusal) -> Refusal:
        """Return a refusal from which the client may learn. Raises _FailedCallError for one that may be temporary."""
        names_something = refusal.status in (500, 501) and asked.after(refusal) is not None
        if refusal.status in WORTH_ANOTHER_TRY and not names_something:
            raise _FailedCallError(redact(str(refusal)), refusal.wait_s, is_loading=refusal.is_loading)
        if refusal.is_filtered:
            self._unclear = redact(str(refusal))
        return refusal

    def _read(self, response: HTTPResponse) -> bytes:
        """Return the body, unpacked. Raises _FailedCallError if it is too long or comes too slowly."""
        ends_at = time.monotonic() + CALL_TIMEOUTS * self._settings.timeout_s
        content = b""
        while piece := response.read1(MOST_BYTES + 1 - len(content)):
            content += piece
            if len(content) > MOST_BYTES:
                raise _FailedCallError(f"its response has more than {MOST_BYTES} bytes")
            if time.monotonic() > ends_at:
                raise _FailedCallError("its response did not end in time")
        if response.headers.get("Content-Encoding", "").lower() in ("gzip", "deflate"):
            return zlib.decompressobj(47).decompress(content, MOST_BYTES)
        return content

    def _note(self, ask: Ask[Any], reply: Reply | None, content: bytes) -> None:
        """Remember a reply that holds no answer, and log the first one."""
        text = content.decode(errors="replace") if reply is None or reply.text is None else reply.text
        if reply is not None and ask.read(reply.text) is not None:
            return
        first, self._unclear = not self._unclear, redact(shortened(text)) or "(nothing)"
        if first:
            log.warning("the teacher at %s did not answer with %s: %s", self._settings.url, ask.wanted, self._unclear)


class _FailedCallError(Exception):
    """A failed call that may succeed the next time; `wait_s` is the wait in seconds that the endpoint asks for."""

    def __init__(self, reason: str, wait_s: float | None = None, *, is_loading: bool = False) -> None:
        self.reason, self.wait_s, self.is_loading = reason, wait_s, is_loading
        super().__init__(reason)


class _NoRedirects(HTTPRedirectHandler):
    """A handler that refuses redirects; the default handler would send the key on to any address."""

    def redirect_request(
        self, _req: Request, _fp: IO[bytes], _code: int, _msg: str, _headers: HTTPMessage, _newurl: str
    ) -> None:
        """Return None, so that no request is sent and the redirect itself becomes the error."""


def _rest(error: HTTPError) -> bytes:
    """Return the body of an error; empty if it cannot be read."""
    try:
        return error.read(MOST_BYTES)
    except (OSError, HTTPException):
        return b""


def _seconds(headers: Message) -> float | None:
    """Return how long a response asks to wait, in seconds; None if it does not.

    The response gives milliseconds, seconds, or a date.
    """
    try:
        if in_ms := headers.get("Retry-After-Ms"):
            return max(0.0, float(in_ms) / 1000)
    except ValueError:
        pass
    told = headers.get("Retry-After")
    if not told:
        return None
    try:
        return max(0.0, float(told))
    except ValueError:
        pass
    try:
        at = parsedate_to_datetime(told)
    except ValueError:
        return None
    return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _data_url(image: Image.Image) -> str:
    factor = -(-LEAST_SIDE // min(image.size))
    if factor > 1:
        image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
