"""Janus over one unified vocabulary, with two heads that never compete: what TRL can train.

Text ids keep their numbers [0, V), codebook ids follow as [V, V + K). Janus enters codebook ids through an embedding
and an aligner of their own, and leaves through a head of two layers, whose softmax is over the codebook alone; text has
the language model's table and head. TRL knows one product only, `last_hidden_state` times the output embedding. So the
body applies the image head's first layer itself wherever a codebook id comes next, and says in a flag which is meant:

    hidden     [ features (H) | text? | image? | 0 ... ]
    text rows  [ lm_head      |   0   | -10000 | 0 ... ]
    image rows [ vision_head  | -10000|   0    | 0 ... ]

Guarantee: the product's softmax is exactly that of the head that Janus itself would use, as what -10000 is added to has
no probability in any precision. Parameters have the names of the published layout, so checkpoints load as they are.

What the flag needs is known in training only, where the next id is given. Drawing and writing use the heads themselves
(language.py).
"""

from __future__ import annotations

from os import PathLike
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import JanusConfig, JanusForConditionalGeneration, JanusModel, JanusPreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from illume_loop.models.unified import causal_output, with_features

FLAGS = 8
"""Columns after the features; two are used. A width that is no multiple of 8 would cost tensor cores their speed."""
EXCLUDED = -1e4
"""What is added to the logits of the other head."""


class UnifiedJanusModel(JanusModel):
    """The body: embeddings of both kinds, the language model, and the image head's first layer."""

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        image_features: Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Hidden states (B, T, H + FLAGS) over unified ids (B, T).

        `image_features` (N, L, H_vision) are the vision encoder's features of the N images whose placeholders stand in
        `input_ids`, in reading order. Raises ValueError when placeholders and features do not match in number.
        """
        output: BaseModelOutputWithPast = self.language_model(
            inputs_embeds=self.embed(input_ids, image_features), attention_mask=attention_mask, **kwargs
        )
        draws = F.pad(input_ids[:, 1:] >= self.num_text_ids, (0, 1)).unsqueeze(-1)
        hidden = output.last_hidden_state
        assert hidden is not None
        image_head = self.generation_head
        features = torch.where(draws, image_head.activation_fn(image_head.proj_out(hidden)), hidden)
        flags = F.pad(torch.cat([~draws, draws], dim=-1).to(features.dtype), (0, FLAGS - 2))
        output.last_hidden_state = torch.cat([features, flags], dim=-1)
        return output

    @property
    def num_text_ids(self) -> int:
        """V: codebook ids begin here."""
        return int(self.config.get_text_config().vocab_size)

    def embed(self, input_ids: Tensor, image_features: Tensor | None) -> Tensor:
        """Unified ids (B, T) and features to input embeddings (B, T, H); see `forward`."""
        drawn = input_ids >= self.num_text_ids
        embeds: Tensor = self.language_model.get_input_embeddings()(input_ids.masked_fill(drawn, 0))
        codes = self.generation_aligner(self.generation_embeddings(input_ids[drawn] - self.num_text_ids))
        embeds = embeds.masked_scatter(drawn.unsqueeze(-1), codes.to(embeds.dtype))
        return with_features(embeds, input_ids == self.config.image_token_id, image_features, self.aligner)


class UnifiedHead(nn.Module):
    """Both heads as one linear layer over the body's hidden states; it owns no parameters."""

    def __init__(self, text_head: nn.Linear, image_head: nn.Linear) -> None:
        super().__init__()
        self.text_head = text_head
        self.image_head = image_head

    @property
    def weight(self) -> Tensor:
        """(V + K, H + FLAGS), with a gradient to the weights of both heads."""
        rows = [
            torch.cat([head.weight, head.weight.new_tensor([flags]).expand(len(head.weight), -1)], dim=1)
            for head, flags in ((self.text_head, _flags(0.0, EXCLUDED)), (self.image_head, _flags(EXCLUDED, 0.0)))
        ]
        return torch.cat(rows)

    @property
    def bias(self) -> Tensor:
        """(V + K,): the image head's, as the text head has none."""
        return F.pad(self.image_head.bias, (len(self.text_head.weight), 0))

    def forward(self, hidden: Tensor) -> Tensor:
        """Hidden states (..., H + FLAGS) of the body to logits (..., V + K)."""
        return F.linear(hidden, self.weight, self.bias)


class UnifiedJanus(JanusForConditionalGeneration):
    """Janus as TRL sees it. It loads and saves the published layout, and saves as the published class."""

    def __init__(self, config: JanusConfig) -> None:
        # Not the parent's own, which would make a body twice.
        JanusPreTrainedModel.__init__(self, config)
        self.model = UnifiedJanusModel(config)
        text_config = config.get_text_config()
        self.lm_head = nn.Linear(text_config.hidden_size, text_config.vocab_size, bias=False)
        self.post_init()  # type: ignore[no-untyped-call]

    def get_output_embeddings(self) -> nn.Module:
        """The head over the unified vocabulary."""
        return UnifiedHead(self.lm_head, self.model.generation_head.vision_head)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        image_features: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits (B, T, V + K) over the unified vocabulary, and the next-token loss where `labels` are not -100."""
        output = self.model(input_ids=input_ids, attention_mask=attention_mask, image_features=image_features, **kwargs)
        logits = self.get_output_embeddings()(output.last_hidden_state)
        return causal_output(output, logits, labels)

    def freeze_vision(self) -> None:
        """Leave the language model, both heads and what embeds features and codebook ids to be trained."""
        for module in self._vision:
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> UnifiedJanus:
        """As usual, but the vision encoder and the image tokenizer stay in evaluation mode: nothing trains them."""
        super().train(mode)
        for module in self._vision:
            module.eval()
        return self

    @property
    def _vision(self) -> tuple[nn.Module, nn.Module]:
        return self.model.vision_model, self.model.vqmodel

    def save_pretrained(self, save_directory: str | PathLike[str], *args: Any, **kwargs: Any) -> None:
        """Write the published layout under the published class's name, so that transformers loads it by itself."""
        with torch.device("meta"):
            published = JanusForConditionalGeneration(self.config)
        published.load_state_dict(self.state_dict(), assign=True)
        published.tie_weights()
        published.generation_config = self.generation_config
        published.save_pretrained(save_directory, *args, **kwargs)


def _flags(text: float, image: float) -> list[float]:
    return [text, image] + [0.0] * (FLAGS - 2)
