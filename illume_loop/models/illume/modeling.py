"""ILLUME as Hugging Face classes: continuous features in, discrete ids out, one next-token loss.

Images enter as the vision encoder's features through a two-layer adapter, at the positions of the placeholder id. They
leave as ids of the codebook, which are appended to the text vocabulary (arXiv 2412.06673, section 3).

Invariants:

- `IllumeModel(...).last_hidden_state @ lm_head.weight.T` are exactly the logits over the unified vocabulary. TRL
  computes its losses from that product and never calls `IllumeForConditionalGeneration.forward`, so nothing may stand
  between the two.
"""

from __future__ import annotations

import copy
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from illume_loop.models.illume.configuration import IllumeConfig
from illume_loop.models.illume.vision import VisionTokenizer
from illume_loop.models.unified import causal_output, with_features


class IllumePreTrainedModel(PreTrainedModel):
    """The base class, with the shared loading and initialisation."""

    config: IllumeConfig
    config_class = IllumeConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _supports_sdpa = True

    def _init_weights(self, module: nn.Module) -> None:
        # The quantiser, the detokenizer and nn.TransformerEncoder keep torch's own initialisation.
        if isinstance(module, nn.Embedding):
            module.weight.data.normal_(0.0, 0.02)


def adapter_of(config: IllumeConfig) -> nn.Module:
    """Build the adapter through which features enter the language model.

    It has two layers, as in LLaVA-1.5 and the ILLUME+ release.
    """
    width = config.text_config.hidden_size
    return nn.Sequential(nn.Linear(config.vision_config.hidden_size, width), nn.GELU(), nn.Linear(width, width))


class IllumeModel(IllumePreTrainedModel):
    """The body: vision tokenizer, adapter and language model without its head."""

    def __init__(self, config: IllumeConfig) -> None:
        super().__init__(config)
        self.vision = VisionTokenizer(config)
        self.reader = AutoModel.from_config(config.vision_config) if config.own_reader else None
        self.adapter = adapter_of(config)
        self.language_model = AutoModel.from_config(config.text_config)
        # transformers adds the language model's own classes. The encoder is no direct child, so it is asked here.
        whole = getattr(self.vision.encoder, "_no_split_modules", None) or ()
        self._no_split_modules = [*whole, nn.TransformerEncoderLayer.__name__]
        self.post_init()  # type: ignore[no-untyped-call]

    def get_input_embeddings(self) -> nn.Module:
        """Return the unified table: text ids, then image ids."""
        embeddings: nn.Module = self.language_model.get_input_embeddings()
        return embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the unified table."""
        self.language_model.set_input_embeddings(value)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_features: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        pixel_values: Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Return the hidden states of a sequence over the unified vocabulary.

        `image_features` (N, L, H) are the encoder's features of the N images whose placeholders stand in `input_ids`,
        in reading order. `pixel_values` (N, 3, S, S) are those images themselves, in the place of features. Raises
        ValueError if placeholders and features do not match in number.
        """
        if inputs_embeds is None:
            assert input_ids is not None
            if pixel_values is not None:
                image_features = self.read(pixel_values)
            inputs_embeds = self.embed(input_ids, image_features)
        output: BaseModelOutputWithPast = self.language_model(
            inputs_embeds=inputs_embeds, attention_mask=attention_mask, **kwargs
        )
        return output

    def read(self, pixel_values: Tensor) -> Tensor:
        """Return the features (N, L, H) of pixels (N, 3, S, S), as the adapter takes them.

        See `VisionTokenizer.features`. The features have no gradient if the encoder is not trained.
        """
        reader = self.vision.encoder if self.reader is None else self.reader
        is_trained = any(weights.requires_grad for weights in reader.parameters())
        with nullcontext() if is_trained else torch.no_grad():
            return self.vision.features(pixel_values, reader)

    def add_reader(self) -> None:
        """Copy the tokenizer's encoder as a separate reader of images, unless there is one."""
        if self.reader is None:
            self.reader = copy.deepcopy(self.vision.encoder)
            self.config.own_reader = True

    def embed(self, input_ids: Tensor, image_features: Tensor | None) -> Tensor:
        """Return the input embeddings (B, T, H) of ids (B, T) and features."""
        embeds: Tensor = self.get_input_embeddings()(input_ids)
        return with_features(embeds, input_ids == self.config.image_placeholder_token_id, image_features, self.adapter)


class IllumeForConditionalGeneration(IllumePreTrainedModel, GenerationMixin):
    """ILLUME with its head over the unified vocabulary."""

    def __init__(self, config: IllumeConfig) -> None:
        super().__init__(config)
        self.model = IllumeModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()  # type: ignore[no-untyped-call]

    def get_input_embeddings(self) -> nn.Module:
        """Return the unified input table."""
        embeddings: nn.Module = self.model.get_input_embeddings()
        return embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the unified input table."""
        self.model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """Return the unified head."""
        head: nn.Module = self.lm_head
        return head

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replace the unified head."""
        self.lm_head = new_embeddings

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_features: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Return the logits (B, T, V), and with labels the next-token loss over those that are not -100."""
        output = self.model(input_ids=input_ids, attention_mask=attention_mask, image_features=image_features, **kwargs)
        logits = self.lm_head(output.last_hidden_state)
        return causal_output(output, logits, labels)

    def freeze_vision(self) -> None:
        """Freeze the vision tokenizer and the reader; leave the rest to be trained."""
        self.model.vision.requires_grad_(False)
        if self.model.reader is not None:
            self.model.reader.requires_grad_(False)

    def train(self, mode: bool = True) -> IllumeForConditionalGeneration:
        """Set the mode; keep a frozen vision tokenizer in evaluation mode, as its codebook must not move."""
        super().train(mode)
        if not any(p.requires_grad for p in self.model.vision.parameters()):
            self.model.vision.eval()
        return self
