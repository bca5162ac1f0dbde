"""One function per native op, with its plain-torch twin as the fallback; and helpers of the data path.

`BASEREWARD_KERNELS` chooses: auto (default) takes the compiled kernels where they are, cpp insists on them,
torch uses the plain ones. `status()` says which are in use and why. `Library` does the same for the ops of
other packages.
"""

from basereward.ops._library import Library, plain_kernels
from basereward.ops._loader import library, status
from basereward.ops.head import Activation, pairwise_reward_head
from basereward.ops.loss import STATISTICS, batched_bt_loss
from basereward.ops.packing import common_prefix, first_fit
from basereward.ops.reference import pair_statistics
from basereward.ops.reward_loss import pairwise_reward_loss

__all__ = [
    "STATISTICS",
    "Activation",
    "Library",
    "batched_bt_loss",
    "common_prefix",
    "first_fit",
    "pair_statistics",
    "pairwise_reward_head",
    "pairwise_reward_loss",
    "plain_kernels",
    "status",
]

if library.cpu.module is not None:
    from basereward.ops import _registration

    _rules = _registration.register()
