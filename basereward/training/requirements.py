"""The optional libraries that a run needs."""

from __future__ import annotations

from basereward.backbones import quantization
from basereward.config.run import RunConfig
from basereward.training import lora, optimizers


def check_installed(run: RunConfig) -> None:
    """Raise unless the libraries of a run's settings are installed; called before rows or weights are read.

    Raises:
        ConfigError: Naming the library, and what installs it.
    """
    if run.train.lora is not None:
        lora.peft_config_class()
    optimizers.check_installed(run.train)
    if run.backbone.options.get("quantize") is not None:
        quantization.check_installed()
