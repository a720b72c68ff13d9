"""An export read back, by `datasets` and by TRL's trainers, equals the database row by row, in every format."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import pytest
from PIL import Image
from sqlalchemy import select
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from illume_db.reviews import NewReview, put_review
from illume_db.samples import sample_detail
from illume_db.tables import Assessment, Example, Manifest, Prompt, Review, Round, Sample
from illume_loop.exports.formats import FORMATS
from illume_loop.exports.tables import IMAGE_TOKEN, TABLES, image_text
from illume_loop.exports.writing import ExportRequest, export
from illume_loop.judge.instructions import correction, critique
from illume_loop.loop.run_directory import OpenRun, open_run
from tests.support.canned_run import small_settings, start

Row = dict[str, Any]


@pytest.fixture(scope="module", autouse=True)
def _caches_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
        yield


@pytest.fixture(scope="module")
def preferring(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("preferring")
    start(small_settings(folder / "base", train__objective="dpo", curate__pair_margin=0.5), folder / "run")
    with open_run(folder / "run", writing=True) as run:
        for sample, verdict in ((3, "agree"), (30, "skip"), (4, "disagree")):
            criteria = {"object": False} if verdict == "disagree" else {}
            review = NewReview("ann", verdict, criteria, "says: ännchen", "random")
            assert put_review(run.session, sample, review, replace=False)
        run.session.commit()
    return folder / "run"


@pytest.fixture(scope="module")
def assessing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("assessing")
    settings = small_settings(folder / "base", train__objective="assess-sft", assess__critiques=True, run__rounds=1)
    start(settings, folder / "run")
    return folder / "run"


@contextmanager
def _exported(run_dir: Path, out: Path, request: ExportRequest) -> Iterator[OpenRun]:
    with open_run(run_dir) as run:
        counts = export(run, request, out)
        assert list(counts) == list(request.tables)
        yield run


def _loaded(out: Path, name: str) -> Callable[[str], list[Row]]:
    """Reads a table as the card says, images as (width, height, pixels)."""

    def load(table: str) -> list[Row]:
        code = FORMATS[name].loaded.format(path=out, table=table)
        return [dict(row) for row in eval(code, {"datasets": datasets})]

    return load


def _pixels(image: Image.Image) -> tuple[tuple[int, int], bytes]:
    return image.size, image.convert("RGB").tobytes()


def _expected_samples(run: OpenRun) -> list[Row]:
    ids = run.session.scalars(select(Sample.id).order_by(Sample.id))
    details = [sample_detail(run.session, run.run_id, id_) for id_ in ids]
    expected = []
    for row in details:
        assert row is not None
        edit = row.pop("edit") or dict.fromkeys(("instruction", "target", "source_sha256"))
        row.pop("assessments")
        expected.append(row | edit)
    return expected


@pytest.mark.parametrize("name", ["parquet", "datasets", "jsonl"])
def test_every_table_is_the_database(preferring: Path, tmp_path: Path, name: str) -> None:
    with _exported(preferring, tmp_path / "out", ExportRequest(name, shard_rows=10)) as run:
        load = _loaded(tmp_path / "out", name)
        samples, expected = load("samples"), _expected_samples(run)
        images, sources = ([row.pop(column) for row in samples] for column in ("image", "source"))
        assert not any(sources)
        assert samples == expected
        for row, image in zip(expected, images, strict=True):
            shown = Image.open(tmp_path / "out" / image) if name == "jsonl" else image
            assert _pixels(shown) == _pixels(run.images.read(row["image_sha256"]))
        query = select(Assessment).order_by(Assessment.id)
        for row, told in zip(load("assessments"), run.session.scalars(query), strict=True):
            assert (row["id"], row["sample"], row["assessor"]) == (told.id, told.sample_id, told.assessor)
            assert (row["state"], row["score"], row["failed"]) == (told.state, told.score, told.failed_criteria)
            assert (row["error"], row["probability"]) == (told.error, told.probability)
            assert json.loads(row["details"]) == told.details
            assert (row["critique"] and json.loads(row["critique"])) == told.critique
        for row, told in zip(load("reviews"), run.session.scalars(select(Review).order_by(Review.id)), strict=True):
            assert (row["id"], row["sample"], row["reviewer"]) == (told.id, told.sample_id, told.reviewer)
            assert (row["verdict"], row["comment"], row["reason"]) == (told.verdict, told.comment, told.reason)
            assert (json.loads(row["criteria"]), row["created_at"]) == (told.criteria, told.created_at.isoformat())
            assert row["round"] == (1 if told.sample_id <= 18 else 2)
        rows = run.session.execute(
            select(Example, Round.index, Manifest.sha256)
            .join(Manifest, Manifest.id == Example.manifest_id)
            .join(Round, Round.id == Manifest.round_id)
            .order_by(Round.index, Example.position)
        )
        for row, (example, index, sha256) in zip(load("manifests"), rows, strict=True):
            assert (row["round"], row["position"], row["kind"], row["text"]) == (
                index,
                example.position,
                example.kind,
                example.text,
            )
            assert (row["sample"], row["rejected"], row["real_index"], row["answer"]) == (
                example.sample_id,
                example.rejected_id,
                example.real_index,
                example.answer,
            )
            assert (row["ids_sha256"], row["rejected_sha256"], row["manifest_sha256"]) == (
                example.ids_sha256,
                example.rejected_sha256,
                sha256,
            )


def test_a_folder_of_datasets_opens_as_a_whole(preferring: Path, tmp_path: Path) -> None:
    with _exported(preferring, tmp_path / "out", ExportRequest("datasets")):
        whole = datasets.load_from_disk(str(tmp_path / "out"))
        assert {name: len(table) for name, table in whole.items()}["samples"] == 36
        assert isinstance(whole["samples"][0]["image"], Image.Image)


def test_a_webdataset_is_the_database(preferring: Path, tmp_path: Path) -> None:
    with _exported(preferring, tmp_path / "out", ExportRequest("webdataset", shard_rows=10)) as run:
        rows = _loaded(tmp_path / "out", "webdataset")("samples")
        expected = _expected_samples(run)
        assert len(rows) == len(expected)
        for row, sample in zip(rows, expected, strict=True):
            assert {key: value for key, value in row["json"].items() if key not in ("image", "source")} == sample
            assert _pixels(row["png"]) == _pixels(run.images.read(sample["image_sha256"]))
        pairs = _loaded(tmp_path / "out", "webdataset")("preference")
        assert {tuple(row["json"]) for row in pairs} == {tuple(TABLES["preference"].features)}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """One that writes each character as a token, and knows the image tokens of the canned backend as added ones."""
    characters = [chr(code) for code in range(32, 127)]
    vocabulary = {token: index for index, token in enumerate(["<pad>", "<eos>", *characters])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=" "))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    made = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>", unk_token=" ")
    made.add_tokens([IMAGE_TOKEN.format(token) for token in range(4096)])
    return made


@pytest.fixture(scope="module")
def tiny_model(tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint: TRL loads the reference from where the model came from."""
    folder = str(tmp_path_factory.mktemp("tiny"))
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder)
    return folder


def _arguments(folder: Path) -> Row:
    return {
        "output_dir": str(folder),
        "max_steps": 1,
        "max_length": None,
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "activation_checkpointing": False,
        "dataloader_pin_memory": False,
    }


def _image_ids(tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> list[int]:
    first = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN.format(0))
    return [token - first for token in ids if token >= first]


def _of_last_manifest(run: OpenRun, kinds: tuple[str, ...]) -> list[Example]:
    last = run.session.scalars(select(Manifest.id).order_by(Manifest.id.desc())).first()
    query = select(Example).where(Example.manifest_id == last, Example.kind.in_(kinds), Example.sample_id.is_not(None))
    return list(run.session.scalars(query.order_by(Example.position)))


@pytest.mark.parametrize("name", ["jsonl", "parquet"])
def test_trl_trains_on_preferences_that_are_the_database(
    preferring: Path, tmp_path: Path, tokenizer: PreTrainedTokenizerFast, tiny_model: str, name: str
) -> None:
    with _exported(preferring, tmp_path / "out", ExportRequest(name, ("preference",))) as run:
        table = datasets.load_dataset(str(tmp_path / "out"), "preference", split="train")
        trainer = DPOTrainer(
            model=tiny_model,
            args=DPOConfig(**_arguments(tmp_path / "t")),
            train_dataset=table,
            processing_class=tokenizer,
        )
        trainer.train()
        pairs = _of_last_manifest(run, ("pair",))
        assert len(pairs) > 5
        for row, pair in zip(trainer.train_dataset, pairs, strict=True):
            chosen, rejected = (run.session.get_one(Sample, id_) for id_ in (pair.sample_id, pair.rejected_id))
            assert tokenizer.decode(row["prompt_ids"]).replace(" ", "") == pair.text.replace(" ", "")
            assert _image_ids(tokenizer, row["chosen_ids"]) == chosen.image_ids.tolist()
            assert _image_ids(tokenizer, row["rejected_ids"]) == rejected.image_ids.tolist()
            assert row["chosen_ids"][-1] == tokenizer.eos_token_id


def test_trl_trains_on_completions_that_are_the_database(
    preferring: Path, tmp_path: Path, tokenizer: PreTrainedTokenizerFast, tiny_model: str
) -> None:
    with _exported(preferring, tmp_path / "out", ExportRequest("jsonl", ("sft",))) as run:
        trainer = SFTTrainer(
            model=tiny_model,
            args=SFTConfig(**_arguments(tmp_path / "t")),
            train_dataset=datasets.load_dataset(str(tmp_path / "out"), "sft", split="train"),
            processing_class=tokenizer,
        )
        trainer.train()
        examples = list({row.sample_id: row for row in reversed(_of_last_manifest(run, ("draw", "pair")))}.values())
        for row, example in zip(trainer.train_dataset, reversed(examples), strict=True):
            sample = run.session.get_one(Sample, example.sample_id)
            assert _image_ids(tokenizer, row["input_ids"]) == sample.image_ids.tolist()
            prompt = run.session.get_one(Prompt, sample.prompt_id)
            learned = [token for token, label in zip(row["input_ids"], row["labels"], strict=True) if label != -100]
            assert _image_ids(tokenizer, learned) == sample.image_ids.tolist()
            assert len(row["input_ids"]) == len(prompt.text) + len(sample.image_ids) + 1


def test_rows_that_read_have_their_image_and_their_answer(assessing: Path, tmp_path: Path) -> None:
    with _exported(assessing, tmp_path / "out", ExportRequest("parquet", ("vision-sft",))) as run:
        rows = _loaded(tmp_path / "out", "parquet")("vision-sft")
        examples = _of_last_manifest(run, ("read", "assess", "correct"))
        assert {row["kind"] for row in rows} == {"read", "assess", "correct"}
        for row, example in zip(rows, examples, strict=True):
            corrected = example.kind == "correct"
            sample = run.session.get_one(Sample, example.sample_id)
            shown = run.session.get_one(Sample, example.rejected_id) if corrected else sample
            (image,) = row["images"]
            assert _pixels(image) == _pixels(run.images.read(shown.image_sha256))
            ((asked,), (told, *more)) = row["prompt"], row["completion"]
            texts = [part["text"] for part in asked["content"] if part["type"] == "text"]
            assert texts == ([] if example.answer is None else [critique(example.text)])
            answer = example.text if example.answer is None else example.answer
            second = [correction(example.text), image_text(sample.image_ids.tolist())] if corrected else []
            assert [turn["role"] for turn in (told, *more)] == ["assistant", "user", "assistant"][: 1 + len(second)]
            said = [part for turn in (told, *more) for part in turn["content"]]
            assert said == [{"type": "text", "text": text} for text in (answer, *second)]
            assert row["tokenizer"] == "", "no data is tokenised for the canned backend"


def test_edits_have_their_source_and_their_instruction(tmp_path: Path) -> None:
    values = {"run__rounds": 1, "run__seed": 2, "sampling__edit_share": 0.5, "sampling__prompts_per_round": 12}
    start(small_settings(tmp_path / "base", **values), tmp_path / "run")
    with _exported(tmp_path / "run", tmp_path / "out", ExportRequest("parquet", ("samples", "vision-sft"))) as run:
        load = _loaded(tmp_path / "out", "parquet")
        rows, expected = load("samples"), _expected_samples(run)
        edits = [row for row in rows if row["instruction"]]
        assert 0 < len(edits) < len(rows)
        for row, sample in zip(rows, expected, strict=True):
            assert {name: row[name] for name in sample} == sample
            source = sample["source_sha256"]
            assert (row["source"] and _pixels(row["source"])) == (source and _pixels(run.images.read(source)))
        learned = [row for row in load("vision-sft") if row["kind"] == "edit"]
        assert learned
        by_id = {row["id"]: row for row in rows}
        for row in learned:
            edit = by_id[row["sample"]]
            assert _pixels(row["images"][0]) == _pixels(edit["source"])
            assert row["prompt"][0]["content"][1]["text"] == edit["instruction"]
            assert row["completion"][0]["content"][0]["text"] == image_text(edit["image_ids"])


def test_a_png_is_the_one_that_was_stored(preferring: Path, tmp_path: Path) -> None:
    with _exported(preferring, tmp_path / "out", ExportRequest("parquet", ("samples",))) as run:
        table = datasets.load_dataset(str(tmp_path / "out"), "samples", split="train")
        raw = table.cast_column("image", datasets.Image(decode=False))[0]
        assert raw["image"]["bytes"] == run.images.read_bytes(raw["image_sha256"])
        assert Image.open(io.BytesIO(raw["image"]["bytes"])).format == "PNG"
