"""Typed configuration: the models, their validation, and the JSON schema made from them."""

from ccsd.config.load import load_config
from ccsd.config.schema import Config, Distillation, Evaluation, Model, Phantom, Runtime, Train

__all__ = ["Config", "Distillation", "Evaluation", "Model", "Phantom", "Runtime", "Train", "load_config"]
