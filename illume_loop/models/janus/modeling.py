"""Janus over one unified vocabulary, with two heads that never compete, in a form that TRL can train.

Text ids keep their numbers [0, V), and codebook ids follow as [V, V + K). Text has the language model's table and head.
Codebook ids enter Janus through an embedding and an aligner of their own. They leave through a head of two layers,
whose softmax is over the codebook alone.

TRL knows one product only: `last_hidden_state` times the output embedding. So the body itself applies the image head's
first layer at each position before a codebook id, and a flag says which head is meant:

    hidden     [ features (H) | text? | image? | 0 ... ]
    text rows  [ lm_head      |   0   | -10000 | 0 ... ]
    image rows [ vision_head  | -10000|   0    | 0 ... ]

The flag depends on the next id, which is known in training only. Drawing and writing use the heads themselves
(language.py).

Invariants:

- The product's softmax is exactly that of the head that Janus itself would use: an id whose logit has -10000 added has
  no probability in any precision.
- Parameters have the names of the published layout, so checkpoints load as they are.
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
"""Columns after the features, of which two are used. A width that is no multiple of 8 would slow tensor cores down."""
EXCLUDED = -1e4
"""The number that is added to the logits of the other head."""


class UnifiedJanusModel(JanusModel):
    """The body: embeddings of both kinds, the language model, and the image head's first layer."""

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        image_features: Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Return the hidden states (B, T, H + FLAGS) of unified ids (B, T).

        `image_features` (N, L, H_vision) are the vision encoder's features of the N images whose placeholders stand in
        `input_ids`, in reading order. Raises ValueError if placeholders and features do not match in number.
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
        """V: the number of text ids, and the first codebook id."""
        return int(self.config.get_text_config().vocab_size)

    def embed(self, input_ids: Tensor, image_features: Tensor | None) -> Tensor:
        """Return the input embeddings (B, T, H) of unified ids (B, T) and features; see `forward`."""
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
        """The weight (V + K, H + FLAGS); its gradient reaches the weights of both heads."""
        rows = [
            torch.cat([head.weight, head.weight.new_tensor([flags]).expand(len(head.weight), -1)], dim=1)
            for head, flags in ((self.text_head, _flags(0.0, EXCLUDED)), (self.image_head, _flags(EXCLUDED, 0.0)))
        ]
        return torch.cat(rows)

    @property
    def bias(self) -> Tensor:
        """The bias (V + K,): the image head's for codebook ids, and 0 for text ids, as the text head has none."""
        return F.pad(self.image_head.bias, (len(self.text_head.weight), 0))

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the logits (..., V + K) of the body's hidden states (..., H + FLAGS)."""
        return F.linear(hidden, self.weight, self.bias)


class UnifiedJanus(JanusForConditionalGeneration):
    """Janus as TRL sees it; it loads and saves the published layout, and saves as the published class."""

    def __init__(self, config: JanusConfig) -> None:
        # The parent's own `__init__` would build the body twice.
        JanusPreTrainedModel.__init__(self, config)
        self.model = UnifiedJanusModel(config)
        text_config = config.get_text_config()
        self.lm_head = nn.Linear(text_config.hidden_size, text_config.vocab_size, bias=False)
        self.post_init()  # type: ignore[no-untyped-call]

    def get_output_embeddings(self) -> nn.Module:
        """Return the head over the unified vocabulary."""
        return UnifiedHead(self.lm_head, self.model.generation_head.vision_head)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        image_features: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Return the logits (B, T, V + K), and with labels the next-token loss over those that are not -100."""
        output = self.model(input_ids=input_ids, attention_mask=attention_mask, image_features=image_features, **kwargs)
        logits = self.get_output_embeddings()(output.last_hidden_state)
        return causal_output(output, logits, labels)

    def freeze_vision(self) -> None:
        """Freeze the vision encoder and the image tokenizer.

        The language model, both heads, and the modules that embed features and codebook ids stay trainable.
        """
        for module in self._vision:
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> UnifiedJanus:
        """Set the mode; keep the vision encoder and the image tokenizer in evaluation mode, as nothing trains them."""
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
