"""Plans follow from settings, seed and round index; rounds draw other prompts until all were drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from illume_loop.config import Settings, load_settings
from illume_loop.domains import get_domain
from illume_loop.domains.protocol import Prompt, Split
from illume_loop.errors import UsageError
from illume_loop.loop.plan import derived_seed, round_prompts, sample_seed, sampling_units


def _settings(**values: object) -> Settings:
    overrides = {f"sampling.{name}": value for name, value in values.items()} | {"curate.keep_per_prompt": 1}
    return load_settings(None, overrides, environ={})


@dataclass
class FewPrompts:
    """A domain's prompts, cut short."""

    size: int

    def prompts(self, split: Split, count: int, seed: int) -> list[Prompt]:
        if count > self.size:
            raise UsageError("too few")
        return [Prompt(f"prompt {number}", "some", str(number), {}) for number in range(count)]


def _texts(prompts: Sequence[Prompt]) -> list[str]:
    return [prompt.text for prompt in prompts]


def test_rounds_draw_other_prompts() -> None:
    settings = _settings(prompts_per_round=50)
    rounds = [_texts(round_prompts(get_domain("shapes"), settings, index)) for index in (1, 2, 3)]
    assert [len(texts) for texts in rounds] == [50, 50, 50]
    assert len({text for texts in rounds for text in texts}) == 150


def test_prompts_begin_anew_when_all_were_drawn() -> None:
    domain = FewPrompts(10)
    assert _texts(round_prompts(domain, _settings(prompts_per_round=4), 3)) == [
        "prompt 8",
        "prompt 9",
        "prompt 0",
        "prompt 1",
    ]
    assert _texts(round_prompts(domain, _settings(prompts_per_round=4), 6))[0] == "prompt 0"


def test_a_round_larger_than_the_domain_is_refused() -> None:
    with pytest.raises(UsageError, match="too few"):
        round_prompts(FewPrompts(10), _settings(prompts_per_round=11), 1)


def test_seeds_differ_by_every_part_of_their_key() -> None:
    seeds = {
        sample_seed(run, round_, text, index)
        for run in range(3)
        for round_ in range(3)
        for text in ("a", "b")
        for index in range(3)
    }
    assert len(seeds) == 54
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_seeds_are_the_same_for_ever() -> None:
    """Stored runs resume with these: a change here changes their samples."""
    assert sample_seed(0, 1, "a red circle", 0) == 2952182029899583286
    assert derived_seed("a", "b") != derived_seed("a\x1fb", "")


def test_units_cover_every_row_once() -> None:
    settings = _settings(prompts_per_round=5, samples_per_prompt=3, batch_size=4).sampling
    units = sampling_units(settings, 7)
    for kind, sizes in (("sample", [4, 4, 4, 3]), ("assess", [7, 7, 1])):
        of_kind = [unit for unit in units if unit.kind == kind]
        assert [unit.num_items for unit in of_kind] == sizes
        assert [row for unit in of_kind if unit.rows for row in range(*unit.rows)] == list(range(15))
    assert len({unit.key for unit in units}) == len(units)
