"""Distributed training that can be stopped and resumed: loop, engine, checkpoints, validation, log, result."""
