"""Synthetic cohorts: brain-like volumes with tumours, of any task."""
