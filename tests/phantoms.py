"""A small spine whose every number is known: blocks of bone in a block of soft tissue."""

import numpy as np

from radgs.images import Volume

LEVEL_NUMBERS = {"T12": 19, "L1": 20, "L2": 21}


def block_spine(shape=(48, 40, 44), spacing=(2.5, 2.5, 3.0)) -> tuple[Volume, Volume]:
    """CT (HU) and label map (VerSe) with three asymmetric vertebrae; L1 in the middle of the volume."""
    hu = np.full(shape, -1000.0, dtype=np.float32)
    hu[2:-2, 4:-4, 4:-4] = 30.0
    labels = np.zeros(shape, dtype=np.uint8)
    for z, number in ((32, 19), (22, 20), (12, 21)):
        body = (slice(z, z + 8), slice(12, 22), slice(14, 28))
        spinous = (slice(z + 1, z + 4), slice(22, 32), slice(19, 22))
        transverse = (slice(z + 4, z + 7), slice(20, 24), slice(10, 34))
        foramen = (slice(z + 5, z + 7), slice(14, 18), slice(23, 26))
        for part, value in ((body, 350.0), (spinous, 600.0), (transverse, 450.0)):
            hu[part], labels[part] = value, number
        hu[foramen] = 900.0
    origin = -np.array(spacing) * (np.array(shape[::-1]) - 1) / 2 + [11.0, -7.0, 40.0]
    return Volume.axis_parallel(hu, spacing, origin), Volume.axis_parallel(labels, spacing, origin)
