"""A world that is not ours: X-rays of real CTs by a projector, physics and bending that share nothing with training."""
