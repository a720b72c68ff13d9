"""The dialect of one teacher's endpoint: the form of its requests, which is learned from its refusals.

Servers that call themselves compatible with OpenAI's differ in what they take. A refusal that names a parameter changes
the parameter: it is renamed, weakened or left out. After a refusal that names none, the request is sent once with the
fewest parameters.

Invariants:
- Each lesson leaves fewer ways to ask, so learning ends.
- What was learned of an endpoint and model is kept for the life of the process.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, TypeVar
from urllib.parse import urlsplit

from illume_loop.judge.replies import Refusal, answer_in

T = TypeVar("T")

INSTRUCTION = (
    'Look at the image and answer the question about it with the JSON {"answer": "yes"} or {"answer": "no"} only.'
)

ANSWER_SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "string", "enum": ["yes", "no"]}},
    "required": ["answer"],
    "additionalProperties": False,
}

TOKENS = (16, 256, 2048, 8192)
"""The token limits of an answer. The first is enough for the JSON; the others are for models that think before it."""


@dataclass(frozen=True, slots=True)
class Ask(Generic[T]):
    """Something that a teacher is asked about an image, and how its reply is read.

    `form` names the form of the reply, which an instruction and a JSON schema describe; messages call it `wanted`.
    `num_tokens` is the index into TOKENS of the first limit. `read` returns the answer in a reply's text, None if there
    is none.
    """

    form: str
    wanted: str
    instruction: str
    text: str
    schema: Mapping[str, Any]
    num_tokens: int
    read: Callable[[str | None], T | None]


def yes_or_no(question: str) -> Ask[bool]:
    """Return a question that is answered with yes or no."""
    return Ask("answer", "yes or no", INSTRUCTION, question, ANSWER_SCHEMA, 0, answer_in)


_PATH = "/chat/completions"

_VERSION = re.compile(r"/v\d+\w*$")

_MORE_TOKENS = re.compile(r"higher|at least|minimum|too (small|low|few)|greater than|larger than|>=", re.IGNORECASE)

_NAMES = (
    ("tokens", re.compile(r"max_(completion_|new_|output_)?tokens|max_length", re.IGNORECASE)),
    (
        "format",
        re.compile(r"response[_ ]format|json[_ ]?(schema|object|mode)|structured|guided|grammar", re.IGNORECASE),
    ),
    ("temperature", re.compile(r"temperature|do_sample|sampling param", re.IGNORECASE)),
    ("system", re.compile(r"\bsystem\b|\bdeveloper\b|roles? must alternate|alternating roles", re.IGNORECASE)),
    ("image", re.compile(r"image_url|\bdetail\b", re.IGNORECASE)),
    ("key", re.compile(r"api-key|subscription key", re.IGNORECASE)),
)
"""The topics of the lessons, each with the words by which a refusal names it."""


def addresses(url: str) -> tuple[str, ...]:
    """Return the addresses at which the endpoint of a base URL may be, the likeliest first.

    The URL may lack /v1 or the full path, or have them.
    """
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    if path.endswith(_PATH):
        found = [path]
    else:
        found = [path + _PATH]
        if not _VERSION.search(path):
            found.insert(0 if not path else 1, path + "/v1" + _PATH)
    return tuple(parts._replace(path=one).geturl() for one in found)


@dataclass(frozen=True, slots=True)
class Dialect:
    """The form of the requests to an endpoint.

    `address` is an index into the endpoint's addresses, `num_tokens` an index into TOKENS.
    """

    address: int = 0
    key_header: Literal["Authorization", "api-key"] = "Authorization"
    tokens: Literal["max_tokens", "max_completion_tokens", ""] = "max_tokens"
    num_tokens: int = 0
    format: Literal["json_schema", "json_object", ""] = "json_schema"
    temperature: bool = True
    system: bool = True
    detail: bool = False
    plain_image: bool = False

    def body(self, model: str, picture: str, asked: Ask[Any], temperature: float) -> dict[str, Any]:
        """Return the request that asks something about a picture (a data URL)."""
        image: Any = {"url": picture} | ({"detail": "auto"} if self.detail else {})
        parts = [
            {"type": "image_url", "image_url": picture if self.plain_image else image},
            {"type": "text", "text": asked.text if self.system else f"{asked.instruction}\n\n{asked.text}"},
        ]
        first = [{"role": "system", "content": asked.instruction}] if self.system else []
        body: dict[str, Any] = {"model": model, "messages": [*first, {"role": "user", "content": parts}]}
        if self.tokens:
            body[self.tokens] = TOKENS[self.num_tokens]
        if self.temperature:
            body["temperature"] = temperature
        if self.format == "json_schema":
            schema = {"name": asked.form, "strict": True, "schema": asked.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif self.format:
            body["response_format"] = {"type": self.format}
        return body

    def fewest(self) -> Dialect:
        """Return the dialect without any parameter that can be left out."""
        return replace(self, tokens="", format="", temperature=False)

    def longer(self) -> Dialect | None:
        """Return the dialect with the next higher token limit; None if there is none."""
        more = self.num_tokens + 1
        return replace(self, num_tokens=more) if self.tokens and more < len(TOKENS) else None

    def after(self, refusal: Refusal) -> Dialect | None:
        """Return the dialect after a refusal that names a parameter; None if it names none that can change."""
        about_key = refusal.status in (401, 403)
        names = [(about, words) for about, words in _NAMES if (about == "key") == about_key]
        for text in (refusal.parameter, refusal.message):
            named = [(found.start(), about) for about, words in names if (found := words.search(text))]
            for _, about in sorted(named):
                changed = _LESSONS[about](self, f"{refusal.parameter} {refusal.message}")
                if changed is not None and changed != self:
                    return changed
        return None


def _tokens(now: Dialect, said: str) -> Dialect | None:
    if _MORE_TOKENS.search(said) and (more := now.longer()):
        return more
    if now.tokens == "max_tokens":
        return replace(now, tokens="max_completion_tokens")
    return replace(now, tokens="")


def _format(now: Dialect, _: str) -> Dialect | None:
    return replace(now, format="json_object" if now.format == "json_schema" else "")


def _image(now: Dialect, said: str) -> Dialect | None:
    if re.search(r"detail", said) and re.search(r"required|missing", said, re.IGNORECASE):
        return replace(now, detail=True)
    if re.search(r"string|\bstr\b", said, re.IGNORECASE) and not re.search(r"object|dict", said, re.IGNORECASE):
        return replace(now, plain_image=True)
    return None


def _key(now: Dialect, said: str) -> Dialect | None:
    del said
    return replace(now, key_header="api-key")


_LESSONS: dict[str, Callable[[Dialect, str], Dialect | None]] = {
    "tokens": _tokens,
    "format": _format,
    "temperature": lambda now, _: replace(now, temperature=False),
    "system": lambda now, _: replace(now, system=False),
    "image": _image,
    "key": _key,
}


class LearnedDialect:
    """The dialect of one endpoint, model and form of reply as far as it is learned; safe for threads."""

    def __init__(self, url: str, num_tokens: int) -> None:
        self.addresses = addresses(url)
        parts = urlsplit(url)
        azure = "api-version=" in parts.query or (parts.hostname or "").endswith(".azure.com")
        self._now = Dialect(key_header="api-key" if azure else "Authorization", num_tokens=num_tokens)
        self._stripped: tuple[Dialect, Refusal] | None = None
        self._lock = threading.Lock()

    @property
    def now(self) -> Dialect:
        """The dialect to ask in."""
        with self._lock:
            return self._now

    def is_last_address(self, asked: Dialect) -> bool:
        """Return True if there is no other address to try."""
        return asked.address + 1 >= len(self.addresses)

    def move_on(self, asked: Dialect) -> bool:
        """Use the next address after `asked` found nothing at its own; return False if there is none."""
        if self.is_last_address(asked):
            return False
        return self._take(asked, replace(asked, address=asked.address + 1))

    def lengthen(self, asked: Dialect) -> bool:
        """Raise the token limit after an answer was cut off; return False if there is no higher one."""
        return self._take(asked, asked.longer())

    def learn(self, asked: Dialect, refusal: Refusal) -> bool:
        """Change the dialect after a refusal; return False if nothing is left to change."""
        return self._take(asked, asked.after(refusal))

    def strip(self, asked: Dialect, refusal: Refusal) -> bool:
        """Leave out all optional parameters after a refusal that named none; return False if that was done before.

        It also returns False if there is nothing to leave out.
        """
        with self._lock:
            if self._now != asked:
                return True
            if self._stripped is not None or asked.fewest() == asked:
                return False
            self._stripped, self._now = (asked, refusal), asked.fewest()
            return True

    def give_up(self, asked: Dialect) -> Refusal | None:
        """Return the refusal that led to `strip`, and undo it, if `asked` is the stripped dialect; else None.

        The stripped request was refused too, so the first refusal is the one to report.
        """
        with self._lock:
            if self._stripped is None or asked != self._stripped[0].fewest():
                return None
            before, refusal = self._stripped
            if self._now == asked:
                self._now = before
            return refusal

    def _take(self, asked: Dialect, wanted: Dialect | None) -> bool:
        """Use the dialect `wanted` from now on, unless another thread has changed the dialect since `asked` was sent.

        Returns False if `wanted` is None and no other thread has changed the dialect.
        """
        with self._lock:
            if self._now != asked:
                return True
            if wanted is None:
                return False
            self._now = wanted
            return True


_known: dict[tuple[str, str, str], LearnedDialect] = {}

_known_lock = threading.Lock()


def learned_of(url: str, model: str, asked: Ask[Any]) -> LearnedDialect:
    """Return what this process has learned of an endpoint and model for the form of reply that is asked for."""
    with _known_lock:
        return _known.setdefault((url, model, asked.form), LearnedDialect(url, asked.num_tokens))


def forget() -> None:
    """Forget what was learned. It is for a caller that starts another endpoint at the same address."""
    with _known_lock:
        _known.clear()
