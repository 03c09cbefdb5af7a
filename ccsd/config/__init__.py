"""Typed configuration: the models, their validation, and the JSON schema made from them."""

from ccsd.config.load import load_config
from ccsd.config.runtime import Runtime
from ccsd.config.schema import Config, Distillation, Evaluation, Model, Phantom, Train

__all__ = ["Config", "Distillation", "Evaluation", "Model", "Phantom", "Runtime", "Train", "load_config"]
