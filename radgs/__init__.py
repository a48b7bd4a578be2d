"""radgs: where a single vertebra is, from a CT and two calibrated X-rays."""

__version__ = "0.1.0"
