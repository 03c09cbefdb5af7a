"""Workarounds for Snakemake: one process per study, no jobs left behind, an executor that survives a busy SLURM."""
