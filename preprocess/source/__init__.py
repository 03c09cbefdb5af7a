"""The source data: roles of files, NIfTI, label numbers, geometry."""
