"""The semantic quantiser: nearest codes, a codebook that is used, gradients that pass."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from illume_loop.models.illume.configuration import Distance, Update
from illume_loop.models.illume.quantizer import DEAD_BELOW, SemanticQuantizer


@pytest.fixture
def quantizer() -> SemanticQuantizer:
    torch.manual_seed(0)
    return SemanticQuantizer(feature_dim=16, code_dim=4, codebook_size=32, num_tokens=9, num_layers=1)


def clustered(count: int, seed: int) -> torch.Tensor:
    """Features (count, 9, 16) around 20 centres."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(20, 16, generator=torch.Generator().manual_seed(99)) * 3
    picked = centres[torch.randint(20, (count, 9), generator=generator)]
    return picked + 0.05 * torch.randn(picked.shape, generator=generator)


def test_ids_are_the_nearest_codes(quantizer: SemanticQuantizer) -> None:
    features = clustered(4, 0)
    projected = quantizer.project_in(quantizer.normalise(features))
    nearest = torch.cdist(projected.flatten(0, 1), quantizer.codebook).argmin(dim=1).view(4, 9)
    assert torch.equal(quantizer.encode(features), nearest)


def test_encoding_then_decoding_equals_the_training_path(quantizer: SemanticQuantizer) -> None:
    quantizer.eval()
    features = clustered(4, 0)
    quantised = quantizer(features)
    assert torch.allclose(quantizer.decode(quantised.ids_BL), quantised.features_BLH, atol=1e-5)


def test_training_reconstructs_features_and_revives_dead_codes(quantizer: SemanticQuantizer) -> None:
    quantizer.codebook.fill_(50.0)  # all codes out of reach, as after a collapse
    quantizer.code_uses.fill_(DEAD_BELOW / 2)
    optimizer = torch.optim.Adam(quantizer.parameters(), lr=3e-3)
    first = None
    for step in range(600):
        loss = quantizer(clustered(16, step)).loss
        first = first or float(loss.detach())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    quantizer.eval()
    features = clustered(64, 1_000)
    quantised = quantizer(features)
    assert len(quantised.ids_BL.unique()) >= 12, "twenty clusters need more than a few codes"
    similarity = F.cosine_similarity(quantised.features_BLH, quantizer.normalise(features), dim=-1).mean()
    assert float(similarity.detach()) > 0.9
    assert first is not None
    assert float(quantised.loss.detach()) < first / 3


def test_the_codebook_moves_in_training_only(quantizer: SemanticQuantizer) -> None:
    before = quantizer.codebook.clone()
    quantizer.eval()(clustered(4, 0))
    assert torch.equal(quantizer.codebook, before)
    quantizer.train()(clustered(4, 0))
    assert not torch.equal(quantizer.codebook, before)


@pytest.mark.parametrize(("distance", "update"), [("cosine", "ema"), ("l2", "simvq")])
def test_other_codebooks_follow_the_features_too(distance: Distance, update: Update) -> None:
    """Ids are the nearest by their measure, features come back, and a frozen codebook stays while its map learns."""
    torch.manual_seed(0)
    quantizer = SemanticQuantizer(16, 8, 64, num_tokens=9, num_layers=1, distance=distance, update=update)
    quantizer.start_from(clustered(16, 77))
    before = quantizer.codebook.clone()
    optimizer = torch.optim.Adam(quantizer.parameters(), lr=3e-3)
    for step in range(200):
        loss = quantizer(clustered(16, step)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    quantizer.eval()
    assert torch.equal(quantizer.codebook, before) == (update == "simvq")
    features = clustered(32, 1_000)
    quantised = quantizer(features)
    assert torch.allclose(quantizer.decode(quantised.ids_BL), quantised.features_BLH, atol=1e-5)
    similarity = F.cosine_similarity(quantised.features_BLH, quantizer.normalise(features), dim=-1).mean()
    assert float(similarity.detach()) > 0.85
    assert len(quantised.ids_BL.unique()) >= 12
    with torch.no_grad():
        projected = quantizer.project_in(quantizer.normalise(features)).flatten(0, 1)
        codes = quantizer.codebook if quantizer.code_map is None else quantizer.codebook @ quantizer.code_map.weight.T
        similar = F.cosine_similarity(projected[:, None], codes[None], dim=-1)
        nearest = similar.argmax(1) if distance == "cosine" else torch.cdist(projected, codes).argmin(1)
        assert torch.equal(quantizer.encode(features).flatten(), nearest)


def test_a_large_table_of_distances_is_made_in_parts(
    quantizer: SemanticQuantizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = quantizer.encode(clustered(4, 0))
    monkeypatch.setattr("illume_loop.models.illume.quantizer.DISTANCES_AT_ONCE", 5 * 32)
    assert torch.equal(quantizer.encode(clustered(4, 0)), whole)
