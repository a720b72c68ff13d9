"""Prompts that people bring: in one split each, balanced over categories, with the questions that their specs tell."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from illume_loop.domains import get_domain
from illume_loop.domains.text.domain import TextDomain
from illume_loop.domains.text.keys import key_of
from illume_loop.domains.text.prompt_set import Import, PromptSet, merged, read_prompt_set, write_prompt_set
from illume_loop.domains.text.spec import questions_of_spec
from illume_loop.errors import NoCheckerError, NotFoundError, PromptFileError, PromptOutsideGrammarError, UsageError
from illume_loop.protocols import Prompt, Split


def _prompts(texts: str, category: str = "c") -> list[Prompt]:
    return [Prompt(text, category, key_of(text), {}) for text in texts.split("|")]


def _set(**of_split: str) -> PromptSet:
    found = PromptSet()
    for split, texts in of_split.items():
        found = merged(found, split, _prompts(texts)).prompts  # type: ignore[arg-type]
    return found


def _texts(found: Import | PromptSet, split: Split) -> list[str]:
    prompts = found.prompts if isinstance(found, Import) else found
    return [prompt.text for prompt in prompts.of_split.get(split, ())]


def test_the_same_picture_has_one_key() -> None:
    assert key_of("A photo of  two Clocks.") == key_of("two clocks") == key_of("an image with two clocks")
    assert key_of("two clocks") != key_of("three clocks")
    assert key_of("a photo of") == "a photo of", "an opening alone is no opening"
    long = "word " * 100
    assert key_of(long) != key_of(f"{long} more")
    assert len(key_of(long)) <= 256


def test_what_is_held_out_is_kept_out_of_training_and_named() -> None:
    heldout = _set(heldout="a photo of two bicycles|a photo of a bench")
    into_train = merged(heldout, "train", _prompts("two bicycles|three cups|three cups"))
    assert _texts(into_train, "train") == ["three cups"]
    (out,) = into_train.kept_out
    assert (out.text, out.split) == ("two bicycles", "train")
    assert (out.other_text, out.other_split) == ("a photo of two bicycles", "heldout")
    assert (into_train.num_added, into_train.num_known) == (1, 1)

    into_heldout = merged(_set(train="two bicycles|three cups"), "heldout", _prompts("A photo of two bicycles."))
    assert _texts(into_heldout, "train") == ["three cups"], "whichever came first"
    assert [out.text for out in into_heldout.kept_out] == ["two bicycles"]

    into_probe = merged(
        _set(heldout="a bench", train="a cup"), "probe", _prompts("a photo of a bench|a photo of a cup")
    )
    assert _texts(into_probe, "probe") == ["a photo of a cup"]
    assert [(out.text, out.split) for out in into_probe.kept_out] == [
        ("a photo of a bench", "probe"),
        ("a cup", "train"),
    ]
    assert into_probe.num_added == 1


def test_a_set_is_read_as_it_was_written(tmp_path: Path) -> None:
    spec = {"include": [{"class": "bär", "count": 1}]}
    before = merged(_set(heldout="a bench"), "train", [Prompt("ein Bär", "d", key_of("ein Bär"), spec)]).prompts
    write_prompt_set(tmp_path / "set.jsonl", before)
    assert read_prompt_set(tmp_path / "set.jsonl") == before
    assert before.counts() == [("heldout", "c", 1, 0), ("train", "d", 1, 1)]
    with (tmp_path / "set.jsonl").open("a") as file:
        file.write('{"prompt": "A bench.", "split": "train"}\n')
    with pytest.raises(PromptFileError, match=r"'A bench\.' \(train\) and 'a bench' \(heldout\) are of two splits"):
        read_prompt_set(tmp_path / "set.jsonl")
    (tmp_path / "set.jsonl").write_text('{"prompt": "a bench"}\n')
    with pytest.raises(PromptFileError, match="line 1: it has no split"):
        read_prompt_set(tmp_path / "set.jsonl")


def test_prompts_are_balanced_and_do_not_depend_on_the_order_of_the_file() -> None:
    many = merged(PromptSet(), "train", _prompts("a|b|c|d|e|f|g", "large") + _prompts("x|y", "small")).prompts
    domain = TextDomain(many)
    chosen = domain.prompts("train", 9, 3)
    assert sorted(p.category for p in chosen[:4]) == ["large", "large", "small", "small"]
    assert domain.prompts("train", 4, 3) == chosen[:4]
    backwards = TextDomain(PromptSet({"train": many.of_split["train"][::-1]}))
    assert backwards.prompts("train", 9, 3) == chosen
    assert domain.prompts("train", 9, 4) != chosen
    with pytest.raises(UsageError, match="has 9 prompts in the split 'train', 10 were asked for; import more"):
        domain.prompts("train", 10, 3)


def test_questions_follow_from_metadata() -> None:
    def asked(text: str, **spec: object) -> list[tuple[str, str]]:
        return [(question.criterion, question.text) for question in questions_of_spec(spec, text)]

    clocks = {"include": [{"class": "clock", "count": 2}], "exclude": [{"class": "clock", "count": 3}]}
    assert asked("a photo of two clocks", tag="counting", **clocks) == [
        ("object", "Is there a clock in the image?"),
        ("count", "Are there exactly two clocks in the image?"),
    ]
    assert asked("knives", include=[{"class": "knife", "count": 3}])[1] == (
        "count",
        "Is the number of objects of this kind in the image at least three: knife?",
    )
    assert asked("a blue apple", include=[{"class": "apple", "count": 1, "color": "blue"}]) == [
        ("object", "Is there an apple in the image?"),
        ("color", "Is anything in the image blue?"),
        ("attribute", "Is the apple blue?"),
    ]
    dog = [{"class": "bench", "count": 1}, {"class": "dog", "count": 1, "position": ["right of", 0]}]
    assert asked("a dog right of a bench", include=dog)[-1] == ("position", "Is the dog right of the bench?")
    own = [{"criterion": "object", "question": "Is it a bench?"}]
    assert asked("a bench", include=dog, questions=own) == [("object", "Is it a bench?")]


def test_partners_differ_in_one_word() -> None:
    domain = TextDomain(_set(train="a red car|a blue car|a red bus|A red car.|two red cars", heldout="a green car"))
    (car,) = [prompt for prompt in domain.prompts("train", 5, 0) if prompt.text == "a red car"]
    found = [domain.partner(car, seed) for seed in range(20)]
    assert {prompt.text for prompt in found if prompt} == {"a blue car", "a red bus"}
    assert domain.partner(Prompt("unknown words", "c", "k", {}), 0) is None


def test_any_text_is_a_prompt_and_nothing_is_checked() -> None:
    domain = TextDomain(_set(heldout="a photo of a bench"))
    assert domain.split_of("A bench") == "heldout"
    assert domain.split_of("a stool") is None
    assert domain.parse("a  photo of a bench") == domain.prompts("heldout", 1, 0)[0]
    assert domain.parse("whatever one likes").category == "text"
    with pytest.raises(PromptOutsideGrammarError, match="it is empty"):
        domain.parse("  ")
    with pytest.raises(NoCheckerError, match="The domain 'text' has no exact checker"):
        domain.check(Image.new("RGB", (8, 8)), domain.parse("a stool"))
    assert (domain.real_pairs(5, 0), domain.reading_probes(5, 0), domain.edit_probes(5, 0)) == ([], [], [])


def test_a_domain_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.support.plugged import PLUGIN

    assert get_domain("text", _set(train="a cup")).prompts("train", 1, 0)[0].text == "a cup"
    with pytest.raises(UsageError, match="'shapes' has prompts of its own"):
        get_domain("shapes", _set(train="a cup"))
    with pytest.raises(NotFoundError, match="domain 'plugged'"):
        get_domain("plugged")
    monkeypatch.syspath_prepend(PLUGIN)
    plugged = get_domain("plugged", _set(train="a red circle"))
    assert plugged.exact
    assert plugged.prompts("train", 1, 0)[0].text == "a red circle"
