"""Three stages on tokenised sources: each trains what it says, a kill changes nothing, the result draws and reads."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from illume_loop.data.tokenizer import open_tokenizer, tokenizer_digest
from illume_loop.data.tokenizing import TokenizeRequest, tokenize
from illume_loop.domains.shapes.domain import ShapesDomain
from illume_loop.errors import (
    MixError,
    NotFoundError,
    OtherTokenizerError,
    RecipeChangedError,
    StageDamagedError,
    UsageError,
)
from illume_loop.models.illume.backend import IllumeBackend
from illume_loop.models.registry import load_model
from illume_loop.pretrain.register import Register
from illume_loop.pretrain.staged import run_stages
from illume_loop.pretrain.staged_recipe import StagedRecipe, load_recipe
from illume_loop.protocols import Sampling
from illume_loop.train.keeping import CHECKPOINT_PLAN
from tests.support.sources import write_sources

PAIRS, TEXTS = {"source": "all", "weight": 1.0}, {"source": "all", "weight": 0.2}
STAGES: list[dict[str, Any]] = [
    {
        "name": "stage1",
        "rates": {"adapter": 1e-3, "vision_rows": 2e-4},
        "mix": [{"task": "caption", **PAIRS}, {"task": "reconstruct", **PAIRS}],
    },
    {
        "name": "stage2",
        "rates": {"language": 5e-4, "adapter": 5e-4},
        "mix": [{"task": "caption", **PAIRS}, {"task": "text-to-image", **PAIRS}, {"task": "text", **TEXTS}],
    },
    {
        "name": "stage3",
        "rates": {"language": 2e-4, "adapter": 2e-4, "encoder": 2e-5},
        "max_slices": 9,
        "mix": [{"task": task, **PAIRS} for task in ("instruct", "edit", "text-to-image")],
    },
]


@pytest.fixture(scope="module")
def base(sharp_backend: IllumeBackend, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = Path(tmp_path_factory.mktemp("base"))
    sharp_backend.save(path)
    return path


@pytest.fixture(scope="module")
def tokens(sharp_backend: IllumeBackend, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(tmp_path_factory.mktemp("tokens"))
    sources = write_sources(folder / "sources")
    tokenize(TokenizeRequest(list(sources.values()), max_bad=0.5), sharp_backend, "tiny", folder / "ids")
    return folder / "ids"


def _recipe(tokens: Path, **changed: Any) -> StagedRecipe:
    stages = [{"steps": 4, "batch": 8} | stage for stage in STAGES]
    content = {"name": "tiny", "title": "t", "rows_at_once": 4, "sources": {"all": tokens}}
    return StagedRecipe.model_validate(content | {"stages": stages} | changed)


@pytest.fixture(scope="module")
def whole(base: Path, tokens: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All stages, four steps each, in one go."""
    out = Path(tmp_path_factory.mktemp("whole"))
    assert run_stages(_recipe(tokens), base, out) == out / "stage3"
    return out


def _weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


def _losses(folder: Path) -> list[float]:
    losses: list[float] = json.loads((folder / "losses.json").read_bytes())["losses"]
    return losses


def test_stage_1_moves_the_adapter_and_the_vision_rows_alone(base: Path, whole: Path) -> None:
    before, after = _weights(base), _weights(whole / "stage1")
    num_text_ids = load_model(base).model.config.num_text_ids  # type: ignore[attr-defined]
    for name, weights in before.items():
        if name.endswith(("embed_tokens.weight", "lm_head.weight")):
            assert torch.equal(after[name][:num_text_ids], weights[:num_text_ids]), f"text rows of {name} moved"
            assert not torch.equal(after[name][num_text_ids:], weights[num_text_ids:]), f"vision rows of {name} did not"
        else:
            assert torch.equal(after[name], weights) != ("adapter" in name), name


def test_stages_2_and_3_move_what_has_a_rate_and_the_ids_stay(base: Path, whole: Path) -> None:
    one, two, three = (_weights(whole / f"stage{number}") for number in (1, 2, 3))
    for before, after in ((one, two), (two, three)):
        for name, weights in before.items():
            if weights.ndim > 1:
                assert torch.equal(after[name], weights) == ("vision" in name), name
    readers = {name for name in three if ".reader." in name}
    assert readers
    assert not any(".reader." in name for name in two), "the copy is made where it is trained"
    moved = [
        name for name in readers if not torch.equal(three[name], two[name.replace(".reader.", ".vision.encoder.")])
    ]
    assert moved
    digests = {tokenizer_digest(open_tokenizer(path, "cpu")) for path in (base, whole / "stage1", whole / "stage3")}
    assert len(digests) == 1


def test_the_result_draws_and_reads_in_slices(whole: Path) -> None:
    model = load_model(whole / "stage3")
    assert isinstance(model, IllumeBackend)
    assert model.model.config.max_slices == 9
    ids = model.sample(["a red circle"], [0], Sampling(guidance_scale=1.5))
    assert model.decode(ids)[0].size == (48, 48)
    pair = ShapesDomain().real_pairs(1, 0)[0]
    assert float(model.log_likelihood([pair.image], [pair.caption])[0]) < 0


def test_a_killed_stage_ends_with_the_losses_and_weights_of_an_unbroken_one(
    base: Path, tokens: Path, whole: Path, tmp_path: Path
) -> None:
    recipe = _recipe(tokens, keep_every_seconds=0)
    shutil.copytree(whole / "stage1", tmp_path / "stage1")

    def die(stage: str, done: int, _total: int) -> None:
        if (stage, done) == ("stage2", 3):
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        run_stages(recipe, base, tmp_path, (), die)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert not (tmp_path / "stage2").exists()
    heard: list[tuple[str, int]] = []
    run_stages(recipe, base, tmp_path, ("stage1", "stage2"), lambda stage, done, _: heard.append((stage, done)))
    assert heard == [("stage2", 3), ("stage2", 4), ("stage2", 4)], "two steps were kept, the last is told once saved"
    assert _losses(tmp_path / "stage2") == _losses(whole / "stage2")
    one, two = _weights(tmp_path / "stage2"), _weights(whole / "stage2")
    assert all(torch.equal(one[name], two[name]) for name in two)
    assert not (tmp_path / "stage2.training").exists()


def test_how_a_step_is_cut_and_what_is_saved_changes_no_loss(
    base: Path, tokens: Path, whole: Path, tmp_path: Path
) -> None:
    """One pass of eight rows in the place of two of four; mixed precision, packing and labelled logits."""
    recipe = _recipe(tokens, rows_at_once=8, train={"savings": "bf16,checkpointing,packing,labelled-logits"})
    run_stages(recipe, base, tmp_path, ("stage1",))
    assert _losses(tmp_path / "stage1") == pytest.approx(_losses(whole / "stage1"), rel=1e-3)


@pytest.mark.cluster
@pytest.mark.timeout(1800)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("strategy", ["ddp", "zero2"])
def test_two_workers_on_ray_lose_what_one_process_loses_and_keep_the_text_rows(
    base: Path, tokens: Path, whole: Path, tmp_path: Path, strategy: str
) -> None:
    pytest.importorskip("ray", reason="the extra `cluster` is not installed")
    train = {"backend": "ray", "workers": 2, "strategy": strategy}
    run_stages(_recipe(tokens, rows_at_once=2, train=train), base, tmp_path, ("stage1",))
    assert _losses(tmp_path / "stage1") == pytest.approx(_losses(whole / "stage1"), rel=1e-3)
    before, after = _weights(base), _weights(tmp_path / "stage1")
    num_text_ids = load_model(base).model.config.num_text_ids  # type: ignore[attr-defined]
    for name in before:
        if name.endswith(("embed_tokens.weight", "lm_head.weight")):
            assert torch.equal(after[name][:num_text_ids], before[name][:num_text_ids])


def _changed(tokens: Path, number: int, **fields: Any) -> StagedRecipe:
    stages = [stage.model_dump() for stage in _recipe(tokens).stages]
    stages[number] |= fields
    return _recipe(tokens, stages=stages)


def test_another_recipe_does_not_go_on_with_what_is_there(base: Path, tokens: Path, whole: Path) -> None:
    with pytest.raises(RecipeChangedError, match=r"stage2 as it was begun otherwise \(stage\)"):
        run_stages(_changed(tokens, 1, steps=9), base, whole)
    with pytest.raises(RecipeChangedError, match=r"\(seed\)"):
        run_stages(_recipe(tokens, seed=1), base, whole)
    assert run_stages(_recipe(tokens, rows_at_once=8), base, whole) == whole / "stage3", "how it is run is no change"


def test_what_cannot_be_followed_is_refused_before_anything_is_trained(
    base: Path, tokens: Path, sharp_backend: IllumeBackend, tmp_path: Path
) -> None:
    with pytest.raises(MixError, match="a step of stage1 has 8 rows, which are no multiple of 3"):
        run_stages(_recipe(tokens, rows_at_once=3), base, tmp_path)
    with pytest.raises(NotFoundError, match="no tokenised data in"):
        run_stages(_recipe(tmp_path / "none"), base, tmp_path)
    with pytest.raises(NotFoundError, match="no stage 'stage9'"):
        run_stages(_recipe(tokens), base, tmp_path, ("stage9",))
    other = IllumeBackend.load(base, "cpu")
    with torch.no_grad():
        other.model.model.vision.quantizer.codebook.neg_()
    other.save(tmp_path / "other")
    with pytest.raises(OtherTokenizerError, match="tokenise the sources with this model"):
        run_stages(_recipe(tokens), tmp_path / "other", tmp_path)
    (tmp_path / "texts.jsonl").write_text('{"text": "a red circle"}\n')
    tokenize(TokenizeRequest([tmp_path / "texts.jsonl"]), sharp_backend, "tiny", tmp_path / "texts")
    nothing = [{"task": "assess", "source": "texts", "weight": 1.0}]
    stage = {"name": "s", "steps": 1, "batch": 4, "rates": {"adapter": 1e-3}, "mix": nothing}
    empty = _recipe(tokens, sources={"texts": tmp_path / "texts"}, stages=[stage])
    with pytest.raises(MixError, match="part 0 has no rows"):
        run_stages(empty, base, tmp_path / "out")


def test_a_stage_goes_on_from_what_is_registered_and_whole_or_says_what_is_damaged(tmp_path: Path) -> None:
    asked = {"seed": 0}
    register = Register(tmp_path / "stage1.training", "stage1", asked)
    with register.keeping(60.0):
        keeping = CHECKPOINT_PLAN.get()
        assert keeping is not None
        for step in (1, 2, 3):
            (keeping.folder / str(step)).mkdir(parents=True)
            (keeping.folder / str(step) / "optimizer.pt").write_bytes(bytes(100 + step))
            keeping.keep(step, keeping.folder / str(step))
    assert not (keeping.folder / "1").exists(), "two are kept"
    (keeping.folder / "3" / "optimizer.pt").write_bytes(b"x")
    with Register(tmp_path / "stage1.training", "stage1", asked).keeping(60.0):
        assert [kept.step for kept in CHECKPOINT_PLAN.get().kept] == [2]  # type: ignore[union-attr]
    (keeping.folder / "2" / "optimizer.pt").unlink()
    with (
        pytest.raises(StageDamagedError, match=r"stage1 cannot go on.*3/optimizer\.pt; .*2/optimizer\.pt"),
        Register(tmp_path / "stage1.training", "stage1", asked).keeping(60.0),
    ):
        pass
    with pytest.raises(RecipeChangedError, match=r"\(seed\)"):
        Register(tmp_path / "stage1.training", "stage1", {"seed": 1})


def test_the_shipped_recipe_is_the_papers_table() -> None:
    recipe = load_recipe("illume")
    table = [(stage.steps, stage.batch, stage.rates.model_dump()) for stage in recipe.stages]
    none = {"adapter": 0.0, "vision_rows": 0.0, "language": 0.0, "encoder": 0.0}
    assert table == [
        (5_000, 256, none | {"adapter": 1e-3, "vision_rows": 2e-4}),
        (15_000, 1024, none | {"adapter": 5e-5, "language": 5e-5}),
        (8_000, 1024, none | {"adapter": 2e-5, "language": 2e-5, "encoder": 2e-6}),
    ]
    assert [stage.max_slices for stage in recipe.stages] == [1, 1, 9]
    assert all(abs(sum(part.weight for part in stage.mix) - 1.0) < 1e-9 for stage in recipe.stages)
    assert all(stage.text_dropout == 0.1 for stage in recipe.stages)
    assert recipe.settings().saves


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda text: text.replace("steps = 5_000", "steps = 0"), "stages.0.steps"),
        (lambda text: text.replace("adapter = 1e-3,", "adaptor = 1e-3,"), "stages.0.rates.adaptor"),
        (lambda text: text.replace('source = "edits"', 'source = "edit"'), "none of the sources"),
        (lambda text: text.replace("adapter = 1e-3", "language = 1e-3"), "only one of the two has a rate"),
        (lambda text: text.replace("title =", "title"), "it is not TOML"),
        (lambda text: text.replace('"stage2"', '"stage1"'), "two stages have the same name"),
    ],
)
def test_a_recipe_is_checked_whole(tmp_path: Path, change: Callable[[str], str], sentence: str) -> None:
    import illume_loop.pretrain

    shipped = Path(illume_loop.pretrain.__path__[0]) / "recipes" / "illume.toml"
    (tmp_path / "mine.toml").write_text(change(shipped.read_text()))
    with pytest.raises(MixError) as caught:
        load_recipe(str(tmp_path / "mine.toml"))
    assert sentence in str(caught.value)


def test_a_model_is_asked_for_where_a_recipe_needs_one(tmp_path: Path) -> None:
    from illume_loop.cli.pretrain import pretrain

    with pytest.raises(UsageError, match="name one with --model"):
        pretrain(tmp_path, "illume", None, None)
    with pytest.raises(UsageError, match="from nothing"):
        pretrain(tmp_path, "shapes", None, "shapes-base")
