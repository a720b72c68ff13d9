"""A study on the canned backend that ends within seconds."""

from __future__ import annotations

from pathlib import Path

from tests.support.canned_model import save_canned

STUDY = """
title = "A judge that is exact, and one that is not"
question = "Which judge is better?"
seeds = [0, 1]
after = [1, 2]
baseline = "self"

[measure]
heldout_prompts = 24
draws = 2
probes = 12
diversity_prompts = 4

[settings.run]
base = "{base}"
[settings.sampling]
prompts_per_round = 6
samples_per_prompt = 3
guidance_scale = 1.0
temperature = 1.0
[settings.curate]
keep_per_prompt = 2
real_rows = 6
[settings.gate]
heldout_prompts = 24
guidances = "1.25"
temperatures = "1"
probe_items = 12
resamples = 100
min_gain = -0.5

[[arms]]
name = "self"
[[arms]]
name = "checker"
[arms.settings.assess]
assessor = "checker"
"""

FAILING_ARM = """
[[arms]]
name = "too-strict"
note = "nothing is ever this much better"
[arms.settings.curate]
margin = 1e6
"""


def canned_study(folder: Path, *more: str) -> Path:
    """The study as a file, with its base beside it."""
    base = save_canned(folder / "base", 0.4)
    path = folder / "judges.toml"
    path.write_text("\n".join((STUDY.format(base=base), *more)), encoding="utf-8")
    return path
