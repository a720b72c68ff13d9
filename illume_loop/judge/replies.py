"""The replies of an endpoint, in any dialect: an answer's text, the yes or no in it, or the reason of a refusal.

Invariants:
- A text that says neither yes nor no, or both, is never taken for an answer.
- What is shown of a reply is short, on one line, and without image data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

MOST_SHOWN = 200
"""The most characters of a reply in a message."""

ANSWERS = {"yes": True, "no": False}

REASONS = frozenset({"reason", "reasoning", "explanation", "rationale", "thought", "thoughts", "analysis"})
"""The keys that may stand beside "answer" in a JSON answer."""

_THOUGHT = re.compile(r"<(think|thinking|thought|reasoning|analysis)>.*?</\1>", re.DOTALL | re.IGNORECASE)

_END_OF_THOUGHT = re.compile(r".*</(?:think|thinking|thought|reasoning|analysis)>", re.DOTALL | re.IGNORECASE)

_OPEN_THOUGHT = re.compile(r"<(?:think|thinking|thought|reasoning|analysis)>", re.IGNORECASE)

_FINAL = re.compile(r".*<\|message\|>", re.DOTALL)

_SPECIAL = re.compile(r"<\|[^|<>]*\|>")

_FENCE = re.compile(r"```[\w-]*")

_TOLD = re.compile(r"(?:final\s+)?answer\s*[:=]\s*(yes|no)")

_PICTURE = re.compile(r"data:image/[\w.+-]+;base64,[\w+/=]*")

_TAG = re.compile(r"<[^<>]*>")

_FILTERED = re.compile(
    r"content_?filter|ResponsibleAIPolicy|content management policy|content_policy|safety (system|settings)",
    re.IGNORECASE,
)

_LOADING = re.compile(r"\bload(ing|ed yet)?\b|warming up|starting up|not ready", re.IGNORECASE)

Answer = bool | None
"""True for yes, False for no, None for neither."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The text of a completion, None if it has none.

    `cut_off` is True if the completion ended at the token limit.
    """

    text: str | None
    cut_off: bool


@dataclass(frozen=True, slots=True)
class Refusal:
    """The refusal of a request by an endpoint: its status, its message, and the parameter that the message names.

    Message and parameter may be empty. `wait_s` is the number of seconds that the endpoint asks to wait.
    """

    status: int
    message: str
    parameter: str = ""
    wait_s: float | None = None

    def __str__(self) -> str:
        return f"HTTP {self.status}" + (f": {shortened(self.message)}" if self.message else "")

    @property
    def is_filtered(self) -> bool:
        """True if this one image or question was refused, rather than the form of the request."""
        return bool(_FILTERED.search(f"{self.parameter} {self.message}"))

    @property
    def is_loading(self) -> bool:
        """True if the endpoint is still loading its model."""
        return self.status == 503 and bool(_LOADING.search(self.message))


def shortened(text: str) -> str:
    """Return the beginning of a text on one line, without the data of images."""
    line = " ".join(_PICTURE.sub("data:image...", text).split())
    return line if len(line) <= MOST_SHOWN else line[:MOST_SHOWN] + "..."


def read_reply(content: bytes) -> Reply | Refusal | None:
    """Return the completion (streamed or not) or the error in a response of status 200; None if it holds neither."""
    text = content.decode("utf-8-sig", "replace").strip()
    pieces = list(_pieces(text))
    for piece in pieces:
        if piece.get("error") and not piece.get("choices"):
            code = piece["error"].get("code") if isinstance(piece["error"], dict) else None
            return refusal_of(code if isinstance(code, int) and 400 <= code < 600 else 400, json.dumps(piece).encode())
    texts = [found for piece in pieces if (found := _text_of(piece)) is not None]
    known = any(key in piece for piece in pieces for key in ("choices", "message", "output", "content"))
    if not known:
        return None
    cut_off = any(_is_cut_off(piece) for piece in pieces)
    return Reply("".join(texts) if texts else None, cut_off)


def refusal_of(status: int, content: bytes, wait_s: float | None = None) -> Refusal:
    """Return the refusal in a response of another status than 200.

    The response may hold OpenAI's error, FastAPI's detail, plain text or a page.
    """
    text = content.decode("utf-8-sig", "replace").strip()
    try:
        body = json.loads(text)
    except ValueError:
        return Refusal(status, _TAG.sub(" ", text), wait_s=wait_s)
    if not isinstance(body, dict):
        return Refusal(status, text, wait_s=wait_s)
    told = next((body[key] for key in ("error", "detail", "message", "errors", "title") if body.get(key)), "")
    message, parameter = _told(told)
    estimated = body.get("estimated_time")
    if wait_s is None and isinstance(estimated, int | float):
        wait_s = float(estimated)
    return Refusal(status, message, parameter, wait_s)


def answer_in(text: str | None) -> Answer:
    """Return the answer in a text, which may think first, fence its JSON, or have other words around it."""
    said = None if text is None else said_in(text)
    if said is None:
        return None
    bare = said.strip(" \t\r\n.!*_`\"'").lower()
    if bare in ANSWERS:
        return ANSWERS[bare]
    if found := _TOLD.fullmatch(bare):
        return ANSWERS[found.group(1)]
    answers = {_answer_of(one) for one in objects_in(said)}
    return answers.pop() if len(answers) == 1 else None


def said_in(text: str) -> str | None:
    """Return a text without its thoughts, special tokens and fences; None if it ends within a thought."""
    said = _END_OF_THOUGHT.sub("", _THOUGHT.sub("", text))
    if _OPEN_THOUGHT.search(said):
        return None
    return _FENCE.sub("", _SPECIAL.sub("", _FINAL.sub("", said))).strip()


def _answer_of(said: dict[str, Any]) -> Answer:
    keys = {key.strip().lower(): value for key, value in said.items()}
    answer = keys.pop("answer", None)
    if not isinstance(answer, str) or not keys.keys() <= REASONS:
        return None
    return ANSWERS.get(answer.strip().rstrip(".").lower())


def objects_in(text: str, decoder: json.JSONDecoder | None = None) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects in a text, read by a decoder that may be stricter than Python's own."""
    decoder, place = decoder or json.JSONDecoder(), text.find("{")
    while place >= 0:
        try:
            found, end = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            end = place + 1
        else:
            if isinstance(found, dict):
                yield found
        place = text.find("{", end)


def _pieces(text: str) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of a response: its whole body, its server-sent events, or its lines."""
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        for line in text.splitlines():
            data = line.removeprefix("data:").strip()
            if data.startswith("{"):
                try:
                    piece = json.loads(data)
                except (ValueError, RecursionError):
                    continue
                if isinstance(piece, dict):
                    yield piece
        return
    if isinstance(whole, dict):
        yield whole


def _choice(piece: dict[str, Any]) -> dict[str, Any]:
    choices = piece.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, dict) else {}


def _text_of(piece: dict[str, Any]) -> str | None:
    choice = _choice(piece)
    for holder in (choice.get("message"), choice.get("delta"), choice, piece.get("message"), piece):
        if isinstance(holder, dict):
            found = _joined(holder.get("content"))
            if found is None and isinstance(holder.get("text"), str):
                found = holder["text"]
            if found is not None:
                return found
    return None


def _joined(content: object) -> str | None:
    """Return the text of a message's content, which is a string or a list of parts; None if it has no text."""
    if isinstance(content, str):
        return content
    if isinstance(content, dict):
        content = [content]
    if not isinstance(content, list):
        return None
    texts = []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict) and part.get("type", "text") in ("text", "output_text"):
            text = part.get("text")
            texts.append(text if isinstance(text, str) else "")
    return "".join(texts) if texts else None


def _is_cut_off(piece: dict[str, Any]) -> bool:
    reasons = (_choice(piece).get("finish_reason"), piece.get("done_reason"), piece.get("stop_reason"))
    return any(reason in ("length", "max_tokens") for reason in reasons)


def _told(told: object) -> tuple[str, str]:
    """Return the message of an error and the parameter that it names."""
    if isinstance(told, str):
        return told, ""
    if isinstance(told, list):
        several = [_told(one) for one in told]
        return "; ".join(message for message, _ in several), " ".join(name for _, name in several).strip()
    if not isinstance(told, dict):
        return str(told), ""
    place = told.get("loc")
    where = ".".join(str(step) for step in place if step != "body") if isinstance(place, list | tuple) else ""
    inner = told.get("message") or told.get("msg") or told.get("error") or told.get("detail")
    message, parameter = _told(inner) if inner is not None else (json.dumps(told), "")
    named = told.get("param")
    codes = [str(told[key]) for key in ("code",) if isinstance(told.get(key), str)]
    parameter = " ".join(filter(None, [named if isinstance(named, str) else "", where, parameter]))
    if any(_FILTERED.search(code) for code in codes):
        message = f"{message} ({', '.join(codes)})"
    return (f"{where}: {message}" if where else message), parameter
