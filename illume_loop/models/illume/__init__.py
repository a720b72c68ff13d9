"""The `illume` backend; its import registers the classes with transformers' Auto classes."""

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoProcessor

from illume_loop.models.illume.configuration import IllumeConfig
from illume_loop.models.illume.modeling import IllumeForConditionalGeneration, IllumeModel
from illume_loop.models.illume.processing import IllumeProcessor

AutoConfig.register("illume", IllumeConfig, exist_ok=True)
AutoModel.register(IllumeConfig, IllumeModel, exist_ok=True)
AutoModelForCausalLM.register(IllumeConfig, IllumeForConditionalGeneration, exist_ok=True)
AutoProcessor.register(IllumeConfig, IllumeProcessor, exist_ok=True)

__all__ = ["IllumeConfig", "IllumeForConditionalGeneration", "IllumeModel", "IllumeProcessor"]
