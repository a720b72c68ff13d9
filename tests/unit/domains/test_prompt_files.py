"""Files of prompts as spreadsheets, scripts and people write them: read as what they are, or refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from illume_loop.domains.text.detecting import detected
from illume_loop.domains.text.formats import Source, read_prompts
from illume_loop.domains.text.prompt_set import read_prompt_set
from illume_loop.errors import PromptFileError

CAT, JUGS = ("a cat", "animals"), ("Two jugs, one tall", "things")


def _read(path: Path, column: str | None = None, category_column: str | None = None) -> list[tuple[str, str]]:
    source = Source(path, detected(path), None, column, category_column)
    return [(prompt.text, prompt.category) for _, prompt in read_prompts(source)]


def _json(value: object) -> str:
    return json.dumps(value, indent=1)


OBJECTS = [{"Prompt": "a cat", "Category": "animals"}, {"Prompt": "Two jugs, one tall", "Category": "things"}]
TABLES = [
    ("a.csv", 'prompt,category\na cat,animals\n"Two jugs, one tall",things\n'),
    ("a.csv", 'item_id,text,category_broad\n1,a cat,animals\n2,"Two jugs,\n one tall",things\n'),
    ("a.csv", "\ufeffPrompt;Category;Note\r\na cat;animals;\r\n\r\nTwo jugs, one tall;things;x\r\n;;\r\n"),
    ("a.csv", "sep=;\nprompt;category\na cat;animals\nTwo jugs, one tall;things\n"),
    ("a.csv", '"prompt"|"type"\na cat|animals\nTwo jugs, one tall|things'),
    ("a.CSV", "prompt\tcategory\na cat\tanimals\nTwo jugs, one tall\tthings"),
    ("a.txt", 'prompt,category\na cat,animals\n"Two jugs, one tall",things\n'),
    ("a.tsv", "id\tcaption\ttag\n1\ta cat\tanimals\n2\tTwo jugs, one tall\tthings\n"),
    ("a.tsv", 'prompt\tcategory\na cat\tanimals\n"Two jugs, one tall"\tthings\n'),
    ("a.tsv", 'prompt\tcategory\na cat\tanimals\n"Two jugs,\none tall"\tthings\n'),
    ("a", "prompt\tcategory\na cat\tanimals\nTwo jugs, one tall\tthings\n"),
    ("a.json", _json(OBJECTS)),
    ("a.json", json.dumps(OBJECTS)),
    ("a.txt", _json(OBJECTS)),
    ("a.jsonl", json.dumps(OBJECTS)),
    ("a.json", "".join(json.dumps(row) + "\n" for row in OBJECTS)),
    ("a.jsonl", "\n".join(json.dumps({"id": 1} | row) + "\n  " for row in OBJECTS)),
    ("a.ndjson", "\n".join(json.dumps({"text": row["Prompt"], "tag": row["Category"]}) for row in OBJECTS)),
    ("a.json", _json({"name": "mine", "prompts": OBJECTS})),
    ("a.json", json.dumps({"version": 1, "prompts": OBJECTS})),
    ("a.json", _json({"meta": {"version": 1, "data": {"items": OBJECTS}}, "n": 2})),
    ("a.json", _json({"1": OBJECTS[0], "2": OBJECTS[1]})),
    ("a.json", _json({"animals": ["a cat"], "things": ["Two jugs, one tall"]})),
    ("a.json", _json({"prompt": ["a cat", "Two jugs, one tall"], "category": ["animals", "things"]})),
    (
        "a.json",
        _json({"prompt": {"0": "a cat", "1": "Two jugs, one tall"}, "category": {"0": "animals", "1": "things"}}),
    ),
    ("a.yaml", "prompts:\n- prompt: a cat\n  category: animals\n- {prompt: 'Two jugs, one tall', category: things}\n"),
    ("a.yml", "animals:\n  - a cat\nthings:\n  - Two jugs, one tall\n"),
]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
@pytest.mark.parametrize(("name", "text"), TABLES)
def test_structured_files_are_read_by_what_they_hold(tmp_path: Path, name: str, text: str, encoding: str) -> None:
    path = tmp_path / name
    path.write_bytes(text.removeprefix("\ufeff").encode(encoding))
    assert _read(path) == [CAT, JUGS]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", '["a cat", "a dog"]'),
        ("a.json", '[\n  "a cat",\n  "a dog"\n]\n'),
        ("a.txt", '["a cat", "a dog"]'),
        ("a.json", '{"prompts": ["a cat", "a dog"]}'),
        ("a.txt", '{"prompts": ["a cat", "a dog"]}'),
        ("a.json", '{"0": "a cat", "1": "a dog"}'),
        ("a.json", '{\n"p_1": "a cat",\n"p_2": "a dog"}'),
        ("a.jsonl", '"a cat"\n"a dog"\n'),
        ("a.yaml", "- a cat\n- a dog\n"),
        ("a.csv", "prompt\na cat\na dog\n"),
        ("a.csv", "Sentences\r\na cat\r\na dog"),
        ("a.txt", "text\na cat\na dog\n"),
        ("a.tsv", "prompt\na cat\na dog\n"),
        ("a.txt", "a cat\r\na dog\r\n"),
        ("a.md", "a cat\n\n  a dog\n"),
        ("a", "a cat\na dog"),
    ],
)
def test_lists_have_the_category_of_their_file(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert _read(tmp_path / name) == [("a cat", "a"), ("a dog", "a")]


def test_what_looks_like_a_prompt_is_one(tmp_path: Path) -> None:
    lines = ["[photo] a cat", '"Hello" on a sign', "a poster: hello", "3 cats, 2 dogs", "{big} dog", "a, b and c"]
    (tmp_path / "a.txt").write_text("\n".join(lines))
    assert [text for text, _ in _read(tmp_path / "a.txt")] == lines


def test_columns_can_be_named(tmp_path: Path) -> None:
    for name, text in (
        ("a.csv", "id,scene,kind,prompt\n1,a cat,animals,x\n2,'a dog',,y\n"),
        ("a.tsv", "scene\tkind\na cat\tanimals\n'a dog'\t\n"),
        ("a.jsonl", '{"scene": "a cat", "kind": "animals"}\n{"scene": "\'a dog\'", "kind": null}\n'),
        ("a.json", '[{"scene": "a cat", "kind": "animals"}, {"scene": "\'a dog\'", "kind": ""}]'),
    ):
        (tmp_path / name).write_text(text)
        assert _read(tmp_path / name, "scene", "kind") == [CAT, ("'a dog'", "a")]
        with pytest.raises(PromptFileError, match=r"it has .*scene"):
            _read(tmp_path / name, "senc")


def test_parquet_is_read(tmp_path: Path) -> None:
    rows = {"id": [1, 2], "Prompt": ["a cat", "Two jugs, one tall"], "Category": ["animals", "things"]}
    table = pa.table(rows)
    parquet.write_table(table, tmp_path / "a.parquet")
    parquet.write_table(table.set_column(2, "category", table["Category"].dictionary_encode()), tmp_path / "b")
    assert _read(tmp_path / "a.parquet") == _read(tmp_path / "b") == [CAT, JUGS]
    parquet.write_table(pa.table({"a": ["x"], "b": ["y"]}), tmp_path / "c.parquet")
    with pytest.raises(PromptFileError, match=r"it has 'a', 'b'\); name the one that does with --column"):
        _read(tmp_path / "c.parquet")
    parquet.write_table(pa.table({"id": [1], "prompt": pa.array([None], pa.string())}), tmp_path / "d.parquet")
    with pytest.raises(PromptFileError, match="row 1: the prompt is empty"):
        _read(tmp_path / "d.parquet")
    (tmp_path / "e.parquet").write_bytes(b"PAR1")
    with pytest.raises(PromptFileError):
        _read(tmp_path / "e.parquet")


def test_benchmarks_as_json_keep_their_questions(tmp_path: Path) -> None:
    spec = {"tag": "counting", "include": [{"class": "clock", "count": 2}], "prompt": "a photo of two clocks"}
    (tmp_path / "a.json").write_text(json.dumps([spec, {"prompt": "a cat", "split": "train", "spec": {}}], indent=1))
    (first, one), (second, _) = read_prompts(Source(tmp_path / "a.json", detected(tmp_path / "a.json")))
    assert (first, second) == (None, "train")
    assert one.spec["include"] == spec["include"]


REFUSED = [
    ("a.csv", "1,a cat\n2,a dog\n", "it has '1', 'a cat'); name the one that does with --column"),
    ("a.csv", "id,scene,kind\n1,a cat,x\n", "it has 'id', 'scene', 'kind'); name the one that does with --column"),
    ("a.csv", "prompt,category\na cat,on a mat,animals\nb,c,d\n", "line 2: it has 3 columns and the header has 2"),
    ("a.csv", 'prompt,category\na cat,x\n"a dog,y\n', "line 3: it is no row of a table"),
    ("a.csv", "prompt,category\n ,x\n", "line 2: the prompt is empty"),
    ("a.json", "[\n {", "it is no JSON"),
    ("a.txt", "[\n {", "it is no JSON"),
    ("a.json", "{\n", "it is no JSON"),
    ("a.json", "a cat\n", "it is no JSON"),
    ("a.json", '{"title": "x", "author": "y"}', "it is not clear which of its keys"),
    ("a.json", '{"train": ["a cat"], "test": ["a dog"]}', "it is not clear which of its keys"),
    ("a.json", '{"columns": ["prompt"], "data": [["a cat"]]}', "neither a text nor an object"),
    ("a.json", '[["a cat", "x"]]', "neither a text nor an object"),
    ("a.json", '["a cat", 3]', "[1]: it is 3, neither a text nor an object"),
    ("a.json", '[{"scene": "a cat"}]', "it has scene); name the one that does with --column"),
    ("a.json", '[{"prompt": ["a cat"]}]', "'prompt' must be a text"),
    ("a.json", "3", "it is one value"),
    ("a.json", "[]", "it holds no prompt"),
    ("a.json", "[" * 100_000, "it is no JSON"),
    ("a.jsonl", '{"scene": "a cat"}\n{"scene": "a dog"}\n', "line 1: none of its keys is known to hold a prompt"),
    ("a.yaml", "a: [", "it is no YAML"),
    ("a.yaml", "- yes\n- a cat\n", "[0]: it is true, neither"),
    ("a.xml", "<prompts>\n<p>a cat</p>\n</prompts>", "looks like XML or HTML"),
    ("a.txt", "prompts:\n  - a cat\n", "looks like YAML"),
    ("a.txt", "- a cat\n- a dog\n", "looks like a list with marks"),
    ("a.txt", "1. a cat\n2. a dog\n", "looks like a numbered list"),
    ("a.txt", "1,a cat\n2,a dog\n", "looks like a table without a header"),
    ("a.txt", "p1\ta cat\np2\ta dog\n", "looks like a table without a"),
    ("a.txt", '"a cat",\n"a dog",\n', "looks like a list of quoted texts"),
    ("a.md", "# Prompts\n\na cat\n", "looks like Markdown or a script"),
    ("a.py", "prompts = [\n'a cat',\n]\n", "looks like a program"),
    ("a.py", "a cat\na dog\n", "its name ends in .py"),
    ("a.toml", "[prompts]\na = 'a cat'\n", "looks like TOML or INI"),
]


@pytest.mark.parametrize(("name", "text", "told"), REFUSED)
def test_what_is_not_clear_is_refused(tmp_path: Path, name: str, text: str, told: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(PromptFileError) as caught:
        _read(tmp_path / name)
    assert told in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("magic", [b"PK\x03\x04", b"\x1f\x8b\x08", b"%PDF-1.7", b"ARROW1\0\0", b"\xd0\xcf\x11\xe0"])
def test_binary_files_are_named_as_what_they_are(tmp_path: Path, magic: bytes) -> None:
    (tmp_path / "a.csv").write_bytes(magic + b"\0" * 20)
    with pytest.raises(PromptFileError, match=r"it is (a|an|compressed) "):
        _read(tmp_path / "a.csv")


def test_a_folder_of_lists_is_no_folder_of_prompts(tmp_path: Path) -> None:
    (tmp_path / "color_train.txt").write_text("a red car\na blue car\n")
    with pytest.raises(PromptFileError, match="name the files themselves"):
        _read(tmp_path)
    (tmp_path / "color_train.txt").rename(tmp_path / "mine.txt")
    (tmp_path / "mine.txt").write_text("a red car\n" * 30)
    with pytest.raises(PromptFileError, match="name the files themselves"):
        _read(tmp_path)


def test_a_file_that_is_no_set_says_how_to_make_one(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("prompt\na cat\n")
    with pytest.raises(
        PromptFileError, match=r"no prompt set but csv; make a set of it with `illume-loop prompts import"
    ):
        read_prompt_set(tmp_path / "a.csv")
