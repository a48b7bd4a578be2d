"""Every setting, once. The workflow validates ``config/config.yaml`` with these models, the library takes them.

Units are in the names: ``_mm``, ``_deg`` (degrees occur only here, in the CLI and in reports), ``_px``.
"""

from radgs.config.ablation import AblationRow, ablation_rows
from radgs.config.anatomy import (
    AnchorSettings,
    CropSettings,
    DetectionSettings,
    SegmentationSettings,
    TotalSegmentatorSettings,
    YoloSettings,
)
from radgs.config.read import Config, export_schema, load_config, read_yaml
from radgs.config.registration import EvaluationSettings, JudgementSettings, RefinementSettings, ReportSettings
from radgs.config.section import Level, Section, merged
from radgs.config.simulation import (
    CArmSettings,
    DemoSettings,
    PhysicsSettings,
    PopulationSettings,
    SimulationSettings,
    SpineMotionSettings,
    VariationSettings,
)
from radgs.config.training import (
    AblationSettings,
    LossSettings,
    MachineSettings,
    NetworkSettings,
    PatientStageSettings,
    RealSettings,
    StageSettings,
    TrainingSettings,
)

__all__ = [
    "AblationRow",
    "AblationSettings",
    "AnchorSettings",
    "CArmSettings",
    "Config",
    "CropSettings",
    "DemoSettings",
    "DetectionSettings",
    "EvaluationSettings",
    "JudgementSettings",
    "Level",
    "LossSettings",
    "MachineSettings",
    "NetworkSettings",
    "PatientStageSettings",
    "PhysicsSettings",
    "PopulationSettings",
    "RealSettings",
    "RefinementSettings",
    "ReportSettings",
    "Section",
    "SegmentationSettings",
    "SimulationSettings",
    "SpineMotionSettings",
    "StageSettings",
    "TotalSegmentatorSettings",
    "TrainingSettings",
    "VariationSettings",
    "YoloSettings",
    "ablation_rows",
    "export_schema",
    "load_config",
    "merged",
    "read_yaml",
]
