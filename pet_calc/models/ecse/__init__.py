"""ECSE: exact rotational symmetry of any backbone by a smooth average over local frames.

The Equivariant Coordinate System Ensemble [Pozdnyakov & Ceriotti, NeurIPS 2023, arXiv:2305.19302].
"""

from pet_calc.models.ecse.frames import FrameConfig, Frames, FrameSet, local_frames

__all__ = ["FrameConfig", "FrameSet", "Frames", "local_frames"]
