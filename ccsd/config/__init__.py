"""Typed configuration: the models, their validation, and the JSON schema made from them."""

from ccsd.config.load import load_config
from ccsd.config.method import Distillation, Model
from ccsd.config.runtime import Runtime
from ccsd.config.schema import Config, Evaluation, Phantom, Train

__all__ = ["Config", "Distillation", "Evaluation", "Model", "Phantom", "Runtime", "Train", "load_config"]
