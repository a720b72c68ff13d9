"""A canned run in which a test does something at one moment: while a unit of a stage is being done in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from illume_db.rounds import find_round
from illume_loop.loop.context import Toolbox
from illume_loop.loop.run_directory import OpenRun, open_run
from illume_loop.protocols import ImageIds, Sampling, Scores, TrainingRow
from illume_loop.settings import TrainSettings
from tests.support.canned_model import CannedModel, load_canned, train_canned


@dataclass
class Meanwhile:
    """Calls `act` once, in a transaction of its own, while round `index` is in `state`."""

    run_dir: Path
    state: str
    act: Callable[[OpenRun], object]
    index: int = 1
    said: list[object] = field(default_factory=list)
    """What `act` returned."""
    num_trained: int = 0
    """Trainings that went on to their end."""

    def look(self) -> None:
        """Act where it is time."""
        if self.said:
            return
        with open_run(self.run_dir, writing=True) as run:
            round_ = find_round(run.session, run.run_id, self.index)
            if round_ is None or round_.state != self.state:
                return
            self.said.append(self.act(run))
            run.session.commit()

    def toolbox(self) -> Toolbox:
        """The canned backend, which looks whenever it is asked for anything."""
        meanwhile = self

        class Looking(CannedModel):
            def sample(self, prompts: Sequence[str], seeds: Sequence[int], sampling: Sampling) -> ImageIds:
                meanwhile.look()
                return super().sample(prompts, seeds, sampling)

            def log_likelihood(self, images: Sequence[Image.Image], texts: Sequence[str]) -> Scores:
                meanwhile.look()
                return super().log_likelihood(images, texts)

        def train(
            base: Path,
            rows: Sequence[TrainingRow],
            out: Path,
            settings: TrainSettings,
            seed: int,
            on_step: Callable[[int, int], None],
        ) -> Any:
            meanwhile.look()
            train_canned(base, rows, out, settings, seed, on_step)
            meanwhile.num_trained += 1

        return Toolbox(lambda path, device: Looking(load_canned(path, device).skill), train)
