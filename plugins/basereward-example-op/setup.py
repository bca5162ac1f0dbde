"""Build the op where torch, a compiler and BaseReward are installed; metadata is in pyproject.toml."""

from setuptools import setup

try:
    from basereward.extension import native_ops
except ImportError:
    # An isolated build sees neither BaseReward nor torch: the package works through its plain-torch twin.
    print("basereward_example_op: pure Python; pip install --no-build-isolation builds the op")
    setup()
else:
    setup(**native_ops("basereward_example_op"))
