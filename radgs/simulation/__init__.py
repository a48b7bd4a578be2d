"""Training and test data from CTs: a spine that bends, a C-arm that turns, counts as a detector sees them."""

from radgs.simulation.carm import CArm
from radgs.simulation.demo import demo_shot_files, fetch_demo_ct, make_demo_shots, simulate_shots
from radgs.simulation.pairs import SimulatedPairs, simulate_pairs
from radgs.simulation.population import simulate_population
from radgs.simulation.radiographs import SimulatedRadiographs, simulate_radiographs
from radgs.simulation.shards import VERTEBRA_TABLES, ShardedField, ShardedPairs
from radgs.simulation.spine import ArticulatedSpine, SpinePose, sample_spine_pose

__all__ = [
    "VERTEBRA_TABLES",
    "ArticulatedSpine",
    "CArm",
    "ShardedField",
    "ShardedPairs",
    "SimulatedPairs",
    "SimulatedRadiographs",
    "SpinePose",
    "demo_shot_files",
    "fetch_demo_ct",
    "make_demo_shots",
    "sample_spine_pose",
    "simulate_pairs",
    "simulate_population",
    "simulate_radiographs",
    "simulate_shots",
]
