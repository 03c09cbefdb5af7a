"""Distributed commands as jobs: launch through submitit, re-attach, requeue. Knows nothing of the method."""
