"""Figures and the page that shows how the runs ended."""

from radgs.report.ablation import write_ablation
from radgs.report.figures import draw_attention, draw_overlay, draw_slices, draw_steps, silhouette
from radgs.report.page import draw_registration, write_report

__all__ = [
    "draw_attention",
    "draw_overlay",
    "draw_registration",
    "draw_slices",
    "draw_steps",
    "silhouette",
    "write_ablation",
    "write_report",
]
