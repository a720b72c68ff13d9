"""Endpoints of every common dialect on a real HTTP server: refusals are learned from, answers understood."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from illume_loop.errors import TeacherError, TeacherRefusedError, TeacherUnclearError
from illume_loop.judge.dialect import addresses
from illume_loop.judge.teacher import Teacher, fixed_budget
from illume_loop.settings import TeacherSettings
from tests.support.stub_teacher import Refuse, Status, StubTeacher, stub_teacher

RED = Image.new("RGB", (48, 48), "red")
KEY = "sk-very-secret"
YES = '{"answer": "yes"}'
Body = dict[str, Any]


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def _teacher(stub: StubTeacher, pauses: list[float] | None = None, **values: object) -> Teacher:
    settings = TeacherSettings.model_validate({"url": stub.url, "model": "seer", "key": KEY, "parallel": 1} | values)
    heard: list[float] = [] if pauses is None else pauses
    return Teacher(settings, fixed_budget(settings.max_calls), heard.append, lambda: 0.0)


def _error(message: str, param: str | None = None, code: int = 400) -> Status:
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": None}
    return Status(code, json.dumps({"error": error}).encode())


def _refuses(field: str, *answers: Status, has: Callable[[Body], bool] | None = None) -> Refuse:
    """An endpoint that does not take a field of the body."""
    there = has or (lambda body: field in body)
    return lambda _, __, body: answers[0] if there(body) else None


def _fastapi(*place: str, message: str = "Extra inputs are not permitted") -> Status:
    detail = [{"type": "extra_forbidden", "loc": ["body", *place], "msg": message, "input": 0}]
    return Status(422, json.dumps({"detail": detail}).encode())


def _o_series(_: str, __: dict[str, str], body: Body) -> Status | None:
    """As OpenAI's reasoning models: one refusal after the other."""
    if "max_tokens" in body:
        told = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens'."
        return _error(told, "max_tokens")
    if "temperature" in body:
        told = "Unsupported value: 'temperature' does not support 0.0 with this model. Only the default is supported."
        return _error(told, "temperature")
    if body["max_completion_tokens"] < 1024:
        return _error("Could not finish the message because max_tokens or model output limit was reached. Please try "
                      "again with higher max_tokens.")  # fmt: skip
    return None


def _is(field: str, kind: str) -> Callable[[Body], bool]:
    return lambda body: body.get(field, {}).get("type") == kind


def _system(body: Body) -> bool:
    return any(one["role"] == "system" for one in body["messages"])


def _image(body: Body) -> Any:
    return body["messages"][-1]["content"][0]["image_url"]


DIALECTS: dict[str, Refuse] = {
    "takes max_completion_tokens": _refuses(
        "max_tokens",
        _error("Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens'."),
    ),
    "takes neither": lambda p, h, body: (
        _error("Unrecognized request argument supplied: " + named[0])
        if (named := [name for name in body if name.endswith("tokens")])
        else None
    ),
    "a reasoning model": _o_series,
    "no response_format": _refuses("response_format", _error("This response_format type is unavailable now")),
    "json_object alone": _refuses(
        "", _error("'response_format.type' must be 'json_object' or 'text'"), has=_is("response_format", "json_schema")
    ),
    "FastAPI, response_format": _refuses("response_format", _fastapi("response_format")),
    "FastAPI, temperature": _refuses("temperature", _fastapi("temperature", message="extra fields not permitted")),
    "FastAPI, a text": _refuses("response_format", Status(422, b'{"detail": "response_format is not supported"}')),
    "error is a string": _refuses("response_format", Status(400, b'{"error": "json_schema is not supported"}')),
    "llama.cpp, 500": _refuses(
        "response_format",
        Status(500, b'{"error": {"code": 500, "message": "failed to parse grammar", "type": "server_error"}}'),
    ),
    "vLLM, message": _refuses(
        "response_format", Status(400, b'{"object": "error", "message": "guided json_schema is off", "code": 400}')
    ),
    "OpenRouter, 404": _refuses("response_format", _error("No endpoints found that support response_format", code=404)),
    "names nothing": _refuses("response_format", Status(400, b"Bad Request")),
    "names nothing, 422": _refuses("temperature", Status(422, b'{"detail": [{"loc": ["body"], "msg": "no"}]}')),
    "no system role": _refuses("", _error("System role not supported"), has=_system),
    "roles alternate": _refuses(
        "", _error("Conversation roles must alternate user/assistant/user/assistant/..."), has=_system
    ),
    "wants a detail": _refuses(
        "",
        _fastapi("messages", "1", "content", "0", "image_url", "detail", message="Field required"),
        has=lambda body: "detail" not in _image(body),
    ),
    "wants a plain URL": _refuses(
        "",
        _error("messages[1].content[0].image_url: invalid type: expected a string"),
        has=lambda body: not isinstance(_image(body), str),
    ),
    "an api-key header": lambda p, headers, b: (
        None
        if {name.lower() for name in headers} >= {"api-key"}
        else Status(401, b'{"error": {"code": "401", "message": "Access denied due to missing subscription key."}}')
    ),
}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_an_endpoint_refuses_is_sent_to_it_no_more(dialect: str) -> None:
    with stub_teacher(lambda *_: YES, DIALECTS[dialect]) as stub:
        assert _teacher(stub, retries=0).ask([RED], [["?"]]) == [[True]]
        learned = len(stub.requests)
        assert 1 < learned <= 6
        assert _teacher(stub, retries=0).ask([RED, RED], [["?"], ["?", "?"]]) == [[True], [True, True]]
        assert len(stub.requests) == learned + 3, "what was learned was forgotten"


def test_many_callers_learn_together() -> None:
    with stub_teacher(lambda *_: YES, _o_series) as stub:
        assert _teacher(stub, retries=0, parallel=8).ask([RED] * 4, [["?"] * 4] * 4) == [[True] * 4] * 4


def _completion(content: object, **more: object) -> Status:
    finish = more.pop("finish_reason", "stop")
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": content, **more}}
    return Status(200, json.dumps({"choices": [choice]}).encode())


def _stream(*pieces: dict[str, Any]) -> Status:
    lines = [f"data: {json.dumps({'choices': [{'index': 0, 'delta': piece}]})}\n\n" for piece in pieces]
    return Status(
        200, (": ping\n\n" + "".join(lines) + "data: [DONE]\n\n").encode(), {"Content-Type": "text/event-stream"}
    )


@pytest.mark.parametrize(
    "said",
    [
        _completion([{"type": "text", "text": YES}]),
        _completion([{"type": "thinking", "thinking": "no"}, {"type": "text", "text": YES}]),
        _completion(YES, reasoning_content="It might be no."),
        _completion(f"```json\n{YES}\n```"),
        _completion(f"```\n{YES}```"),
        _completion(f"<think>\nIs it? no, {{\"answer\": \"no\"}}\n</think>\n\n{YES}"),
        _completion(f"It is blue ... no.</think>{YES}"),
        _completion(f"<|channel|>analysis<|message|>no<|end|><|start|>assistant<|channel|>final<|message|>{YES}<|return|>"),
        _completion("The picture shows a circle. " + YES),
        _completion('{"answer": "Yes"}'),
        _completion('{"Answer": "YES."}'),
        _completion('{"reasoning": "it is red", "answer": "yes"}'),
        _completion("**Yes**"),
        _completion("Answer: yes."),
        _completion("<|begin_of_box|>yes<|end_of_box|>"),
        Status(200, json.dumps({"choices": [{"text": "yes"}]}).encode()),
        Status(200, json.dumps({"message": {"role": "assistant", "content": YES}, "done": True}).encode()),
        Status(200, b"\xef\xbb\xbf" + json.dumps({"choices": [{"message": {"content": YES}}]}).encode()),
        Status(200, gzip.compress(json.dumps({"choices": [{"message": {"content": YES}}]}).encode()),
               {"Content-Encoding": "gzip"}),
        _stream({"role": "assistant"}, {"content": '{"ans'}, {"content": 'wer": "yes"}'}, {}),
        _stream({"reasoning_content": "no"}, {"content": None}, {"content": YES}),
    ],
)  # fmt: skip
def test_an_answer_is_found_wherever_it_stands(said: Status) -> None:
    with stub_teacher(lambda *_: said) as stub:
        assert _teacher(stub, retries=0).ask([RED], [["?"]]) == [[True]]


@pytest.mark.parametrize(
    "said",
    [
        _completion("<think>It could be yes"),
        _completion(None, reasoning_content="yes"),
        _completion(None, refusal="I cannot help with yes"),
        _completion(""),
        _completion('{"answer": "yes"} or {"answer": "no"}'),
        _completion('[{"answer": "yes"}, {"answer": "no"}]'),
        _completion('{"question": {"answer": "yes"}}'),
        _completion("yesterday"),
        Status(200, b"<html><body>Log in: yes</body></html>"),
        Status(200, b'["yes"]'),
        Status(200, b"[" * 100_000),
    ],
)
def test_a_text_that_is_no_answer_is_none(said: Status) -> None:
    with stub_teacher(lambda *_: said) as stub:
        assert _teacher(stub, retries=1).ask([RED], [["?"]]) == [[None]]


def test_a_model_that_thinks_gets_room_for_it() -> None:
    """Its answer is cut off until it may write enough, and from then on it is asked so at once."""

    def cut(_: str, __: dict[str, str], body: Body) -> Status | None:
        if body["max_tokens"] >= 2048:
            return None
        return _completion(None, reasoning_content="The picture shows a", finish_reason="length")

    with stub_teacher(lambda *_: YES, cut) as stub:
        assert _teacher(stub, retries=0).ask([RED], [["?"]]) == [[True]]
        asked = [body["max_tokens"] for _, _, body in stub.requests]
        assert _teacher(stub, retries=0).ask([RED], [["?"]]) == [[True]]
    assert asked == sorted(asked)
    assert [body["max_tokens"] for _, _, body in stub.requests[len(asked) :]] == [asked[-1]]


@pytest.mark.parametrize(
    ("path", "serves"),
    [
        ("", "/v1/chat/completions"),
        ("/", "/v1/chat/completions"),
        ("", "/chat/completions"),
        ("/v1/", "/v1/chat/completions"),
        ("/v1/chat/completions", "/v1/chat/completions"),
        ("/v1/chat/completions/", "/v1/chat/completions"),
        ("/api", "/api/chat/completions"),
        ("/api", "/api/v1/chat/completions"),
        ("/v1beta/openai", "/v1beta/openai/chat/completions"),
        (
            "/openai/deployments/seer?api-version=2024-10-21",
            "/openai/deployments/seer/chat/completions?api-version=2024-10-21",
        ),
    ],
)
def test_a_base_url_is_found_however_it_is_written(path: str, serves: str) -> None:
    def elsewhere(asked: str, _: dict[str, str], __: Body) -> Status | None:
        return None if asked == serves else Status(404, b"404 page not found")

    with stub_teacher(lambda *_: YES, elsewhere) as stub:
        base = stub.url.removesuffix("/v1")
        assert _teacher(stub, url=base + path, retries=0).ask([RED], [["?"]]) == [[True]]
        assert _teacher(stub, url=base + path, retries=0).ask([RED], [["?"]]) == [[True]]
    assert len(stub.requests) <= 3


def test_a_page_at_the_first_address_leads_to_the_second() -> None:
    def page(asked: str, _: dict[str, str], __: Body) -> Status | None:
        return None if asked == "/api/v1/chat/completions" else Status(200, b"<html>Welcome</html>")

    with stub_teacher(lambda *_: YES, page) as stub:
        url = stub.url.replace("/v1", "/api")
        assert _teacher(stub, url=url, retries=0).ask([RED], [["?"]]) == [[True]]


def test_azure_gets_its_key_in_its_own_header() -> None:
    with stub_teacher(lambda *_: YES) as stub:
        _teacher(stub, url=stub.url + "?api-version=2024-10-21").ask([RED], [["?"]])
    [(_, headers, _)] = stub.requests
    given = {name.lower(): value for name, value in headers.items()}
    assert given["api-key"] == KEY
    assert "authorization" not in given
    assert addresses("https://x.openai.azure.com/openai/v1")[0].endswith("/openai/v1/chat/completions")


def test_a_server_that_loads_its_model_is_waited_for() -> None:
    pauses: list[float] = []
    loading = Status(503, b'{"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}')
    estimated = Status(503, b'{"error": "Model seer is currently loading", "estimated_time": 20.0}')
    replies = {1: loading, 2: estimated, 3: loading}
    with stub_teacher(lambda number, *_: replies.get(number, YES)) as stub:
        assert _teacher(stub, pauses, retries=0).ask([RED], [["?"]]) == [[True]]
    assert pauses == [5.0, 20.0, 5.0]
    with stub_teacher(lambda *_: loading) as stub, pytest.raises(TeacherError, match="Loading model"):
        _teacher(stub, retries=1).ask([RED], [["?"]])


def test_an_error_that_comes_as_a_success_is_one() -> None:
    busy = Status(200, b'{"error": {"message": "Rate limit exceeded: free-models-per-day", "code": 429}}')
    with stub_teacher(lambda number, *_: busy if number == 1 else YES) as stub:
        assert _teacher(stub, retries=1).ask([RED], [["?"]]) == [[True]]
    with stub_teacher(lambda *_: busy) as stub, pytest.raises(TeacherError, match="Rate limit exceeded"):
        _teacher(stub, retries=1).ask([RED], [["?"]])


def test_an_image_that_a_filter_stops_has_no_answer_and_the_others_do() -> None:
    told = {"error": {"code": "content_filter", "message": "The response was filtered", "param": "prompt"}}
    stopped = Status(400, json.dumps(told).encode())
    with stub_teacher(lambda _, __, question: stopped if question == "bad" else YES) as stub:
        assert _teacher(stub, retries=0).ask([RED, RED], [["bad"], ["good"]]) == [[None], [True]]


def test_what_came_back_is_told_where_nothing_was_understood() -> None:
    page = Status(200, f"<html>Please log in, not with {KEY}. {'x' * 2000}</html>".encode())
    with stub_teacher(lambda *_: page) as stub, pytest.raises(TeacherUnclearError) as caught:
        _teacher(stub, retries=0).ask([RED] * 8, [["?"]] * 8)
    told = str(caught.value)
    assert "<html>Please log in" in told
    assert KEY not in told
    assert len(told) < 500


def test_a_refusal_that_no_change_heals_is_told_as_it_came_first() -> None:
    picture = "data:image/png;base64," + "iVBORw0KGgo" * 50
    odd = Status(400, json.dumps({"error": {"message": f"cannot read {picture} with key {KEY}, model gone"}}).encode())
    with stub_teacher(lambda *_: odd) as stub:
        with pytest.raises(TeacherRefusedError, match="model gone") as caught:
            _teacher(stub).ask([RED] * 4, [["?"]] * 4)
        assert KEY not in str(caught.value)
        assert len(stub.requests) <= 3
        sent = stub.requests[0][2]
        with pytest.raises(TeacherRefusedError):
            _teacher(stub).ask([RED], [["?"]])
    assert stub.requests[-1][2] == sent, "a refusal of something else left parameters out for good"
