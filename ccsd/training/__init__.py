"""Distributed training that can be stopped and resumed: engine, checkpoints, validation, record."""
