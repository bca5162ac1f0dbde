"""Skip the rows of the last decoder layer that no head reads.

A head that reads the last token of each response needs keys and values of all L tokens there, but queries,
the products after attention, and the final norm only at its N ends. Hooks on the layer's own modules select
and scatter those rows, so adapters, sharding and the names in saved files are not concerned:

    [B, L, D] --+-- input_layernorm --+-- k_proj, v_proj --------------------+
                |                     +-- (select) q_proj (scatter) --- attention
                |                                                            |
                +--------- + ------------- (scatter) o_proj (select) --------+
                           |
                           +-- (select) post_attention_layernorm -- mlp (scatter) --+
                           |                                                        |
                           +----------------------- + ------------------------------+
                                                    +-- (select) norm (scatter) --> [B, L, D]

Select gathers the rows [1, N, D] of [B, L, D]; scatter puts rows back in their places among zeros.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from basereward.forest.layout import ForestLayout

LAYER = {"input_layernorm", "self_attn", "post_attention_layernorm", "mlp"}
PROJECTIONS = {"q_proj", "k_proj", "v_proj", "o_proj"}


def can_skip_rows(layer: nn.Module) -> bool:
    """Tell whether a decoder layer is a known one, with pre-norm attention and a pre-norm MLP (Llama, Qwen).

    Known by the names of its modules: layers of another kind have others.
    """
    modules = dict(layer.named_children())
    return set(modules) == LAYER and all(hasattr(modules["self_attn"], name) for name in PROJECTIONS)


class LastLayerRows:
    """Hooks that compute the rows of a decoder's last layer at a forest's ends only.

    Hooks are not part of a module's name or state, so files stay as they are.
    """

    def __init__(self) -> None:
        self._rows: Tensor | None = None  # [N] flat positions in B * L while they alone are computed
        self._shape: tuple[int, ...] = ()
        self._hooked: tuple[nn.Module, ...] = ()
        self._handles: list[Any] = []

    def install(self, layer: Any, norm: nn.Module | None) -> None:
        """Put hooks on a layer's modules, and on the norm after it, unless they are there already.

        Called before each forward pass, since adapters may have replaced modules.
        """
        attention = layer.self_attn
        modules: tuple[nn.Module, ...] = (
            attention,
            attention.q_proj,
            attention.o_proj,
            layer.post_attention_layernorm,
            layer.mlp,
        )
        if norm is not None:
            modules += (norm,)
        if tuple(map(id, modules)) == tuple(map(id, self._hooked)):
            return
        for handle in self._handles:
            handle.remove()
        self._hooked = modules
        # Not on the layer itself: activation checkpointing recomputes its modules without the layer's hooks.
        self._handles = [attention.register_forward_pre_hook(self._begin, with_kwargs=True)]
        for module in (attention.q_proj, attention.o_proj, *modules[5:]):
            self._handles.append(module.register_forward_pre_hook(self._select))
            self._handles.append(module.register_forward_hook(self._scatter))
        self._handles.append(layer.post_attention_layernorm.register_forward_pre_hook(self._select))
        self._handles.append(layer.mlp.register_forward_hook(self._scatter))

    def _begin(self, module: nn.Module, inputs: Any, options: dict[str, Any]) -> Any:
        layout: ForestLayout | None = options.get("layout")
        self._rows = None
        if layout is None or not layout.reads_ends:
            return None
        self._rows = layout.ends
        return inputs, {**options, "reads_ends": True}

    def _select(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> Any:
        """Replace a module's input [B, L, D] by its rows [1, N, D]."""
        if self._rows is None:
            return None
        states, *others = inputs
        self._shape = tuple(states.shape[:-1])
        return states.flatten(0, 1).index_select(0, self._rows)[None], *others

    def _scatter(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor | None:
        """Replace a module's output [1, N, D] by [B, L, D], zero elsewhere."""
        if self._rows is None:
            return None
        states = output.new_zeros(self._shape[0] * self._shape[1], output.shape[-1])
        return torch.unflatten(states.index_copy(0, self._rows, output[0]), 0, self._shape)
