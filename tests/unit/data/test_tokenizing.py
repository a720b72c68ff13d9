"""Tokenising: every source's rows arrive, bad ones are told by place and reason, and a kill costs no whole shard."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from pyarrow import parquet

from illume_loop.data.pixels import Fit, open_image
from illume_loop.data.store import LEFT_OUT, Tokenised, list_path, shard_path
from illume_loop.data.tally import CROPPED, Tally
from illume_loop.data.tokenizer import tokenizer_digest
from illume_loop.data.tokenizing import Outcome, TokenizeRequest, tokenize
from illume_loop.errors import (
    DataSourceError,
    NotFoundError,
    OtherTokenizerError,
    TokensChangedError,
    TooManyBadRowsError,
)
from illume_loop.files import sha256_of
from illume_loop.models.illume.backend import IllumeBackend
from tests.support.sources import BAD, encoded

Made = tuple[Path, Outcome]


def _shards(folder: Path) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in sorted((folder / "shards").iterdir())}


def test_all_good_rows_are_kept_and_all_others_counted_and_listed(tokenised: Made, sources: dict[str, Path]) -> None:
    folder, outcome = tokenised
    assert outcome.num_left == 0
    assert outcome.tally.kept == {"pair": 24, "dialogue": 7, "edit": 6, "text": 6}
    assert outcome.tally.left_out == sum(BAD.values(), Counter[str]())
    assert outcome.tally.num_read == outcome.tally.num_kept + outcome.tally.left_out.total()
    listed = [json.loads(line) for line in (folder / LEFT_OUT).read_text().splitlines()]
    for name, reasons in BAD.items():
        of_file = [row for row in listed if row["file"] == str(sources[name])]
        assert Counter(row["reason"] for row in of_file) == reasons, name
    (cut_off,) = [row for row in listed if row["reason"] == "unreadable image"]
    assert (cut_off["index"], cut_off["key"]) == (12, "cut-off")
    (unparsed,) = [row for row in listed if row["reason"] == "not JSON"]
    assert unparsed["index"] == 10, "the line of the file, from 0"


def test_ids_are_the_tokenizers_and_rows_keep_what_they_read(tokenised: Made, sharp_backend: IllumeBackend) -> None:
    data = Tokenised(tokenised[0])
    assert len(data) == tokenised[1].tally.num_kept
    for number in data.rows_of("pair", drawn=True)[::5]:
        row = data[int(number)]
        assert row.text
        image = open_image(row.images[0])
        assert row.ids == (sharp_backend.encode([image])[0].tolist(),)
    edits = [data[int(number)] for number in data.rows_of("edit", drawn=True)]
    assert all(len(row.images) == 1 == len(row.ids) and row.text for row in edits)
    dialogues = [data[int(number)] for number in data.rows_of("dialogue", drawn=False)]
    assert [len(row.turns) for row in dialogues] == [2, 4, 2, 4, 2, 4, 2]
    assert [len(row.images) for row in dialogues] == [1] * 6 + [0]
    assert not len(data.rows_of("dialogue", drawn=True))


def test_a_killed_tokenising_goes_on_and_leaves_whole_shards_as_they_are(
    tokenised: Made, sources: dict[str, Path], sharp_backend: IllumeBackend, tmp_path: Path
) -> None:
    request = TokenizeRequest(list(sources.values()), shard_rows=5, max_bad=0.5)

    def kill(done: int, _total: int, _tally: Tally) -> None:
        if done == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        tokenize(request, sharp_backend, "tiny", tmp_path, kill)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    before = {path.name: path.stat() for path in (tmp_path / "shards").glob("*.parquet")}
    assert len(before) == 3
    with pytest.raises(NotFoundError, match="no shard"):
        Tokenised(tmp_path)
    outcome = tokenize(request, sharp_backend, "tiny", tmp_path)
    assert outcome.tally == tokenised[1].tally
    assert _shards(tmp_path) == _shards(tokenised[0]), "byte for byte those of a tokenising that nobody killed"
    for name, stat in before.items():
        after = (tmp_path / "shards" / name).stat()
        assert (after.st_ino, after.st_mtime_ns) == (stat.st_ino, stat.st_mtime_ns)


def test_processes_share_the_shards(
    tokenised: Made, sources: dict[str, Path], sharp_backend: IllumeBackend, tmp_path: Path
) -> None:
    request = TokenizeRequest(list(sources.values()), shard_rows=5, max_bad=0.5)
    worked: list[int] = []
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        tokenize(request, sharp_backend, "tiny", tmp_path)
        os._exit(0)
    outcome = tokenize(request, sharp_backend, "tiny", tmp_path, lambda done, *_: worked.append(done))
    assert os.waitpid(child, 0)[1] == 0
    assert outcome.num_shards + outcome.num_left == len(_shards(tokenised[0]))
    assert _shards(tmp_path) == _shards(tokenised[0])
    assert (tmp_path / LEFT_OUT).read_bytes() == (tokenised[0] / LEFT_OUT).read_bytes()


def test_another_tokenizer_and_another_request_are_refused(
    tokenised: Made, sources: dict[str, Path], sharp_backend: IllumeBackend, tmp_path: Path
) -> None:
    folder, _ = tokenised
    request = TokenizeRequest(list(sources.values()), shard_rows=5, max_bad=0.5)
    with pytest.raises(TokensChangedError, match=r"tokenised otherwise \(fit\)"):
        tokenize(dataclasses.replace(request, fit=Fit("pad")), sharp_backend, "tiny", folder)
    sharp_backend.save(tmp_path)
    other = IllumeBackend.load(tmp_path, "cpu")
    digest = tokenizer_digest(other)
    assert digest == tokenizer_digest(sharp_backend)
    with torch.no_grad():
        other.model.lm_head.weight.add_(1.0)
        for weights in other.model.model.vision.detokenizer.parameters():
            weights.add_(1.0)
    assert tokenizer_digest(other) == digest, "ids do not depend on these"
    with torch.no_grad():
        other.model.model.vision.quantizer.codebook[0].add_(1.0)
    with pytest.raises(OtherTokenizerError, match="holds ids of the tokenizer"):
        tokenize(request, other, "other", folder)


def test_too_many_bad_rows_end_it_with_one_sentence_and_a_list(
    sources: dict[str, Path], sharp_backend: IllumeBackend, tmp_path: Path
) -> None:
    request = TokenizeRequest([sources["llava.jsonl"]])
    with pytest.raises(TooManyBadRowsError) as caught:
        tokenize(request, sharp_backend, "tiny", tmp_path)
    assert str(caught.value).startswith("4 of 11 rows cannot be used (36.4%, and the bound is 5.0%)")
    assert len((tmp_path / LEFT_OUT).read_text().splitlines()) == 4
    assert tokenize(dataclasses.replace(request, max_bad=0.4), sharp_backend, "tiny", tmp_path).tally.num_kept == 7


def test_a_source_that_is_bad_throughout_ends_it_early(
    sharp_backend: IllumeBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("illume_loop.data.tokenizing.ENOUGH_TO_JUDGE", 40)
    (tmp_path / "bad.jsonl").write_text("{}\n" * 500)
    with pytest.raises(TooManyBadRowsError, match="64 of 64 rows cannot be used"):
        tokenize(TokenizeRequest([tmp_path / "bad.jsonl"]), sharp_backend, "tiny", tmp_path / "out")
    assert not shard_path(tmp_path / "out", 0).exists()
    assert len(list_path(tmp_path / "out", 0).read_text().splitlines()) == 64


def test_what_would_be_cropped_too_much_is_not_drawn(sharp_backend: IllumeBackend, tmp_path: Path) -> None:
    for name, size in (("square", (60, 60)), ("near", (60, 48)), ("wide", (90, 60))):
        (tmp_path / f"{name}.png").write_bytes(encoded(Image.new("RGB", size, "red")))
    rows = [{"image": f"{name}.png", "caption": "a red square"} for name in ("square", "near", "wide")]
    rows += [{"source": "wide.png", "target": "wide.png", "instruction": "make the square blue"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    outcome = tokenize(TokenizeRequest([tmp_path / "rows.jsonl"]), sharp_backend, "tiny", tmp_path / "out")
    assert outcome.tally.left_out == {CROPPED: 1}
    assert outcome.tally.bad_share == 0.0, "it is a choice, and no fault of the row"
    data = Tokenised(tmp_path / "out")
    assert data.rows_of("pair", drawn=False).tolist() == [0, 1, 2]
    assert data.rows_of("pair", drawn=True).tolist() == [0, 1], "4:5 loses 20 %, 2:3 more"
    padded = tokenize(
        TokenizeRequest([tmp_path / "rows.jsonl"], Fit("pad")), sharp_backend, "tiny", tmp_path / "padded"
    )
    assert padded.tally.num_kept == 4
    assert np.array_equal(Tokenised(tmp_path / "padded").num_drawn, [1, 1, 1, 1])


def test_sources_that_are_none_are_refused(sharp_backend: IllumeBackend, tmp_path: Path) -> None:
    for name, content, reason in (
        ("none.tar", None, "there is no such file or folder"),
        ("movie.mp4", b"", "its name ends in none of"),
        ("bad.parquet", b"PAR1", "Parquet"),
        ("bad.json", b"{}", "it holds no JSON list"),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(DataSourceError, match=reason):
            tokenize(TokenizeRequest([tmp_path / name]), sharp_backend, "tiny", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataSourceError, match="the folder has no file ending in"):
        tokenize(TokenizeRequest([tmp_path / "empty"]), sharp_backend, "tiny", tmp_path / "out")


def test_an_error_of_one_row_is_that_rows(
    sharp_backend: IllumeBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = encoded(Image.new("RGB", (24, 24), "red"))
    for number in range(40):
        (tmp_path / f"{number}.png").write_bytes(b"" if number == 7 else image[:-40] if number == 8 else image)
    rows: list[dict[str, object]] = [{"image": f"./{n}.png", "caption": "a red square", "id": n} for n in range(40)]
    rows[9]["caption"], rows[10]["id"], rows[11]["caption"] = 9, "\ud800", "a red \udfff square"
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    monkeypatch.setattr("illume_loop.data.tokenizing.longest", _fails_at(12))
    outcome = tokenize(TokenizeRequest([tmp_path / "rows.json"], max_bad=0.2), sharp_backend, "tiny", tmp_path / "out")
    assert outcome.tally.kept == {"pair": 36}
    listed = [json.loads(line) for line in (tmp_path / "out" / LEFT_OUT).read_text().splitlines()]
    assert [(row["index"], row["reason"]) for row in listed] == [
        (7, "unreadable image"),
        (8, "unreadable image"),
        (9, "no caption"),
        (15, "unexpected error"),
    ]
    assert listed[-1]["detail"] == "ZeroDivisionError: nobody thought of it"


def _fails_at(number: int) -> Callable[..., int]:
    """A function that fails at its how-manieth call, from 0, with an error that nobody thought of."""
    calls = iter(range(1_000))

    def measured(*_: object) -> int:
        if next(calls) == number:
            raise ZeroDivisionError("nobody thought of it")
        return 1

    return measured


def test_values_of_parquet_that_are_none_matter_where_they_are_needed_only(
    sharp_backend: IllumeBackend, tmp_path: Path
) -> None:
    texts = pa.array([b"a red square", b"\xff", b"a red square"]).view(pa.string())
    image = encoded(Image.new("RGB", (24, 24), "red"))
    columns = {"image": pa.array([image] * 3, pa.large_binary()), "image_name": ["0.jpg"] * 3}
    parquet.write_table(pa.table({**columns, "caption": texts}), tmp_path / "0.PARQUET")
    times = pa.array([2**62, 0, 0], pa.timestamp("us"))
    captions = pa.array(["a red square"] * 3).dictionary_encode()
    table = pa.table({**columns, "caption": captions, "at": times})
    parquet.write_table(table, tmp_path / "1.parquet", row_group_size=2)
    outcome = tokenize(TokenizeRequest([tmp_path], max_bad=0.5), sharp_backend, "tiny", tmp_path / "out")
    assert outcome.tally.kept == {"pair": 5}
    assert outcome.tally.left_out == {"not UTF-8": 1}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
@pytest.mark.parametrize("end", ["", "\n", "\r\n\r\n", "\n \t\n\n"])
def test_blank_lines_are_no_rows(sharp_backend: IllumeBackend, tmp_path: Path, encoding: str, end: str) -> None:
    lines = ['{"text": "a red circle"}'] * 3 + ["", "  ", "\t"] + ['{"text": "a blue circle"}'] * 2
    for name in ("rows.jsonl", "rows.json"):
        (tmp_path / name).write_bytes(("\n".join(lines) + end).encode(encoding))
        outcome = tokenize(
            TokenizeRequest([tmp_path / name], shard_rows=3), sharp_backend, "tiny", tmp_path / f"of-{name}"
        )
        assert (outcome.tally.kept, outcome.tally.num_read) == ({"text": 5}, 5)


def test_json_is_read_by_what_it_holds(sharp_backend: IllumeBackend, tmp_path: Path) -> None:
    rows = [{"text": "a red circle"}, {"text": "a blue circle"}]
    for name, text in (
        ("list.jsonl", json.dumps(rows)),
        ("indented.jsonl", json.dumps(rows, indent=1)),
        ("object.json", json.dumps({"version": 1, "data": rows}, indent=1)),
        ("line.json", json.dumps({"version": 1, "data": rows})),
    ):
        (tmp_path / name).write_text(text)
        assert (
            tokenize(TokenizeRequest([tmp_path / name]), sharp_backend, "tiny", tmp_path / f"of-{name}").tally.num_kept
            == 2
        )


def test_a_source_without_rows_is_refused(sharp_backend: IllumeBackend, tmp_path: Path) -> None:
    for name, text in (("none.jsonl", " \n\n"), ("none.json", "[]")):
        (tmp_path / name).write_text(text)
        with pytest.raises(DataSourceError, match="it holds no rows"):
            tokenize(TokenizeRequest([tmp_path / name]), sharp_backend, "tiny", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_ids_that_a_row_gives_are_kept_if_this_tokenizer_made_them(
    sharp_backend: IllumeBackend, tmp_path: Path
) -> None:
    digest, ids = tokenizer_digest(sharp_backend), list(range(36))
    image = base64.b64encode(encoded(Image.new("RGB", (48, 48), "red"))).decode()

    def row(tokenizer: str, ids: list[int]) -> dict[str, object]:
        texts = "<image> assess a circle :", "no", "make it show a circle", "".join(f"<image_{i}>" for i in ids)
        turns = [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(texts)]
        return {"image": image, "messages": turns, "tokenizer": tokenizer}

    rows = [row(digest, ids), row("0" * 64, ids), row(digest, ids[:-1]), row(digest, [*ids[:-1], 10**9])]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    outcome = tokenize(TokenizeRequest([tmp_path / "rows.jsonl"], max_bad=1.0), sharp_backend, "tiny", tmp_path / "out")
    assert outcome.tally.left_out == {"image ids of another tokenizer": 1, "wrong image ids": 2}
    (kept,) = [Tokenised(tmp_path / "out")[0]]
    assert (kept.kind, kept.ids, len(kept.images)) == ("dialogue", (ids,), 1)
    assert kept.turns[3].text == "<image>"
