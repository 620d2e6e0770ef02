"""The speech language model: inputs, backbones, heads, sampling, generation."""

from lalia.lm.continuous import Flow, Regress
from lalia.lm.continuous_batch import ContinuousBatch, Running
from lalia.lm.ctc import CTC
from lalia.lm.depth import Depth
from lalia.lm.edge_units import EdgeUnits
from lalia.lm.generation import absorb, collect
from lalia.lm.graph import Graph
from lalia.lm.head import Head
from lalia.lm.heads import Linear
from lalia.lm.hf import HF
from lalia.lm.inputs import Lookup, Project
from lalia.lm.model import SpeechLM
from lalia.lm.sampling import Sampler, Sampling
from lalia.lm.state import State
from lalia.lm.weighing import Weight
from lalia.nn.depth import DepthTransformer
from lalia.nn.dual_tower import DualTower
from lalia.nn.transformer import Transformer

__all__ = [
    "CTC",
    "HF",
    "ContinuousBatch",
    "Depth",
    "DepthTransformer",
    "DualTower",
    "EdgeUnits",
    "Flow",
    "Graph",
    "Head",
    "Linear",
    "Lookup",
    "Project",
    "Regress",
    "Running",
    "Sampler",
    "Sampling",
    "SpeechLM",
    "State",
    "Transformer",
    "Weight",
    "absorb",
    "collect",
]
