"""A gated reward head with a fused op of its own, as a plugin for BaseReward."""

from basereward import hookimpl


@hookimpl
def basereward_heads():
    """Return the names of the heads, and where their classes lie."""
    return {"swiglu": "basereward_example_op.heads:SwiGLU"}
