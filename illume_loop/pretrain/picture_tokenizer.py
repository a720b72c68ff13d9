"""Training of an existing model's tokenizer on pictures: first its quantiser, then its detokenizer.

Invariants:
- Encoder, language model and adapter stay bit-identical.
- A batch depends only on the seed and the step, so a training that was killed resumes to the same weights.
- A folder belongs to one model and one set of numbers.
- Weights are trained in float32, whatever precision the model is stored in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from illume_loop.artifacts.checkpoints import checkpoint_sha256
from illume_loop.errors import TokenizerChangedError, UsageError
from illume_loop.models.illume.backend import IllumeBackend
from illume_loop.models.illume.quantizer import Quantised, SemanticQuantizer
from illume_loop.models.registry import load_model
from illume_loop.models.shipped import base_path
from illume_loop.pretrain.detokenizing import normalised, train_detokenizer
from illume_loop.pretrain.picture_folder import PictureFolder
from illume_loop.pretrain.stepper import ParameterGroup, Progress, claim, train_stage

START_BATCHES = 4
MEASURED_BATCHES = 8
"""The batches of pictures that initialise the codebook, and those that the outcome is measured on."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """The numbers of a training: steps of quantiser and detokenizer, pictures per step, peak learning rate, seed."""

    steps: int = 20_000
    detokenizer_steps: int = 20_000
    batch: int = 64
    learning_rate: float = 1e-4
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """The model directory, and measurements of its tokenizer.

    `similarity` is the mean cosine between features and the features decoded from their ids. `codes_used` of the
    `codes` occurred among `ids` ids. `perplexity` is the number of equally probable codes with the same entropy.
    """

    model: str
    similarity: float
    codes_used: int
    codes: int
    perplexity: float
    ids: int


def train_picture_tokenizer(
    base: str, pictures: Path, out: Path, numbers: Numbers, on_progress: Progress, device: str = "auto"
) -> Outcome:
    """Train the tokenizer of `base` in `out`, or finish it; the new model lies in `<out>/model`.

    Raises NotFoundError if there is no such model, UsageError if it is not an ILLUME model, DataSourceError for a
    folder without pictures, and TokenizerChangedError if `out` belongs to another training.
    """
    path = base_path(base)
    backend = load_model(path, device=device)
    if not isinstance(backend, IllumeBackend):
        raise UsageError(f"{base} is a {backend.name} model, whose tokenizer stays as it is; name an ILLUME model")
    config, vision = backend.model.config, backend.model.model.vision
    source = PictureFolder(pictures, numbers.batch, config.image_size, numbers.seed)
    out.mkdir(parents=True, exist_ok=True)
    about = {**asdict(numbers), "model": checkpoint_sha256(path), "pictures": len(source.files)}
    names = claim(out / "training.json", about)
    if names:
        raise TokenizerChangedError(path=out, names=", ".join(names))
    normalise = partial(normalised, backend.processor.image_processor)
    vision.float().requires_grad_(False)

    def features(purpose: str, step: int) -> Tensor:
        with torch.no_grad():
            pixels = source.at(step, purpose).to(backend.device)
            found: Tensor = vision.to_quantise(normalise(pixels))
        return found

    _train_quantizer(vision.quantizer, features, numbers, out / "tokenizer.safetensors", on_progress)
    outcome = _measured(backend, [features("measured", step) for step in range(MEASURED_BATCHES)], out / "model")
    painted = PictureFolder(pictures, numbers.batch, config.painted_size, numbers.seed)
    train_detokenizer(
        vision,
        lambda step: painted.at(step, "detokenizer"),
        steps=numbers.detokenizer_steps,
        learning_rate=numbers.learning_rate,
        checkpoint=out / "detokenizer.safetensors",
        on_progress=on_progress,
        seed=numbers.seed,
        normalise=normalise,
    )
    # Save the whole model in float32, the precision of this training.
    nn.Module.to(backend.model, "cpu", torch.float32)
    backend.save(out / "model")
    return outcome


def _train_quantizer(
    quantizer: SemanticQuantizer,
    features: Callable[[str, int], Tensor],
    numbers: Numbers,
    checkpoint: Path,
    on_progress: Progress,
) -> None:
    torch.manual_seed(numbers.seed)
    quantizer.requires_grad_(True)
    quantizer.start_from(torch.cat([features("codebook", step) for step in range(START_BATCHES)]))

    def loss_at(step: int) -> Tensor:
        quantised: Quantised = quantizer(features("tokenizer", step))
        return quantised.loss

    groups = [ParameterGroup(list(quantizer.parameters()), numbers.learning_rate)]
    train_stage("tokenizer", quantizer, groups, loss_at, numbers.steps, checkpoint, on_progress)
    quantizer.requires_grad_(False)


@torch.no_grad()
def _measured(backend: IllumeBackend, batches: list[Tensor], model: Path) -> Outcome:
    """Measure the quantiser on separate batches. Their pictures may have been in training batches too."""
    quantizer = backend.model.model.vision.quantizer
    found = [quantizer(features) for features in batches]
    similar = [
        F.cosine_similarity(of.features_BLH, quantizer.normalise(features), dim=-1).mean()
        for of, features in zip(found, batches, strict=True)
    ]
    ids = torch.cat([of.ids_BL.flatten() for of in found])
    shares = torch.bincount(ids, minlength=len(quantizer.codebook)).double() / len(ids)
    return Outcome(
        str(model),
        float(torch.stack(similar).mean()),
        int((shares > 0).sum()),
        len(shares),
        float(torch.special.entr(shares).sum().exp()),
        len(ids),
    )
