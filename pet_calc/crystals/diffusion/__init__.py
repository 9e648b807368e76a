"""UniMat: crystals as tensors over the periodic table, and diffusion of them.

`unimat` is the representation, `schedule` and `sampler` the diffusion, `sparse` and `unet` the
two denoisers. Nothing here knows files or ASE.
"""
