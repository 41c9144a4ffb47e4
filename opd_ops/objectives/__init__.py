"""What each objective's gradient really is, one file each, with the loss that trains it.

An objective is declared by a subclass of `opd_ops.recipe.Objective` and trained by a subclass of `loss.Loss`. To add
one, write both in a file here, name the loss in `losses.LOSSES`, and test it. The declarations of SFT, OPD, RLVR and
their mix are in `opd_ops.recipe`, since studies load those without torch.
"""
