"""Training priors: `train(config)`, exact to resume, on one process or many."""

from .config import (
    DataConfig,
    LoopConfig,
    LossConfig,
    OptimizerConfig,
    TrainConfig,
    load_config,
)
from .loop import train

__all__ = [
    "DataConfig",
    "LoopConfig",
    "LossConfig",
    "OptimizerConfig",
    "TrainConfig",
    "load_config",
    "train",
]
