"""Configuration of an ILLUME model: which language model, which vision encoder, which codebook."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, get_args

from transformers import AutoConfig, LlamaConfig, PretrainedConfig, SiglipVisionConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

Distance = Literal["l2", "cosine"]
"""By which the nearest code is the nearest."""
Update = Literal["ema", "simvq"]
"""How a codebook learns: by moving averages, or as a frozen random one seen through a learned linear map."""
Quantised = Literal["features", "pixels"]
Paints = Literal["conv", "diffusion"]
NORM_GROUPS = 8
"""Groups of channels that are normalised together in detokenizers."""


class IllumeConfig(PretrainedConfig):
    """Sizes of the parts of an ILLUME model, whose language model and vision encoder are any that transformers has.

    The unified vocabulary is `[0, num_text_ids)` for text and `[num_text_ids, num_text_ids + codebook_size)` for image
    ids; `text_config.vocab_size` is their sum, so that one embedding and one output matrix serve both. The first
    `num_inherited_ids` text ids came with the language model, all of them where nothing is said; the others are new.

    Images are `image_size` pixels square and enter the encoder in slices of `slice_size` pixels, each encoded by itself
    (the paper slices high-resolution input the same way); without a word, of the size that the encoder was made for.
    Where the encoder's grid of patches is finer than `pooled_grid`, it is averaged down to that; otherwise it stays.

    `quantised` is what the image ids stand for: the encoder's features (the paper's semantic quantiser), or plain
    pixels, with which that is compared. `code_dim` is the width of a codebook entry; `code_distance` and
    `codebook_update` are explained in quantizer.py. Special ids: `bos`, `eos`, `pad`, `begin_image`, `end_image` and
    `image_placeholder`, the id that stands where continuous features enter.

    `detokenizer` paints: `conv`, of `detokenizer_width` channels, or `diffusion`, which makes more of what that paints
    by a UNet of `detokenizer_channels` at its levels (multiples of 8), on patches of `detokenizer_patch` pixels folded
    into channels. It paints `detokenizer_upscale` (1 or 2) times as large, in `detokenizer_steps` steps, guided by
    `detokenizer_guidance` (1 is not at all). Raises ValueError for one that cannot be built.

    `max_slices` is in how many slices an image may be read beside its overview (slices.py), and `own_reader` says that
    images are read by an encoder of their own, which may be trained: ids must not move, so the tokenizer's may not.
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
        """Raises ValueError for a distance, an update or something quantised that there is not."""
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
        # An image id has a row in the embedding and another one in the head, which learn at rates of their own.
        self.text_config.tie_word_embeddings = False
        kwargs.setdefault("tie_word_embeddings", False)
        super().__init__(**kwargs)
        _check_detokenizer(self)

    @property
    def slices_per_side(self) -> int:
        """Slices along one side, at least one."""
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
        """L: image tokens of one image."""
        return self.grid**2

    @property
    def pixels_per_token(self) -> int:
        """Pixels along one side of what an image token stands for."""
        return int(self.image_size // self.grid)

    @property
    def quantised_width(self) -> int:
        """Width of what is quantised at each position."""
        return 3 * self.pixels_per_token**2 if self.quantised == "pixels" else int(self.vision_config.hidden_size)

    @property
    def painted_size(self) -> int:
        """Pixels along one side of what is painted."""
        upscale = self.detokenizer_upscale if self.detokenizer == "diffusion" else 1
        return self.grid * self.pixels_per_token * upscale


def side_of(size: int | tuple[int, int] | list[int]) -> int:
    """The side of a square size, which configurations give as one number or as two. Raises ValueError for others."""
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
    # Each cell of the UNet shows one token or a part of one, and their number is halved between two levels.
    halved = 2 ** (len(channels) - 1)
    cells = config.painted_size // max(1, patch)
    if cells * patch != config.painted_size or cells % config.grid or cells % halved:
        raise ValueError(
            f"detokenizer_patch must cut {config.painted_size} pixels into a number of cells that {config.grid} and "
            f"{halved} divide; {patch} does not"
        )
