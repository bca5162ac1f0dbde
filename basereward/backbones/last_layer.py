"""Computing only what is read of the last decoder layer.

A head that reads the last token of each response needs keys and values of all tokens there, but queries, the
layer's products after its attention, and the final norm only where it reads. The layer's own modules compute
them: hooks hand them the rows that count, and put what comes out in its place among zeros.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from basereward.forest.layout import ForestLayout

LAYER = {"input_layernorm", "self_attn", "post_attention_layernorm", "mlp"}
PROJECTIONS = {"q_proj", "k_proj", "v_proj", "o_proj"}


def can_prune(layer: nn.Module) -> bool:
    """Tell whether a decoder layer is known to add attention and then a perceptron to what comes in, each of
    a norm of it (Llama, Qwen and most that came after them).

    One told by the names of its modules: layers of another kind have others.
    """
    names = {name for name, _ in layer.named_children()}
    attention = getattr(layer, "self_attn", None)
    return names == LAYER and attention is not None and all(hasattr(attention, name) for name in PROJECTIONS)


class LastLayer:
    """The last layer of a decoder, of which only some rows may be computed.

    Hooks are not part of a module's name or state, so files stay as they are.
    """

    def __init__(self) -> None:
        self._places: Tensor | None = None  # [N] in B * L, while they alone are computed
        self._shape: tuple[int, ...] = ()
        self._hooked: tuple[nn.Module, ...] = ()
        self._handles: list[Any] = []

    def follow(self, layer: Any, norm: nn.Module | None) -> None:
        """Put hooks on a layer's modules, and on the norm after it, unless they are there already.

        Asked before each forward pass, since adapters may have taken the places of modules.
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
        # Not on the layer itself: activation checkpointing runs what is in it again, without its own hooks.
        self._handles = [attention.register_forward_pre_hook(self._begin, with_kwargs=True)]
        for module in (attention.q_proj, attention.o_proj, *modules[5:]):
            self._handles.append(module.register_forward_pre_hook(self._select))
            self._handles.append(module.register_forward_hook(self._spread))
        self._handles.append(layer.post_attention_layernorm.register_forward_pre_hook(self._select))
        self._handles.append(layer.mlp.register_forward_hook(self._spread))

    def _begin(self, module: nn.Module, inputs: Any, options: dict[str, Any]) -> Any:
        layout: ForestLayout | None = options.get("layout")
        self._places = None
        if layout is None or not layout.reads_ends:
            return None
        self._places = layout.ends
        return inputs, {**options, "reads_ends": True}

    def _select(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> Any:
        """Hand a module the rows [1, N, D] of its input [B, L, D]."""
        if self._places is None:
            return None
        states, *others = inputs
        self._shape = tuple(states.shape[:-1])
        return states.flatten(0, 1).index_select(0, self._places)[None], *others

    def _spread(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor | None:
        """Put what a module made, [1, N, D], in its places in [B, L, D]."""
        if self._places is None:
            return None
        rows = output.new_zeros(self._shape[0] * self._shape[1], output.shape[-1])
        return rows.index_copy(0, self._places, output[0]).unflatten(0, self._shape)
