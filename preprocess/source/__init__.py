"""What comes in: which file is what, NIfTI, label numbers, geometry."""
