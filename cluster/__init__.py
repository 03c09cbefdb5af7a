"""Run distributed commands as jobs: launch through submitit, re-attach, requeue. Independent of the method."""
