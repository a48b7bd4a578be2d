"""The networks: RecM makes Gaussians out of X-rays, RegM registers the CT to them."""

from radgs.models.anchors import grid_anchors, raw_density
from radgs.models.attention import CounterfactualAttention
from radgs.models.encoders import Encoder, build_encoder
from radgs.models.recm import Observation, RecM, Reconstruction
from radgs.models.regm import RegM, warp
from radgs.models.weights import load_recm, load_regm, write_weights

__all__ = [
    "CounterfactualAttention",
    "Encoder",
    "Observation",
    "RecM",
    "Reconstruction",
    "RegM",
    "build_encoder",
    "grid_anchors",
    "load_recm",
    "load_regm",
    "raw_density",
    "warp",
    "write_weights",
]
