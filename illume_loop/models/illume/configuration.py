"""The configuration of an ILLUME model: its language model, its vision encoder and its codebook."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, get_args

from transformers import AutoConfig, LlamaConfig, PretrainedConfig, SiglipVisionConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

Distance = Literal["l2", "cosine"]
"""The distance by which the nearest code is chosen."""
Update = Literal["ema", "simvq"]
"""The way a codebook learns: by moving averages, or frozen and random behind a learned linear map."""
Quantised = Literal["features", "pixels"]
Paints = Literal["conv", "diffusion"]
NORM_GROUPS = 8
"""The number of groups in a detokenizer's group normalisation."""


class IllumeConfig(PretrainedConfig):
    """The configuration of an ILLUME model.

    The language model and the vision encoder may be any that transformers has.

    The unified vocabulary is `[0, num_text_ids)` for text and `[num_text_ids, num_text_ids + codebook_size)` for image
    ids. `text_config.vocab_size` is their sum, so that one embedding and one output matrix serve both. The first
    `num_inherited_ids` text ids came with the language model, by default all of them; the others are new.

    Images are `image_size` pixels square. They enter the encoder in slices of `slice_size` pixels, each encoded by
    itself, as the paper slices high-resolution input; by default a slice has the size that the encoder was made for. If
    the encoder's grid of patches is finer than `pooled_grid`, it is averaged down to that grid; otherwise it stays.

    `quantised` says what the image ids stand for: the encoder's features (the paper's semantic quantiser), or plain
    pixels, for comparison. `code_dim` is the width of a codebook entry; `code_distance` and `codebook_update` are
    explained in quantizer.py.

    The special ids are `bos`, `eos`, `pad`, `begin_image`, `end_image` and `image_placeholder`. The last one stands
    where continuous features enter.

    `detokenizer` chooses the network that paints. `conv` is a convolutional one of `detokenizer_width` channels.
    `diffusion` improves what `conv` paints by a UNet. The UNet has `detokenizer_channels` at its levels (multiples of
    8) and works on patches of `detokenizer_patch` pixels, folded into channels. It paints `detokenizer_upscale` (1 or
    2) times as large, in `detokenizer_steps` steps, with the guidance `detokenizer_guidance` (1 is none). Raises
    ValueError for a detokenizer that cannot be built.

    `max_slices` is the number of slices in which an image may be read beside its overview (slices.py). `own_reader`
    says that a separate encoder, which may be trained, reads images. The tokenizer's own encoder may not be trained,
    because ids must not move.
    """

    model_type = "illume"
    sub_configs: ClassVar[dict[str, type]] = {"text_config": AutoConfig, "vision_config": AutoConfig}

    def __init__(
        self,
        text_config: dict[str, Any] | PretrainedConfig | None = None,
        vision_config: dict[str, Any] | PretrainedConfig | None = None,
        image_size: int = 48,
        slice_size: int | None = None,
        pooled_grid: int | None = None,
        num_text_ids: int = 64,
        num_inherited_ids: int | None = None,
        codebook_size: int = 1024,
        code_dim: int = 16,
        code_distance: Distance = "l2",
        codebook_update: Update = "ema",
        quantizer_layers: int = 2,
        detokenizer: Paints = "conv",
        detokenizer_width: int = 128,
        detokenizer_channels: Sequence[int] = (96,),
        detokenizer_patch: int = 8,
        detokenizer_upscale: Literal[1, 2] = 1,
        detokenizer_steps: int = 4,
        detokenizer_guidance: float = 1.0,
        quantised: Quantised = "features",
        max_slices: int = 1,
        own_reader: bool = False,
        begin_image_token_id: int = 3,
        end_image_token_id: int = 4,
        image_placeholder_token_id: int = 5,
        **kwargs: Any,
    ) -> None:
        """Set all fields. Raises ValueError for an unknown distance, update or `quantised`."""
        for value, known in ((code_distance, Distance), (codebook_update, Update), (quantised, Quantised)):
            if value not in get_args(known):
                raise ValueError(f"{value!r} is none of {', '.join(get_args(known))}")
        self.text_config = _sub_config(text_config, LlamaConfig)
        self.vision_config = _sub_config(vision_config, SiglipVisionConfig)
        self.image_size = image_size
        self.slice_size = slice_size
        self.pooled_grid = pooled_grid
        self.num_text_ids = num_text_ids
        self.num_inherited_ids = num_inherited_ids
        self.codebook_size = codebook_size
        self.code_dim = code_dim
        self.code_distance = code_distance
        self.codebook_update = codebook_update
        self.quantizer_layers = quantizer_layers
        self.detokenizer = detokenizer
        self.detokenizer_width = detokenizer_width
        self.detokenizer_channels = list(detokenizer_channels)
        self.detokenizer_patch = detokenizer_patch
        self.detokenizer_upscale = detokenizer_upscale
        self.detokenizer_steps = detokenizer_steps
        self.detokenizer_guidance = detokenizer_guidance
        self.quantised = quantised
        self.max_slices = max_slices
        self.own_reader = own_reader
        self.begin_image_token_id = begin_image_token_id
        self.end_image_token_id = end_image_token_id
        self.image_placeholder_token_id = image_placeholder_token_id
        self.text_config.vocab_size = num_text_ids + codebook_size
        # An image id has one row in the embedding and one in the head; each learns at a rate of its own.
        self.text_config.tie_word_embeddings = False
        kwargs.setdefault("tie_word_embeddings", False)
        super().__init__(**kwargs)
        _check_detokenizer(self)

    @property
    def slices_per_side(self) -> int:
        """Slices along one side of the image, at least one."""
        return max(1, int(self.image_size // (self.slice_size or side_of(self.vision_config.image_size))))

    @property
    def patches_per_side(self) -> int:
        """Patches of the encoder along one side of the whole image."""
        slices = self.slices_per_side
        return int(slices * (self.image_size // slices // side_of(self.vision_config.patch_size)))

    @property
    def grid(self) -> int:
        """Image tokens along one side."""
        return int(self.pooled_grid or self.patches_per_side)

    @property
    def tokens_per_image(self) -> int:
        """L: the number of image tokens of one image."""
        return self.grid**2

    @property
    def pixels_per_token(self) -> int:
        """Pixels along one side of the square that an image token stands for."""
        return int(self.image_size // self.grid)

    @property
    def quantised_width(self) -> int:
        """The width of the vector that is quantised at each position."""
        return 3 * self.pixels_per_token**2 if self.quantised == "pixels" else int(self.vision_config.hidden_size)

    @property
    def painted_size(self) -> int:
        """Pixels along one side of a painted image."""
        upscale = self.detokenizer_upscale if self.detokenizer == "diffusion" else 1
        return self.grid * self.pixels_per_token * upscale


def side_of(size: int | tuple[int, int] | list[int]) -> int:
    """Return the side of a square size, which configurations give as one number or as two.

    Raises ValueError if the size is not square.
    """
    if isinstance(size, int):
        return size
    height, width = size
    if height != width:
        raise ValueError(f"{height} x {width} is not square")
    return int(height)


def _sub_config(value: dict[str, Any] | PretrainedConfig | None, default: type[PretrainedConfig]) -> PretrainedConfig:
    if isinstance(value, PretrainedConfig):
        return value
    if value is None:
        return default()
    model_type = value.get("model_type", default.model_type)
    config_class: type[PretrainedConfig] = CONFIG_MAPPING[model_type]
    return config_class(**{key: entry for key, entry in value.items() if key != "model_type"})


def _check_detokenizer(config: IllumeConfig) -> None:
    if config.detokenizer not in get_args(Paints):
        raise ValueError(f"detokenizer must be conv or diffusion, not {config.detokenizer!r}")
    if config.detokenizer == "conv":
        return
    channels, patch = config.detokenizer_channels, config.detokenizer_patch
    if not channels or any(count < 1 or count % NORM_GROUPS for count in channels):
        raise ValueError(f"detokenizer_channels must be multiples of {NORM_GROUPS}, not {channels}")
    if config.detokenizer_upscale not in (1, 2):
        raise ValueError(f"detokenizer_upscale must be 1 or 2, not {config.detokenizer_upscale}")
    if config.detokenizer_steps < 1 or config.detokenizer_guidance < 0:
        raise ValueError("detokenizer_steps must be at least 1, and detokenizer_guidance at least 0")
    # Each cell of the UNet shows one token or a part of one. From level to level the cells along a side are halved.
    halved = 2 ** (len(channels) - 1)
    cells = config.painted_size // max(1, patch)
    if cells * patch != config.painted_size or cells % config.grid or cells % halved:
        raise ValueError(
            f"detokenizer_patch must cut {config.painted_size} pixels into a number of cells that {config.grid} and "
            f"{halved} divide; {patch} does not"
        )
