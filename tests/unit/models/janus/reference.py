"""Log-probabilities from transformers' own modules, one row at a time, without padding, cache or any class of ours."""

from __future__ import annotations

from functools import singledispatchmethod

import torch
from PIL import Image
from torch import Tensor
from transformers import JanusForConditionalGeneration, JanusProcessor

from illume_loop.models.janus.sequences import CAPTION
from illume_loop.protocols import CorrectRow, DrawRow, ImageIds, ReadRow


class Reference:
    """Scores rows by the modules that `generate` uses: the text head for text, the generation head for images."""

    def __init__(self, model: JanusForConditionalGeneration, processor: JanusProcessor) -> None:
        self.model = model
        self.processor = processor

    def asked(self, content: list[dict[str, str]], mode: str, images: list[Image.Image] | None) -> dict[str, Tensor]:
        """One turn of the user as the processor prepares it."""
        turn = [{"role": "user", "content": content}]
        text = self.processor.apply_chat_template(turn, add_generation_prompt=True)
        prepared: dict[str, Tensor] = self.processor(
            text=[text], images=images, generation_mode=mode, return_tensors="pt"
        )
        return prepared

    @torch.no_grad()
    def drawn(self, embeds: Tensor, image_ids: ImageIds) -> Tensor:
        """log p (L, K) over the codebook at each id of an image that follows embeddings (1, T, H)."""
        ids = torch.from_numpy(image_ids).long()
        codes = self.model.prepare_embeddings_for_image_generation(ids[None, :-1])
        hidden = self.model.model.language_model(inputs_embeds=torch.cat([embeds, codes], dim=1)).last_hidden_state
        return torch.log_softmax(self.model.model.generation_head(hidden[0, -len(ids) :]), dim=-1)

    @torch.no_grad()
    def written(self, prefix: dict[str, Tensor], text_ids: list[int]) -> list[float]:
        """log p of each text id after a prefix, by the published class's own forward pass."""
        ids = torch.cat([prefix["input_ids"], torch.tensor([text_ids])], dim=1)
        logits = self.model(input_ids=ids, pixel_values=prefix.get("pixel_values")).logits[0]
        log_probs = torch.log_softmax(logits[-len(text_ids) - 1 : -1], dim=-1)
        return [float(row[i]) for row, i in zip(log_probs, text_ids, strict=True)]

    def answer(self, text: str) -> list[int]:
        """The ids of an answer, to which the template gives a space."""
        ids: list[int] = self.processor.tokenizer(f" {text}", add_special_tokens=False)["input_ids"]
        return ids

    @singledispatchmethod
    def log_probs(self, row: object) -> list[float]:
        """log p of each id that a row teaches."""
        raise TypeError(row)

    @log_probs.register
    def _(self, row: DrawRow) -> list[float]:
        return self.image(row.prompt, row.image_ids)

    @log_probs.register
    def _(self, row: ReadRow) -> list[float]:
        prefix = self.about(row.image, row.instruction or CAPTION)
        return self.written(prefix, [*self.answer(row.caption), self.processor.tokenizer.eos_token_id])

    @log_probs.register
    def _(self, row: CorrectRow) -> list[float]:
        prefix = self.about(row.image, row.instruction)
        tokenizer = self.processor.tokenizer
        answer = [*self.answer(row.answer), tokenizer.eos_token_id]
        said = [[{"type": "image"}, {"type": "text", "text": row.instruction}], row.answer, row.request]
        turns = [
            {"role": role, "content": [{"type": "text", "text": text}] if isinstance(text, str) else text}
            for role, text in zip(("user", "assistant", "user"), said, strict=True)
        ]
        text = self.processor.apply_chat_template(turns, add_generation_prompt=True)
        second = self.processor(text=[text], images=[row.image], generation_mode="text", return_tensors="pt")
        begin = torch.tensor([[tokenizer.convert_tokens_to_ids(self.processor.image_start_token)]])
        ids = torch.cat([second["input_ids"], begin], dim=1)
        with torch.no_grad():
            features = self.model.model.get_image_features(prefix["pixel_values"]).pooler_output
            embeds = self.model.get_input_embeddings()(ids)
            slots = (ids == self.model.config.image_token_id).unsqueeze(-1)
            embeds = embeds.masked_scatter(slots, features)
        drawn = self.drawn(embeds, row.image_ids)
        begins = self.written(second, begin[0].tolist())
        return self.written(prefix, answer) + begins + [float(drawn[at, i]) for at, i in enumerate(row.image_ids)]

    def image(self, prompt: str, image_ids: ImageIds) -> list[float]:
        """log p of each id of an image, given its prompt."""
        prefix = self.asked([{"type": "text", "text": prompt}], "image", None)
        drawn = self.drawn(self.model.get_input_embeddings()(prefix["input_ids"]), image_ids)
        return [float(drawn[at, i]) for at, i in enumerate(image_ids)]

    def about(self, image: Image.Image, instruction: str) -> dict[str, Tensor]:
        """A question about an image."""
        return self.asked([{"type": "image"}, {"type": "text", "text": instruction}], "text", [image])
