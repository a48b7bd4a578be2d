"""nanodrr's ``Registration`` with its gradient correlation and Adam, as in its documentation; two views."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from radgs.geometry import Camera, RigidTransform, rays
from radgs.images import Volume, Xray
from trials.chain import Shot
from trials.peers import cube, sampled, window
from trials.place import Place

_STEPS, _SAMPLES = 80, 110
_TURN_RATE, _SHIFT_RATE = 1e-2, 0.5  # of Adam, radians and mm


def nanodrr_registration(place: Place, shot: Shot, start: RigidTransform) -> dict[str, RigidTransform]:
    """By level, world_from_ct.

    Raises:
        ImportError: nanodrr is not installed.
    """
    return {level: _one(place, shot, start, level) for level in place.levels}


def _one(place: Place, shot: Shot, start: RigidTransform, level: str) -> RigidTransform:
    """Its module holds the pose and draws one view; its renderer draws the other from the same pose."""
    from nanodrr.drr import render
    from nanodrr.metrics import GradientNormalizedCrossCorrelation2d
    from nanodrr.registration import Registration

    centre = place.hospital.body.centres[level]
    # the vertebra is the origin, so that float32 keeps its digits
    local_from_ct = RigidTransform.from_rotation_translation(np.eye(3), -centre)
    subject = _subject(cube(place, level), local_from_ct)
    at = start.apply(centre)
    ap, la = (window(xray.camera, at) for xray in shot.xrays.values())
    fixed = [_seen(xray, camera, at) for xray, camera in zip(shot.xrays.values(), (ap, la), strict=True)]
    ap_from_la = (ap.camera_from_world @ la.camera_from_world.inverse()).tensor().float()
    behind = torch.tensor([2 * float(ap.camera_from_world.apply(at)[2])])
    begin = (ap.camera_from_world @ start @ local_from_ct.inverse()).inverse()
    module = Registration(subject, begin.tensor().float()[None], _k_inv(ap), behind, ap.height, ap.width)
    score = GradientNormalizedCrossCorrelation2d(sigma=1.0)
    optimizer = torch.optim.Adam(
        [{"params": [module._rot], "lr": _TURN_RATE}, {"params": [module._xyz], "lr": _SHIFT_RATE}]
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _STEPS)
    for _ in range(_STEPS):
        optimizer.zero_grad()
        other = render(subject, _k_inv(la), module.pose @ ap_from_la, behind, la.height, la.width, n_samples=_SAMPLES)
        drawn = (module(n_samples=_SAMPLES), other)
        (-sum(score(a, b).mean() for a, b in zip(drawn, fixed, strict=True))).backward()
        optimizer.step()
        schedule.step()
    local_from_ap = RigidTransform.nearest(module.pose[0].detach().double().numpy())
    return ap.camera_from_world.inverse() @ local_from_ap.inverse() @ local_from_ct


def _subject(volume: Volume, local_from_ct: RigidTransform):
    """Its volume: HU, which it turns into attenuation itself."""
    from nanodrr.data import Subject

    d, h, w = volume.array.shape
    grid = torch.diag(torch.tensor([2 / w, 2 / h, 2 / d, 1.0]))
    grid[:3, 3] = torch.tensor([1 / w, 1 / h, 1 / d]) - 1
    local_from_index = torch.from_numpy(local_from_ct.matrix @ volume.lps_from_index).float()
    hu = torch.from_numpy(volume.array.astype(np.float32))[None, None]
    nothing = torch.zeros_like(hu)
    back = torch.linalg.inv(local_from_index)
    return Subject(hu, nothing, local_from_index, back, grid, torch.zeros(3), max_label=0)


def _k_inv(camera: Camera) -> torch.Tensor:
    """Its pixel centres are at halves."""
    k = torch.from_numpy(camera.K.copy()).float()
    k[:2, 2] += 0.5
    return torch.linalg.inv(k)[None]


def _seen(xray: Xray, camera: Camera, at: NDArray[np.float64]) -> torch.Tensor:
    return torch.from_numpy(sampled(xray, rays(camera)[1], at))[None, None]
