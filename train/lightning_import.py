"""The one place that imports the trainer, without its warnings."""

import warnings

with warnings.catch_warnings():
    # Deprecations between the trainer and what it builds on: nothing that a user can act on.
    warnings.simplefilter("ignore")
    import lightning.pytorch as pl
    from lightning.fabric.utilities.exceptions import MisconfigurationException
    from lightning.pytorch.callbacks import Callback, ModelCheckpoint, RichProgressBar
    from lightning.pytorch.loggers import TensorBoardLogger
    from lightning.pytorch.strategies import DDPStrategy

__all__ = [
    "Callback",
    "DDPStrategy",
    "MisconfigurationException",
    "ModelCheckpoint",
    "RichProgressBar",
    "TensorBoardLogger",
    "pl",
]
