"""The speech language model: inputs, backbones, heads, sampling, generation."""

from lalia.lm.generation import collect
from lalia.lm.heads import Linear
from lalia.lm.hf import HF
from lalia.lm.inputs import Lookup, Project
from lalia.lm.model import SpeechLM
from lalia.lm.sampling import Sampler, Sampling
from lalia.nn.transformer import Transformer

__all__ = ["HF", "Linear", "Lookup", "Project", "Sampler", "Sampling", "SpeechLM", "Transformer", "collect"]
