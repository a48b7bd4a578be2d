"""Vertebrae: levels, label maps, who segments, who detects, crops, and what the networks see of them."""

from radgs.anatomy.audit import LevelAudit, audit_labels, read_audit, write_audit
from radgs.anatomy.boxes import Box, Detections, LevelDetector, ProvidedBoxes
from radgs.anatomy.crops import VertebraCrop, crop_vertebrae, fit_anchors, read_crop
from radgs.anatomy.detection import detect_provided, detect_trained, find_levels, place_given, read_levels
from radgs.anatomy.levels import LEVELS, cranio_caudal, level_name, neighbours, verse_from_totalsegmentator
from radgs.anatomy.locating import locate
from radgs.anatomy.matching import Band, Matcher, off_cost, vertex
from radgs.anatomy.provided import ProvidedLabels
from radgs.anatomy.segmentation import Segmenter, make_segmenter, read_labelled_ct, segment
from radgs.anatomy.tissue import SpineTissue, split_tissue
from radgs.anatomy.totalsegmentator import TotalSegmentator, required_weights
from radgs.anatomy.views import VertebraViews, cut_views, world_from_crop

__all__ = [
    "LEVELS",
    "Band",
    "Box",
    "Detections",
    "LevelAudit",
    "LevelDetector",
    "Matcher",
    "ProvidedBoxes",
    "ProvidedLabels",
    "Segmenter",
    "SpineTissue",
    "TotalSegmentator",
    "VertebraCrop",
    "VertebraViews",
    "audit_labels",
    "cranio_caudal",
    "crop_vertebrae",
    "cut_views",
    "detect_provided",
    "detect_trained",
    "find_levels",
    "fit_anchors",
    "level_name",
    "locate",
    "make_segmenter",
    "neighbours",
    "off_cost",
    "place_given",
    "read_audit",
    "read_crop",
    "read_labelled_ct",
    "read_levels",
    "required_weights",
    "segment",
    "split_tissue",
    "verse_from_totalsegmentator",
    "vertex",
    "world_from_crop",
    "write_audit",
]
