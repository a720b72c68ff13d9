"""What the logits of a training step cost: peak memory and tokens a second of five heads, on one mix of rows.

Each arm runs in a process of its own, so that the peak of one hides nothing of another's. The peak of an arm is that
of a whole step (forward and backward) less that of the same step with a loss that needs no logits, both with the
gradients of all weights already allocated. On a GPU the allocator tells; on a CPU the kernel does (VmHWM).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import LlamaConfig, SiglipVisionConfig
from trl.trainer.utils import add_fused_lm_head

from illume_loop.models.illume.configuration import IllumeConfig
from illume_loop.models.illume.modeling import IllumeForConditionalGeneration
from illume_loop.models.sequences import IGNORED_LABEL
from illume_loop.train.head import use_logits

ARMS = ("naive", "trl", "labelled-logits", "naive, other block masked", "block-logits")
UNIFIED = ARMS[:3]
IMAGE_IDS, PROMPT_WORDS, ANSWER_WORDS = 256, 24, 48


def build(args: argparse.Namespace) -> IllumeForConditionalGeneration:
    """Return a random model with the given vocabulary. Its vision parts are small, because they take no part."""
    torch.manual_seed(0)
    config = IllumeConfig(
        text_config=LlamaConfig(
            hidden_size=args.width,
            intermediate_size=3 * args.width,
            num_hidden_layers=args.layers,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=1024,
        ),
        vision_config=SiglipVisionConfig(
            hidden_size=64,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=256,
            patch_size=16,
        ),
        image_size=256,
        num_text_ids=args.text_ids,
        codebook_size=args.codebook,
    )
    model = IllumeForConditionalGeneration(config).to(args.device)
    model.freeze_vision()
    return model


def mix(args: argparse.Namespace) -> dict[str, Tensor]:
    """As many rows to draw as to read, right-padded: a prompt and its image; an image and what is said of it."""
    generator = torch.Generator().manual_seed(1)
    words = lambda n: torch.randint(10, args.text_ids, (n,), generator=generator).tolist()  # noqa: E731
    rows = []
    for index in range(args.rows):
        if index % 2:
            prefix = [0, 3, *[5] * IMAGE_IDS, 4]
            learned = [*words(ANSWER_WORDS), 1]
        else:
            prefix = [0, *words(PROMPT_WORDS), 3]
            ids = torch.randint(0, args.codebook, (IMAGE_IDS,), generator=generator)
            learned = [*(args.text_ids + ids).tolist(), 4]
        rows.append((prefix + learned, [IGNORED_LABEL] * len(prefix) + learned))
    length = max(len(ids) for ids, _ in rows)
    pad = lambda ids, value: ids + [value] * (length - len(ids))  # noqa: E731
    ids = torch.tensor([pad(ids, 2) for ids, _ in rows])
    return {
        "input_ids": ids,
        "labels": torch.tensor([pad(labels, IGNORED_LABEL) for _, labels in rows]),
        "attention_mask": (ids != 2).long(),
        "image_features": torch.randn(args.rows // 2, IMAGE_IDS, 64, generator=generator),
    }


def loss_of(model: IllumeForConditionalGeneration, batch: dict[str, Tensor], arm: str) -> Tensor:
    """Return the mean loss of the batch over its labels."""
    if arm == "naive":
        return model(**batch, use_cache=False).loss
    if arm == "naive, other block masked":
        labels = batch["labels"][:, 1:]
        logits = model(**{k: v for k, v in batch.items() if k != "labels"}, use_cache=False).logits[:, :-1]
        is_image = torch.arange(logits.shape[-1], device=logits.device) >= model.config.num_text_ids
        of_image = (labels >= model.config.num_text_ids).unsqueeze(-1)
        logits = logits.masked_fill(is_image != of_image, -torch.inf)
        return F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED_LABEL)
    return model(**batch, fused_lm_head=True).loss


def run_arm(args: argparse.Namespace) -> dict[str, float]:
    """Loss, peak bytes for logits and tokens a second of one arm."""
    model, batch = build(args), {name: tensor.to(args.device) for name, tensor in mix(args).items()}
    add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
    if args.arm in ("labelled-logits", "block-logits"):
        use_logits(model, by_block=args.arm == "block-logits")
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None

    def step(arm: str | None) -> float:
        if arm is None:
            loss = model.model(**{k: v for k, v in batch.items() if k != "labels"}).last_hidden_state.mean()
        else:
            loss = loss_of(model, batch, arm)
        loss.backward()
        return float(loss.detach())

    now = time.process_time if args.clock == "cpu" else time.perf_counter
    without = _peak(args.device, lambda: step(None))
    peak = _peak(args.device, lambda: step(args.arm))
    seconds = []
    for _ in range(args.steps):
        started = now()
        loss = step(args.arm)
        if args.device != "cpu":
            torch.cuda.synchronize()
        seconds.append(now() - started)
    tokens = int(batch["attention_mask"].sum())
    return {
        "loss": loss,
        "logits_mib": (peak - without) / 2**20,
        "tokens_per_s": tokens / statistics.median(seconds),
        "labelled": int((batch["labels"] != IGNORED_LABEL).sum()) / tokens,
    }


def _peak(device: str, run: object) -> int:
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        run()  # type: ignore[operator]
        return torch.cuda.max_memory_allocated()
    Path("/proc/self/clear_refs").write_text("5")  # the kernel's high-water mark starts again
    run()  # type: ignore[operator]
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def main() -> None:
    """All arms, and the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text-ids", type=int, default=120_000)
    parser.add_argument("--codebook", type=int, default=16_384)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu where others use the machine too")
    parser.add_argument("--json", action="store_true", help="a line of JSON in the place of the table")
    parser.add_argument("--arm", choices=ARMS)
    args = parser.parse_args()
    if args.arm:
        torch.set_num_threads(args.threads)
        print(json.dumps(run_arm(args)))
        return
    found = {}
    for arm in ARMS:
        command = [sys.executable, __file__, *sys.argv[1:], "--arm", arm]
        found[arm] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    if args.json:
        print(json.dumps(found))
        return
    print(
        "| head | loss | peak for logits, MiB | of naive | tokens/s | of naive |\n| --- | --- | --- | --- | --- | --- |"
    )
    naive = found["naive"]
    for arm, row in found.items():
        memory, speed = naive["logits_mib"] / row["logits_mib"], row["tokens_per_s"] / naive["tokens_per_s"]
        print(
            f"| {arm} | {row['loss']:.5f} | {row['logits_mib']:,.0f} | 1/{memory:.1f} | {row['tokens_per_s']:,.0f}"
            f" | {speed:.2f}x |"
        )
    losses = [found[arm]["loss"] for arm in UNIFIED], [found[arm]["loss"] for arm in ARMS[3:]]
    for kind, values in zip(("unified", "block"), losses, strict=True):
        print(f"\nlargest difference between {kind} losses: {max(values) - min(values):.1e}")


if __name__ == "__main__":
    main()
