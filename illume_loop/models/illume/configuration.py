"""Configuration of an ILLUME model: which language model, which vision encoder, which codebook."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from transformers import AutoConfig, LlamaConfig, PretrainedConfig, SiglipVisionConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING


class IllumeConfig(PretrainedConfig):
    """Sizes of the parts of an ILLUME model.

    The unified vocabulary is `[0, num_text_ids)` for text and `[num_text_ids, num_text_ids + codebook_size)` for image
    ids; `text_config.vocab_size` is their sum, so that one embedding and one output matrix serve both.

    Images are `image_size` pixels square and enter the encoder in slices of `vision_config.image_size` pixels, each
    encoded by itself (the paper slices high-resolution input the same way).

    `quantised` is what the image ids stand for: the encoder's features (the paper's semantic quantiser), or plain
    pixels, with which that is compared. `code_dim` is the width of a codebook entry, `detokenizer_width` the channels
    of the convolutional detokenizer. Special ids: `bos`, `eos`, `pad`, `begin_image`, `end_image` and
    `image_placeholder`, the id that stands where continuous features enter.
    """

    model_type = "illume"
    sub_configs: ClassVar[dict[str, type]] = {"text_config": AutoConfig, "vision_config": AutoConfig}

    def __init__(
        self,
        text_config: dict[str, Any] | PretrainedConfig | None = None,
        vision_config: dict[str, Any] | PretrainedConfig | None = None,
        image_size: int = 48,
        num_text_ids: int = 64,
        codebook_size: int = 1024,
        code_dim: int = 16,
        quantizer_layers: int = 2,
        detokenizer_width: int = 128,
        quantised: Literal["features", "pixels"] = "features",
        begin_image_token_id: int = 3,
        end_image_token_id: int = 4,
        image_placeholder_token_id: int = 5,
        **kwargs: Any,
    ) -> None:
        self.text_config = _sub_config(text_config, LlamaConfig)
        self.vision_config = _sub_config(vision_config, SiglipVisionConfig)
        self.image_size = image_size
        self.num_text_ids = num_text_ids
        self.codebook_size = codebook_size
        self.code_dim = code_dim
        self.quantizer_layers = quantizer_layers
        self.detokenizer_width = detokenizer_width
        self.quantised = quantised
        self.begin_image_token_id = begin_image_token_id
        self.end_image_token_id = end_image_token_id
        self.image_placeholder_token_id = image_placeholder_token_id
        self.text_config.vocab_size = num_text_ids + codebook_size
        kwargs.setdefault("tie_word_embeddings", False)
        super().__init__(**kwargs)

    @property
    def grid(self) -> int:
        """Image tokens along one side."""
        return int(self.image_size // self.vision_config.patch_size)

    @property
    def quantised_width(self) -> int:
        """Width of what is quantised at each position."""
        if self.quantised == "pixels":
            return int(3 * self.vision_config.patch_size**2)
        return int(self.vision_config.hidden_size)

    @property
    def slices_per_side(self) -> int:
        """Slices along one side."""
        return int(self.image_size // self.vision_config.image_size)

    @property
    def tokens_per_image(self) -> int:
        """L: image tokens of one image."""
        return self.grid**2


def _sub_config(value: dict[str, Any] | PretrainedConfig | None, default: type[PretrainedConfig]) -> PretrainedConfig:
    if isinstance(value, PretrainedConfig):
        return value
    if value is None:
        return default()
    model_type = value.get("model_type", default.model_type)
    config_class: type[PretrainedConfig] = CONFIG_MAPPING[model_type]
    return config_class(**{key: entry for key, entry in value.items() if key != "model_type"})
