"""UniMat: crystals as tensors over the periodic table, and diffusion of them.

`unimat` is the representation, `schedule` and `sampler` the diffusion, `sparse` the denoiser of
locations and `occupancy` the model of compositions. Nothing here reads files or imports ASE.
"""
