"""The semantic quantiser: discrete image ids from the encoder's features, and features from ids.

As in ILLUME (arXiv 2412.06673, section 3.1), the codebook lives in semantic feature space: it reconstructs the
encoder's features (smooth-L1 plus cosine). It reconstructs pixels only in a study that compares the two. The paper does
not print the code width, the update rule or the decoder. A moving-average codebook with revival of dead codes and a
small transformer decoder are choices of ours.

    distance   l2      the nearest code in the projection
               cosine  the same on the unit sphere, where codes and projections have length 1
    update     ema     codes follow the features that they stand for, by moving averages
               simvq   a frozen random codebook times a learned linear map, which moves all codes at once, so that none
                       dies (SimVQ, Zhu et al., arXiv 2411.02038)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from illume_loop.models.illume.configuration import Distance, Update

COMMITMENT_WEIGHT = 0.25
EMA_DECAY = 0.99
DEAD_BELOW = 0.03
"""A code whose moving average of uses per batch falls below this is moved onto a feature that is far from its nearest
code.
"""

REVIVED_USES = 0.3
SMALLEST_SPREAD = 1e-4
"""The least spread of each direction when a map of codes starts, as a share of the whole spread of features."""
DISTANCES_AT_ONCE = 1 << 28
"""Distances that are held at a time, 1 GiB."""


@dataclass(frozen=True, slots=True)
class Quantised:
    """The result of quantising a batch: ids (B, L), features decoded from their codes (B, L, H), and losses.

    The features have a straight-through gradient.
    """

    ids_BL: Tensor
    features_BLH: Tensor
    reconstruction_loss: Tensor
    commitment_loss: Tensor
    codebook_loss: Tensor

    @property
    def loss(self) -> Tensor:
        """The training loss of the quantiser."""
        return self.reconstruction_loss + self.codebook_loss + COMMITMENT_WEIGHT * self.commitment_loss


class SemanticQuantizer(nn.Module):
    """A quantiser that takes the nearest code in a learned projection of the layer-normalised features."""

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
        distance: Distance = "l2",
        update: Update = "ema",
    ) -> None:
        """Build the quantiser; `normalises` says that its input is normalised.

        Features are normalised, as their scale means nothing. Pixels are not, as their scale is their brightness.
        """
        super().__init__()
        self.feature_dim = feature_dim
        self.normalises = normalises
        self.on_sphere = distance == "cosine"
        self.project_in = nn.Sequential(
            nn.Linear(feature_dim, feature_dim), nn.GELU(), nn.Linear(feature_dim, code_dim)
        )
        self.register_buffer("codebook", torch.randn(codebook_size, code_dim))
        self.code_map = nn.Linear(code_dim, code_dim, bias=False) if update == "simvq" else None
        if self.code_map is None:
            self.register_buffer("code_uses", torch.ones(codebook_size), persistent=False)
            self.register_buffer("code_sums", self.codebook.clone(), persistent=False)
        self.project_out = nn.Linear(code_dim, feature_dim)
        self.positions = nn.Parameter(0.02 * torch.randn(num_tokens, feature_dim))
        layer = nn.TransformerEncoderLayer(
            feature_dim,
            _num_heads(feature_dim),
            2 * feature_dim,
            dropout=0.0,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.blocks = nn.TransformerEncoder(layer, num_layers, enable_nested_tensor=False)
        self.head = nn.Linear(feature_dim, feature_dim)

    def normalise(self, features_BLH: Tensor) -> Tensor:
        """Return the target of reconstruction: features without mean and scale, as the adapter sees them."""
        return F.layer_norm(features_BLH, (self.feature_dim,)) if self.normalises else features_BLH

    @property
    def codes(self) -> Tensor:
        """The codebook as it is used, (codebook_size, code_dim)."""
        codes = self.codebook if self.code_map is None else self.code_map(self.codebook)
        return F.normalize(codes, dim=-1) if self.on_sphere else codes

    def project(self, normalised_BLH: Tensor) -> Tensor:
        """Project normalised features into the space of the codes, (B, L, code_dim)."""
        projected: Tensor = self.project_in(normalised_BLH)
        return F.normalize(projected, dim=-1) if self.on_sphere else projected

    def encode(self, features_BLH: Tensor) -> Tensor:
        """Return the ids (B, L) of features (B, L, H), each in [0, codebook_size)."""
        return _nearest(self.project(self.normalise(features_BLH)), self.codes)

    def decode(self, ids_BL: Tensor) -> Tensor:
        """Return the normalised features (B, L, H) of ids (B, L)."""
        return self._features(F.embedding(ids_BL, self.codes))

    def forward(self, features_BLH: Tensor) -> Quantised:
        """Quantise and reconstruct features; in training mode a codebook of moving averages follows them."""
        target = self.normalise(features_BLH)
        projected = self.project(target)
        ids = _nearest(projected, self.codes)
        if self.training and self.code_map is None:
            self._follow(projected.detach(), ids)
        codes = F.embedding(ids, self.codes)  # read again, as `_follow` may have moved the codes
        straight_through = projected + (codes - projected).detach()
        decoded = self._features(straight_through)
        cosine = 1 - F.cosine_similarity(decoded, target, dim=-1).mean()
        reconstruction = F.smooth_l1_loss(decoded, target) + cosine
        commitment = F.mse_loss(projected, codes.detach())
        # Only a learned map needs this loss: moving averages follow the features without one.
        followed = commitment.new_zeros(()) if self.code_map is None else F.mse_loss(codes, projected.detach())
        return Quantised(ids, decoded, reconstruction, commitment, followed)

    @torch.no_grad()
    def start_from(self, features_BLH: Tensor) -> None:
        """Put the codebook onto random features of a batch, so that training starts with every code in reach.

        For `simvq` the map is set instead: it gives the normal codes the second moment of the features.
        """
        flat = self.project(self.normalise(features_BLH)).flatten(0, 1)
        if self.code_map is not None:
            moment = flat.T @ flat / len(flat)
            self.code_map.weight.copy_(
                torch.linalg.cholesky(moment + SMALLEST_SPREAD * moment.trace() * torch.eye(len(moment)).to(moment))
            )
            return
        self.codebook.copy_(flat[torch.randint(len(flat), (len(self.codebook),))])
        self.code_sums.copy_(REVIVED_USES * self.codebook)
        self.code_uses.fill_(REVIVED_USES)

    def _features(self, codes_BLC: Tensor) -> Tensor:
        hidden: Tensor = self.blocks(self.project_out(codes_BLC) + self.positions)
        return self.normalise(self.head(hidden))

    @torch.no_grad()
    def _follow(self, projected_BLC: Tensor, ids_BL: Tensor) -> None:
        """Update the codebook by moving averages (van den Oord et al. 2017, appendix A.1), then revive dead codes."""
        flat, ids = projected_BLC.reshape(-1, projected_BLC.shape[-1]), ids_BL.reshape(-1)
        uses = torch.bincount(ids, minlength=len(self.codebook)).to(flat.dtype)
        sums = torch.zeros_like(self.codebook).index_add_(0, ids, flat)
        self.code_uses.lerp_(uses, 1 - EMA_DECAY)
        self.code_sums.lerp_(sums, 1 - EMA_DECAY)
        dead = (self.code_uses < DEAD_BELOW).nonzero().squeeze(1)
        if len(dead):
            # In proportion to the squared error, as in k-means++. An even pick would mostly hit plain background.
            errors = (flat - F.embedding(ids, self.codes)).square().sum(dim=1)
            chosen = flat[torch.multinomial(errors + 1e-9, len(dead), replacement=True)]
            self.code_sums[dead] = REVIVED_USES * chosen
            self.code_uses[dead] = REVIVED_USES
        self.codebook.copy_(self.code_sums / self.code_uses.clamp(min=1e-6).unsqueeze(1))


@torch.no_grad()
def _nearest(projected_BLC: Tensor, codes_KC: Tensor) -> Tensor:
    """Return the ids (B, L) of the nearest codes by L2; on the unit sphere these are the nearest by cosine too."""
    # In float32, because half precision cannot tell thousands of codes apart.
    flat, codes = projected_BLC.reshape(-1, projected_BLC.shape[-1]).float(), codes_KC.float()
    lengths = codes.square().sum(1)
    parts = [
        (lengths - 2 * some @ codes.T).argmin(dim=1) for some in flat.split(max(1, DISTANCES_AT_ONCE // len(codes)))
    ]
    return torch.cat(parts).view(projected_BLC.shape[:-1])


def _num_heads(width: int) -> int:
    """Return the number of attention heads: each 64 wide, but at least four; four if 64 does not divide the width."""
    return max(4, width // 64) if width % 64 == 0 else 4
