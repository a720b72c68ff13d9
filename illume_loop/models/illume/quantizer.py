"""The semantic quantiser: discrete image ids from the encoder's features, and features back from ids.

As in ILLUME (arXiv 2412.06673, section 3.1) the codebook lives in semantic feature space: what is reconstructed are the
encoder's features (smooth-L1 plus cosine), never pixels, but where a study compares with just that. The paper does not
print the code width, the update rule or the decoder; a moving-average codebook with revival of dead codes and a small
transformer decoder are choices of ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

COMMITMENT_WEIGHT = 0.25
EMA_DECAY = 0.99
DEAD_BELOW = 0.03
"""A code whose moving average of uses per batch falls below this is moved onto a feature far from its own code."""

REVIVED_USES = 0.3


@dataclass(frozen=True, slots=True)
class Quantised:
    """What quantising a batch gives: ids (B, L), codes (B, L, code_dim) with straight-through gradient, losses."""

    ids_BL: Tensor
    features_BLH: Tensor
    reconstruction_loss: Tensor
    commitment_loss: Tensor

    @property
    def loss(self) -> Tensor:
        """The training loss of the quantiser."""
        return self.reconstruction_loss + COMMITMENT_WEIGHT * self.commitment_loss


class SemanticQuantizer(nn.Module):
    """Nearest code by L2 in a learned projection of the layer-normalised features."""

    codebook: Tensor
    code_uses: Tensor
    code_sums: Tensor

    def __init__(
        self,
        feature_dim: int,
        code_dim: int,
        codebook_size: int,
        num_tokens: int,
        num_layers: int,
        *,
        normalises: bool = True,
    ) -> None:
        """`normalises` is for features, whose scale means nothing; that of pixels is their brightness."""
        super().__init__()
        self.feature_dim = feature_dim
        self.normalises = normalises
        self.project_in = nn.Sequential(
            nn.Linear(feature_dim, feature_dim), nn.GELU(), nn.Linear(feature_dim, code_dim)
        )
        self.register_buffer("codebook", torch.randn(codebook_size, code_dim))
        self.register_buffer("code_uses", torch.ones(codebook_size), persistent=False)
        self.register_buffer("code_sums", self.codebook.clone(), persistent=False)
        self.project_out = nn.Linear(code_dim, feature_dim)
        self.positions = nn.Parameter(0.02 * torch.randn(num_tokens, feature_dim))
        layer = nn.TransformerEncoderLayer(
            feature_dim, 4, 2 * feature_dim, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(layer, num_layers, enable_nested_tensor=False)
        self.head = nn.Linear(feature_dim, feature_dim)

    def normalise(self, features_BLH: Tensor) -> Tensor:
        """The target of reconstruction: features without mean and scale, as the language model's adapter sees them."""
        return F.layer_norm(features_BLH, (self.feature_dim,)) if self.normalises else features_BLH

    def encode(self, features_BLH: Tensor) -> Tensor:
        """Features (B, L, H) to ids (B, L), each in [0, codebook_size)."""
        return self._nearest(self.project_in(self.normalise(features_BLH)))

    def decode(self, ids_BL: Tensor) -> Tensor:
        """Ids (B, L) to normalised features (B, L, H)."""
        return self._features(F.embedding(ids_BL, self.codebook))

    def forward(self, features_BLH: Tensor) -> Quantised:
        """Quantise and reconstruct; in training mode the codebook follows the features."""
        target = self.normalise(features_BLH)
        projected = self.project_in(target)
        ids = self._nearest(projected)
        if self.training:
            self._follow(projected.detach(), ids)
        codes = F.embedding(ids, self.codebook)
        straight_through = projected + (codes - projected).detach()
        decoded = self._features(straight_through)
        cosine = 1 - F.cosine_similarity(decoded, target, dim=-1).mean()
        reconstruction = F.smooth_l1_loss(decoded, target) + cosine
        return Quantised(ids, decoded, reconstruction, F.mse_loss(projected, codes))

    @torch.no_grad()
    def start_from(self, features_BLH: Tensor) -> None:
        """Put the codebook onto random features of a batch, so that training starts with every code in reach."""
        flat = self.project_in(self.normalise(features_BLH)).flatten(0, 1)
        self.codebook.copy_(flat[torch.randint(len(flat), (len(self.codebook),))])
        self.code_sums.copy_(REVIVED_USES * self.codebook)
        self.code_uses.fill_(REVIVED_USES)

    def _features(self, codes_BLC: Tensor) -> Tensor:
        hidden: Tensor = self.blocks(self.project_out(codes_BLC) + self.positions)
        return self.normalise(self.head(hidden))

    def _nearest(self, projected_BLC: Tensor) -> Tensor:
        flat = projected_BLC.reshape(-1, projected_BLC.shape[-1])
        distance = self.codebook.square().sum(1) - 2 * flat @ self.codebook.T
        return distance.argmin(dim=1).view(projected_BLC.shape[:-1])

    @torch.no_grad()
    def _follow(self, projected_BLC: Tensor, ids_BL: Tensor) -> None:
        """Moving-average update of the codebook (van den Oord et al. 2017, appendix A.1), then revival."""
        flat, ids = projected_BLC.reshape(-1, projected_BLC.shape[-1]), ids_BL.reshape(-1)
        uses = torch.bincount(ids, minlength=len(self.codebook)).to(flat.dtype)
        sums = torch.zeros_like(self.codebook).index_add_(0, ids, flat)
        self.code_uses.lerp_(uses, 1 - EMA_DECAY)
        self.code_sums.lerp_(sums, 1 - EMA_DECAY)
        dead = (self.code_uses < DEAD_BELOW).nonzero().squeeze(1)
        if len(dead):
            # As k-means++ does: in proportion to the squared error. Picked evenly, most would land on plain ground.
            errors = (flat - F.embedding(ids, self.codebook)).square().sum(dim=1)
            chosen = flat[torch.multinomial(errors + 1e-9, len(dead), replacement=True)]
            self.code_sums[dead] = REVIVED_USES * chosen
            self.code_uses[dead] = REVIVED_USES
        self.codebook.copy_(self.code_sums / self.code_uses.clamp(min=1e-6).unsqueeze(1))
