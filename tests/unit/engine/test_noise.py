"""Seeded noise: the right distribution, and a function of seed and position alone."""

from __future__ import annotations

import torch
from scipy import stats

from illume_loop.engine.noise import gumbel, signed


def test_noise_is_standard_gumbel() -> None:
    noise = gumbel(torch.arange(64), 3, 512).flatten().numpy()
    assert stats.kstest(noise, stats.gumbel_r().cdf).pvalue > 0.001


def test_noise_depends_on_seed_and_position_only() -> None:
    seeds = torch.tensor([signed(2**64 - 1), 0, 5])
    together = gumbel(seeds, 7, 100)
    assert torch.equal(together[2:], gumbel(seeds[2:], 7, 100))
    assert torch.equal(together[:, :40], gumbel(seeds, 7, 40))


def test_a_position_may_be_a_tensor() -> None:
    seeds = torch.tensor([signed(2**64 - 1), 0, 5])
    assert torch.equal(gumbel(seeds, torch.tensor([7]), 100), gumbel(seeds, 7, 100))


def test_neighbouring_seeds_and_positions_are_unrelated() -> None:
    first, other_seed, other_position = (
        gumbel(torch.tensor([1]), 0, 4096),
        gumbel(torch.tensor([2]), 0, 4096),
        gumbel(torch.tensor([1]), 1, 4096),
    )
    for other in (other_seed, other_position):
        correlation = float(torch.corrcoef(torch.cat([first, other]))[0, 1])
        assert abs(correlation) < 0.07
