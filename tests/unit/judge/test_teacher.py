"""The teacher's client against a real HTTP server that answers, errs, hangs, redirects and babbles."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable

import pytest
from PIL import Image

from illume_loop.errors import NoTeacherError, TeacherBudgetError, TeacherError, TeacherRefusedError
from illume_loop.judge.teacher import LEAST_SIDE, LONGEST_PAUSE_S, MOST_BYTES, Teacher, fixed_budget
from illume_loop.settings import TeacherSettings
from tests.support.stub_teacher import HANG, Reply, Status, StubTeacher, stub_teacher

RED, BLUE = Image.new("RGB", (48, 48), "red"), Image.new("RGB", (48, 32), "blue")
KEY = "sk-very-secret"
YES, NO = '{"answer": "yes"}', '{"answer":"no"}'


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def _sees_red(_: int, image: Image.Image, question: str) -> str:
    assert question == "is it red ?"
    return YES if image.convert("RGB").getpixel((0, 0)) == (255, 0, 0) else NO


def _teacher(stub: StubTeacher, pauses: list[float] | None = None, jitter: float = 0.5, **values: object) -> Teacher:
    settings = TeacherSettings.model_validate({"url": stub.url, "model": "seer", "key": KEY} | values)
    heard: list[float] = [] if pauses is None else pauses
    return Teacher(settings, fixed_budget(settings.max_calls), heard.append, lambda: jitter)


def _ask(reply: Reply, **values: object) -> tuple[list[bool | None], StubTeacher]:
    with stub_teacher(reply) as stub:
        [answers] = _teacher(stub, **values).ask([RED], [["is it red ?"]])
        return answers, stub


def test_every_image_gets_the_answers_to_its_own_questions() -> None:
    with stub_teacher(_sees_red) as stub:
        questions = [["is it red ?"], [], ["is it red ?"] * 3]
        answers = _teacher(stub, parallel=3).ask([RED, RED, BLUE], questions)
    assert answers == [[True], [], [False, False, False]]
    assert len(stub.requests) == 4


def test_what_is_sent() -> None:
    sizes = []

    def reply(_: int, image: Image.Image, __: str) -> str:
        sizes.append(image.size)
        return YES

    _, stub = _ask(reply)
    [(path, headers, body)] = stub.requests
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert (body["model"], body["temperature"]) == ("seer", 0.0)
    schema = body["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["answer"]["enum"] == ["yes", "no"]
    assert min(sizes[0]) >= LEAST_SIDE
    assert sizes[0][0] % 48 == 0


def test_without_a_key_no_header_is_sent() -> None:
    _, stub = _ask(lambda *_: YES, key="")
    assert "Authorization" not in stub.requests[0][1]


@pytest.mark.parametrize("said", [YES, ' {"answer":"yes"}\n', "yes", "Yes."])
def test_what_counts_as_yes(said: str) -> None:
    answers, _ = _ask(lambda *_: said)
    assert answers == [True]


@pytest.mark.parametrize(
    "said",
    [
        "",
        "maybe",
        "yes and no",
        '{"answer": "perhaps"}',
        '{"answer": true}',
        '{"answer": ["yes"]}',
        '{"answer": "yes", "why": "red"}',
        '["yes"]',
        "no, it is blue",
        Status(200, b"not json"),
        Status(200, b'{"choices": [{"mess', {"Content-Length": "99"}),
        Status(200, b'{"choices": []}'),
        Status(200, b'{"choices": [{"message": {"content": null}}]}'),
    ],
)
def test_what_is_neither_yes_nor_no_is_asked_again_and_never_taken_for_one(said: object) -> None:
    answers, stub = _ask(lambda *_: said, retries=2)
    assert answers == [None]
    assert [body["temperature"] for _, _, body in stub.requests] == [0.0, 1.0, 1.0]
    answers, stub = _ask(lambda number, *_: said if number == 1 else NO, retries=2)
    assert answers == [False]
    assert len(stub.requests) == 2


def test_a_server_that_errs_is_tried_again_after_ever_longer_pauses() -> None:
    pauses: list[float] = []
    with stub_teacher(lambda number, *_: Status(503) if number < 4 else YES) as stub:
        assert _teacher(stub, pauses).ask([RED], [["?"]]) == [[True]]
    assert pauses == [0.5, 1.0, 2.0]


def test_callers_do_not_come_back_at_once() -> None:
    spread: list[float] = []
    for jitter in (0.0, 1.0):
        with stub_teacher(lambda number, *_: Status(503) if number < 2 else YES) as stub:
            _teacher(stub, spread, jitter).ask([RED], [["?"]])
    assert spread == [0.375, 0.625]


def test_it_waits_as_long_as_it_is_told_within_reason() -> None:
    pauses: list[float] = []
    waits = {1: "7", 2: "86400", 3: "Wed, 21 Oct 2099 07:28:00 GMT"}
    with stub_teacher(lambda n, *_: Status(429, headers={"Retry-After": waits[n]}) if n < 4 else YES) as stub:
        assert _teacher(stub, pauses, 0.0).ask([RED], [["?"]]) == [[True]]
    assert pauses == [7.0, LONGEST_PAUSE_S, LONGEST_PAUSE_S]


@pytest.mark.parametrize(
    ("said", "values", "reason"),
    [
        (Status(500), {}, "HTTP 500"),
        (HANG, {"timeout_s": 0.05}, "timed out"),
        (Status(200, b" " * (MOST_BYTES + 1)), {}, "more than"),
    ],
)
def test_a_server_that_stays_away_is_an_error_and_no_answer(
    said: object, values: dict[str, object], reason: str
) -> None:
    with stub_teacher(lambda *_: said) as stub, pytest.raises(TeacherError, match=f"did not answer .*{reason}"):
        _teacher(stub, retries=1, **values).ask([RED], [["?"]])
    assert len(stub.requests) == 2


def test_nobody_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(TeacherError, match="refused"):
        _teacher(StubTeacher(url), retries=1).ask([RED], [["?"]])


@pytest.mark.parametrize(
    ("code", "body"),
    [
        (401, json.dumps({"error": {"message": "no\nsuch key"}}).encode()),
        (404, b'{"error": "no such model"}'),
        (400, b"plain"),
        (302, b""),
    ],
)
def test_a_refusal_is_not_tried_again(code: int, body: bytes) -> None:
    with stub_teacher(lambda *_: Status(code, body)) as stub, pytest.raises(TeacherRefusedError) as caught:
        _teacher(stub, parallel=1).ask([RED] * 20, [["?"]] * 20)
    assert f"HTTP {code}" in str(caught.value)
    assert KEY not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(stub.requests) < 20


def test_the_key_follows_no_redirect() -> None:
    with stub_teacher(lambda *_: YES) as thief:
        away = Status(307, headers={"Location": f"{thief.url}/chat/completions"})
        with stub_teacher(lambda *_: away) as stub, pytest.raises(TeacherRefusedError, match="HTTP 307"):
            _teacher(stub).ask([RED], [["?"]])
    assert thief.requests == []


@pytest.mark.parametrize("reply", [lambda *_: YES, lambda *_: Status(503), lambda *_: "babble"])
def test_no_call_is_made_beyond_the_budget(reply: Callable[..., object]) -> None:
    with stub_teacher(reply) as stub, pytest.raises(TeacherBudgetError, match="5 calls"):
        _teacher(stub, max_calls=5, parallel=3, retries=5).ask([RED] * 10, [["?"]] * 10)
    assert len(stub.requests) == 5


def test_without_an_endpoint_there_is_no_teacher() -> None:
    for values in ({}, {"url": "http://h/v1"}, {"model": "seer"}):
        with pytest.raises(NoTeacherError):
            Teacher(TeacherSettings.model_validate(values), fixed_budget(1))
