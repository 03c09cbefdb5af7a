"""Repairs for Snakemake: one per study, no jobs left behind, and an executor that survives a busy SLURM."""
