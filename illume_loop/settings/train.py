"""The table `[train]`: how a candidate is trained, and where."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from illume_loop.settings.section import ADVANCED, Section

_SAVING = "(bf16|checkpointing|packing|labelled-logits|block-logits)"


class TrainSettings(Section):
    """The table `[train]`."""

    objective: Literal["sft", "assess-sft", "dpo", "kto", "grpo"] = Field(
        "sft",
        description="Loss: sft is next-token cross-entropy on the accepted samples; assess-sft adds assessment rows; "
        "dpo and kto learn from preference pairs; grpo is online reinforcement learning, see the table grpo.",
    )
    beta: float = Field(
        0.1,
        gt=0.0,
        le=100.0,
        description="DPO and KTO: penalty for moving away from the model that training starts from.",
        json_schema_extra=ADVANCED,
    )
    sft_weight: float = Field(
        1.0,
        ge=0.0,
        le=100.0,
        description="DPO and KTO: weight of the additional cross-entropy loss on the preferred images.",
        json_schema_extra=ADVANCED,
    )
    learning_rate: float = Field(5e-4, gt=0.0, le=1.0, description="Peak learning rate.")
    epochs: int = Field(
        4, ge=1, le=1000, description="Passes over the manifest; each one amplifies whatever the rows hold."
    )
    batch_size: int = Field(64, ge=1, le=16_384, description="Rows in one optimiser step.")
    warmup_ratio: float = Field(
        0.1, ge=0.0, le=1.0, description="Share of the steps that warm up the rate.", json_schema_extra=ADVANCED
    )
    lora_rank: int = Field(0, ge=0, le=1024, description="Rank of the LoRA adapters; 0 trains all weights.")
    image_temperature: float = Field(
        0.0,
        ge=0.0,
        le=10.0,
        description="sft and assess-sft: temperature at which image ids are fitted; 0 means that of [sampling], so "
        "that a candidate draws images as diverse as its rows.",
        json_schema_extra=ADVANCED,
    )
    text_dropout: float = Field(
        0.0,
        ge=0.0,
        le=1.0,
        description="Share of text-to-image rows whose prompt is dropped, as in pretraining, for guidance.",
        json_schema_extra=ADVANCED,
    )
    report_to: Literal["auto", "none", "tensorboard", "wandb", "mlflow"] = Field(
        "auto", description="Tracker of training steps; auto means TensorBoard if it is installed."
    )
    from_: Literal["base", "parent"] = Field(
        "base",
        alias="from",
        description="Version that training starts from; with parent, later rounds forget earlier ones.",
        json_schema_extra=ADVANCED,
    )
    savings: str = Field(
        "",
        pattern=rf"^({_SAVING}(,{_SAVING})*)?$",
        description="Ways to save memory or time, separated by commas: bf16 (on GPUs), checkpointing, packing, "
        "labelled-logits, block-logits.",
        json_schema_extra=ADVANCED,
    )
    backend: Literal["local", "ray"] = Field("local", description="Where training runs: in this process, or on Ray.")
    ray_address: str = Field(
        "",
        description="Address of the Ray cluster, such as ray-head:6379 or auto; empty starts one on this machine.",
        json_schema_extra=ADVANCED,
    )
    workers: int = Field(1, ge=1, le=4096, description="Ray workers that share each training step.")
    worker_resources: str = Field(
        "CPU=1",
        pattern=r"^[A-Za-z][\w.:-]*=\d+(\.\d+)?(,[A-Za-z][\w.:-]*=\d+(\.\d+)?)*$",
        description="Resources that Ray reserves for each worker, such as CPU=8,GPU=1.",
        json_schema_extra=ADVANCED,
    )
    strategy: Literal["ddp", "zero2", "zero3"] = Field(
        "ddp",
        description="How Ray workers hold the model: ddp as whole copies; zero2 and zero3 by DeepSpeed ZeRO.",
        json_schema_extra=ADVANCED,
    )

    @property
    def saves(self) -> frozenset[str]:
        """`savings` as a set."""
        return frozenset(self.savings.split(",")) - {""}

    @property
    def num_processes(self) -> int:
        """The number of processes that share a step."""
        return self.workers if self.backend == "ray" else 1

    @property
    def resources(self) -> dict[str, float]:
        """`worker_resources` as amounts by name."""
        parts = (part.split("=") for part in self.worker_resources.split(","))
        return {name: float(amount) for name, amount in parts}

    @property
    def learns_from_pairs(self) -> bool:
        """True if the objective needs preference pairs, each with a better and a worse image."""
        return self.objective in ("dpo", "kto")

    @property
    def learns_from_rewards(self) -> bool:
        """True if the objective draws, scores and learns in updates, instead of training on a manifest."""
        return self.objective == "grpo"

    @property
    def learns_assessments(self) -> bool:
        """True if the objective needs critiques, as dialogues of one turn and of two."""
        return self.objective == "assess-sft"

    @model_validator(mode="after")
    def _trainings_can_be_shared(self) -> Self:
        if self.backend == "local" and (self.workers > 1 or self.strategy != "ddp"):
            raise ValueError("train.workers above 1 and train.strategy need train.backend = 'ray'")
        if self.batch_size % self.num_processes:
            raise ValueError(f"train.batch_size must be a multiple of train.workers, {self.workers}")
        if self.learns_from_pairs and self.strategy != "ddp":
            raise ValueError(f"train.objective = '{self.objective}' needs train.strategy = 'ddp'")
        return self

    @model_validator(mode="after")
    def _savings_go_together(self) -> Self:
        logits = self.saves & {"labelled-logits", "block-logits"}
        if len(logits) == 2:
            raise ValueError("train.savings can hold only one of labelled-logits and block-logits")
        if self.learns_from_rewards and self.saves:
            raise ValueError("train.objective = 'grpo' needs train.savings to be empty")
        if self.learns_from_pairs and self.saves & {"packing", "block-logits", "labelled-logits"}:
            raise ValueError(
                f"train.objective = '{self.objective}' allows only bf16 and checkpointing in train.savings"
            )
        if logits and self.strategy == "zero3":
            raise ValueError("train.strategy = 'zero3' needs train.savings without labelled-logits and block-logits")
        return self
