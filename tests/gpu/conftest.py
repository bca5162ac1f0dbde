"""Tests that need a CUDA device and kernels compiled for it."""

import pytest
import torch

from basereward import ops


def pytest_collection_modifyitems(items):
    status = ops.status()["cuda"]
    if not torch.cuda.is_available():
        reason = "there is no CUDA device"
    elif status["kernels"] != "cpp":
        reason = status["reason"]
    else:
        return
    for item in items:
        if "tests/gpu" in item.path.as_posix():
            item.add_marker(pytest.mark.skip(reason=reason))
