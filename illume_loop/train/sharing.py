"""How several processes share one training: arguments for TRL's trainers, the shipped DeepSpeed configurations.

Guarantee: a step of N processes has the rows and, up to the order of sums, the loss and gradient of the same step in
one process. Where the rows do not fill the last step of an epoch, those of its beginning fill it up.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from typing import Any

from torch import Tensor, nn

from illume_loop.settings import TrainSettings
from illume_loop.train.dataset import FeatureCollator


def of_process(num_rows: int, settings: TrainSettings) -> int:
    """Rows of a step that each process takes."""
    return max(1, num_rows // settings.num_processes)


def sharing_arguments(settings: TrainSettings) -> dict[str, Any]:
    """Arguments of a trainer for the strategy of the settings; none where one process trains."""
    if settings.backend == "local":
        return {}
    # A process whose rows read no image gives the adapter no gradient, and the others would wait for it.
    arguments: dict[str, Any] = {"ddp_find_unused_parameters": True}
    if settings.strategy != "ddp":
        arguments["deepspeed"] = deepspeed_config(settings.strategy)
    return arguments


def deepspeed_config(strategy: str) -> dict[str, Any]:
    """The shipped configuration of a stage of ZeRO; what is "auto" in it follows the trainer's arguments."""
    config: dict[str, Any] = json.loads((files(__package__) / "deepspeed" / f"{strategy}.json").read_text())
    return config


class EvenCollator:
    """Gives each batch image features, though none of an image, so that the adapter has a gradient in each process.

    DeepSpeed reduces gradients in the order in which they come, so all processes must have the same ones. DDP is told
    to expect that some have none, as a step without images in one process leaves the adapter alone too.
    """

    def __init__(self, collate: FeatureCollator) -> None:
        self.collate = collate

    def __call__(self, items: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """One batch."""
        batch = self.collate(items)
        if self.collate.features_NLH is not None:
            batch.setdefault("image_features", self.collate.features_NLH[:0])
        return batch


@contextmanager
def whole_weights(model: nn.Module) -> Iterator[None]:
    """The model with all of its weights, which ZeRO's third stage spreads over the processes; all of them enter."""
    spread = [weights for weights in model.parameters() if hasattr(weights, "ds_id")]
    if not spread:
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(spread, modifier_rank=0):
        yield
