"""The sharing of one training by several processes: arguments for TRL's trainers, and the DeepSpeed configurations.

Invariants:
- A step of N processes has the rows of the same step in one process, and its loss and gradient up to the order of sums.
- If the rows do not fill the last step of an epoch, rows from the beginning of the epoch fill it up.
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
    """Return the number of a step's rows that each process takes."""
    return max(1, num_rows // settings.num_processes)


def sharing_arguments(settings: TrainSettings) -> dict[str, Any]:
    """Return a trainer's arguments for the settings' strategy; none if the training is local."""
    if settings.backend == "local":
        return {}
    # The adapter has no gradient in a process whose rows read no image, and the other processes would wait for one.
    arguments: dict[str, Any] = {"ddp_find_unused_parameters": True}
    if settings.strategy != "ddp":
        arguments["deepspeed"] = deepspeed_config(settings.strategy)
    return arguments


def deepspeed_config(strategy: str) -> dict[str, Any]:
    """Return the shipped configuration of a ZeRO stage. Its "auto" values follow the trainer's arguments."""
    config: dict[str, Any] = json.loads((files(__package__) / "deepspeed" / f"{strategy}.json").read_text())
    return config


class EvenCollator:
    """A collator that gives every batch image features, empty ones if it reads no image.

    So the adapter has a gradient in every process. DeepSpeed reduces gradients in the order in which they come, so all
    processes must have the same ones. DDP does not need this collator: it is told to expect unused parameters, and so
    a step without images leaves the adapter alone, as it does in one process.
    """

    def __init__(self, collate: FeatureCollator) -> None:
        self.collate = collate

    def __call__(self, items: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """Return one batch."""
        batch = self.collate(items)
        if self.collate.features_NLH is not None:
            batch.setdefault("image_features", self.collate.features_NLH[:0])
        return batch


@contextmanager
def whole_weights(model: nn.Module) -> Iterator[None]:
    """Gather the model's weights for the block, if ZeRO's third stage has spread them over the processes.

    All processes must enter the block.
    """
    spread = [weights for weights in model.parameters() if hasattr(weights, "ds_id")]
    if not spread:
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(spread, modifier_rank=0):
        yield
