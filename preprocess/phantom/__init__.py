"""Synthetic cohorts: brain-like volumes with tumours, in the file layouts of BraTS."""
