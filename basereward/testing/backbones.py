"""Checks of a backbone: a response's states depend on its prompt and on itself alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from basereward.backbones.base import Backbone
from basereward.backbones.feature_cache import FeatureCache
from basereward.comparison import Comparison
from basereward.errors import DataError
from basereward.forest.forest import Forest
from basereward.storage.model_directory import CODE_SUFFIXES
from basereward.testing.material import at_ends, comparisons, forest_padding, image, sentence, widened
from basereward.testing.subject import Subject, checks_of, does_not_apply, require, require_alike

TOLERANCE = 1e-5
"""Tolerance of hidden states in fp32, times their largest absolute value where that is above 1."""

BF16_TOLERANCE = 0.05
"""Root mean square error of hidden states under bf16 autocast, as a share of their root mean square."""

PARTS = ("vision", "projector", "language")


def is_a_backbone(subject: Subject) -> None:
    """It is a `basereward.backbones.base.Backbone`."""
    require(
        issubclass(subject.cls, Backbone),
        f"{subject.cls.__name__} is no basereward.backbones.base.Backbone; derive it from that",
    )


def has_its_width(subject: Subject) -> None:
    """Hidden states are finite and [B, L, D], where D is `dim`."""
    backbone = _backbone(subject)
    forest = backbone.forest(_rows(backbone))
    hidden = _hidden(backbone, forest)
    wanted = [*forest.input_ids.shape, backbone.dim]
    require(
        list(hidden.shape) == wanted,
        f"dim is {backbone.dim}, but the hidden states of {wanted[0]} rows of {wanted[1]} tokens have shape "
        f"{list(hidden.shape)}, not {wanted}",
    )
    require(
        bool(at_ends(hidden, forest).isfinite().all()), "hidden states at the responses' ends are not finite"
    )


def gives_every_response_its_end(subject: Subject) -> None:
    """`ends` are the responses' last tokens, in the order of the comparisons and their responses."""
    backbone = _backbone(subject)
    rows = _rows(backbone)
    for shared in (True, False):
        forest = backbone.forest(rows, shared=shared)
        wanted = tuple(len(row.responses) for row in rows)
        require(
            forest.num_responses == wanted,
            f"the forest has {forest.num_responses} responses, the comparisons {wanted}",
        )
        numbers = forest.response.flatten()[forest.ends].tolist()
        require(
            numbers == list(range(sum(wanted))),
            f"the ends are of the responses {numbers}, not in their order",
        )


def encodes_alike_twice(subject: Subject) -> None:
    """A comparison's tokens and media are the same every time in evaluation."""
    backbone = _backbone(subject)
    for row in _rows(backbone):
        first, second = backbone.encode(row), backbone.encode(row)
        require(
            (first.prompt, first.responses) == (second.prompt, second.responses),
            f"the tokens of {row.id} differ from call to call",
        )
        require(first.media.keys() == second.media.keys(), f"the media of {row.id} differ from call to call")
        for name, value in first.media.items():
            require_alike(second.media[name], value, f"{name} of {row.id}, encoded twice")


def reads_the_response(subject: Subject) -> None:
    """Another prompt, another response, or another beginning of a response changes the state at its end."""
    backbone = _backbone(subject)
    base = ("what is shown", "a red cat sits on the mat")
    others = {
        "another prompt": ("who is it", base[1]),
        "another response": (base[0], "the blue bird runs"),
        "another beginning": (base[0], "the blue cat sits on the mat"),
    }
    before = _states(backbone, [Comparison(base[0], [base[1]])])
    for what, (prompt, response) in others.items():
        after = _states(backbone, [Comparison(prompt, [response])])
        require(
            float((after - before).abs().max()) > 1e-4,
            f"{what} does not change the state at the response's end",
        )


def ignores_padding(subject: Subject) -> None:
    """Neither how much padding there is, nor which tokens stand in it, changes a hidden state."""
    backbone = _backbone(subject)
    forest = backbone.forest(_rows(backbone))
    expected = at_ends(_hidden(backbone, forest), forest)
    ids = forest.input_ids.clone()
    ids[forest_padding(forest.branch)] = int(ids.flatten()[0])
    filled = replace(forest, input_ids=ids)
    _require_states(at_ends(_hidden(backbone, filled), filled), expected, "with other tokens in padding")
    wider = widened(forest, 7)
    _require_states(at_ends(_hidden(backbone, wider), wider), expected, "with 7 more places of padding")


def ignores_its_batch(subject: Subject) -> None:
    """A comparison alone, and in any place of a batch, has the same hidden states."""
    backbone = _backbone(subject)
    rows = _rows(backbone)
    together = _by_row(backbone, rows)
    for number, row in enumerate(rows):
        _require_states(_states(backbone, [row]), together[number], f"of {row.id} alone and in a batch")
    turned = _by_row(backbone, rows[::-1])[::-1]
    for row, actual, expected in zip(rows, turned, together, strict=True):
        _require_states(actual, expected, f"of {row.id} in a batch of another order")


def ignores_other_responses(subject: Subject) -> None:
    """A response alone, and beside others of its comparison, has the same hidden states."""
    backbone = _backbone(subject)
    for row, together in zip(_rows(backbone), _by_row(backbone, _rows(backbone)), strict=True):
        for number, response in enumerate(row.responses):
            alone = _states(backbone, [_with_responses(row, [response])])[0]
            _require_states(alone, together[number], f"of response {number} of {row.id} alone")
            beside = _states(backbone, [_with_responses(row, [sentence(99, 9), response])])[1]
            _require_states(beside, together[number], f"of response {number} of {row.id} after another one")


def shares_prompts_exactly(subject: Subject) -> None:
    """One copy of a prompt gives the states and the gradients of a copy for each response."""
    backbone = _backbone(subject)
    if not backbone.shares:
        forest = backbone.forest(_rows(backbone))
        require(
            forest.input_ids.shape[0] == sum(forest.num_responses),
            "shares is False, but a row holds several responses",
        )
        does_not_apply("it shares no prompts, and says so")
    trees = [backbone.encode(row) for row in _rows(backbone)]
    apart, expected = _states_and_gradients(backbone, backbone.pack(trees, shared=False))
    actual, gradients = _states_and_gradients(backbone, backbone.pack(trees, shared=True))
    _require_states(actual, apart, "with prompts shared and with a copy for each response")
    require(
        gradients.keys() == expected.keys(),
        "prompts shared and copied give gradients to different parameters",
    )
    for name, gradient in expected.items():
        scale = max(1.0, float(gradient.abs().max()))
        require_alike(
            gradients[name],
            gradient,
            f"the gradient of {name} with prompts shared and copied",
            tolerance=TOLERANCE * 10 * scale,
        )


def packs_exactly(subject: Subject) -> None:
    """Several trees in one row have the states that each has in a row of its own."""
    backbone = _backbone(subject)
    if not (backbone.packs and backbone.shares):
        does_not_apply("it takes one tree to a row, and says so")
    trees = [backbone.encode(row) for row in _rows(backbone)]
    forest, packed = backbone.pack(trees), backbone.pack(trees, row_tokens=2 * max(map(len, trees)))
    require(packed.input_ids.shape[0] < len(trees), "packs is True, but each tree has a row of its own")
    _require_states(
        at_ends(_hidden(backbone, packed), packed),
        at_ends(_hidden(backbone, forest), forest),
        "with several trees in a row and with one",
    )


def computes_what_is_read(subject: Subject) -> None:
    """The states at the ends of a forest whose `reads` is "ends" equal those of a forest that reads all."""
    backbone = _backbone(subject)
    forest = backbone.forest(_rows(backbone))
    actual, expected = (at_ends(_hidden(backbone, of), of) for of in (replace(forest, reads="ends"), forest))
    _require_states(actual, expected, 'where only the ends are read (forest.reads = "ends")')


def sees_or_refuses_images(subject: Subject) -> None:
    """Images and their order change the states; or images are refused, not ignored."""
    backbone = _backbone(subject)
    first, second = image(56, 56, 1), image(84, 56, 2)

    def asked(*images: Any) -> Comparison:
        return Comparison("what is shown", ["a cat", "a red dog"], images=images)

    if not _sees(backbone):
        try:
            backbone.encode(asked(first))
        except DataError:
            return
        require(False, "it has no part that sees, but passes over an image; raise DataError in encode")
    pairs = {
        "an image": (asked(first), asked()),
        "another image": (asked(first), asked(second)),
        "a second image": (asked(first), asked(first, second)),
        "the order of two images": (asked(first, second), asked(second, first)),
    }
    for what, (one, other) in pairs.items():
        difference = float((_states(backbone, [one]) - _states(backbone, [other])).abs().max())
        require(difference > 1e-4, f"{what} does not change the hidden states")


def takes_part_in_reading_images(subject: Subject) -> None:
    """With `always_runs_vision`, rows without images have the same states and give vision gradients."""
    backbone = _backbone(subject)
    if not _sees(backbone):
        does_not_apply("it has no part that sees")
    rows = [row for row in _rows(backbone) if not row.images]
    expected = _states(backbone, rows)
    backbone.always_runs_vision = True
    actual, gradients = _states_and_gradients(backbone, backbone.forest(rows))
    _require_states(actual, expected, "of texts, with always_runs_vision and without")
    _require_all_reached(backbone, gradients, " of texts with always_runs_vision")


def gives_the_same_with_a_cache(subject: Subject) -> None:
    """With vision frozen and a cache in use, the states are the same, written to it and read from it."""
    backbone = _backbone(subject)
    rows = _rows(backbone)
    expected = _states(backbone, rows)
    for part, module in backbone.parts().items():
        if part != "language":
            module.requires_grad_(False)
    with FeatureCache(subject.fresh_directory("cache")) as cache:
        backbone.attach_feature_cache(cache, "weights")
        for when in ("where it was empty", "where it has them all"):
            _require_states(_states(backbone, rows), expected, f"with a cache, {when}, and without one")


def is_deterministic_in_eval(subject: Subject) -> None:
    """In evaluation the same rows give the same states bit for bit, after a pass in training too."""
    backbone = _backbone(subject)
    rows = _rows(backbone)
    before = _states(backbone, rows)
    require_alike(_states(backbone, rows), before, "hidden states of the same rows, twice in evaluation")
    backbone.train()
    _hidden(backbone, backbone.forest(rows))
    backbone.eval()
    require_alike(
        _states(backbone, rows),
        before,
        "hidden states in evaluation, before and after a forward pass in training",
    )


def saves_and_loads(subject: Subject) -> None:
    """The same class with the saved directory as `model` gives the same states, bit for bit."""
    backbone = _backbone(subject)
    # As after a training: no weight is what it was made with.
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.requires_grad:
                parameter.mul_(1.0625)
    directory = subject.fresh_directory("saved")
    backbone.save(directory)
    runnable = sorted(path.name for path in directory.rglob("*") if path.suffix in CODE_SUFFIXES)
    require(not runnable, f"it saves {', '.join(runnable)}, which can run code; write safetensors")
    kept = {name: value for name, value in subject.options.items() if name not in backbone.unsaved_options}
    loaded = replace(subject, given=kept).build(model=str(directory), seed=1).eval()
    require(loaded.dim == backbone.dim, f"dim is {backbone.dim}, and {loaded.dim} when loaded")
    require(
        loaded.template_digest == backbone.template_digest, "the template's digest is another one when loaded"
    )
    rows = _rows(backbone)
    require_alike(_states(loaded, rows), _states(backbone, rows), "hidden states when loaded, and when saved")


def passes_gradients_on(subject: Subject) -> None:
    """Every parameter that is trained gets a gradient, and no part only zeros."""
    backbone = _backbone(subject)
    _, gradients = _states_and_gradients(backbone, backbone.forest(_rows(backbone)))
    _require_all_reached(backbone, gradients)
    for name, gradient in gradients.items():
        require(bool(gradient.isfinite().all()), f"the gradient of {name} is not finite")
    for part, module in backbone.parts().items():
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        has_any = any(parameter.grad is not None and parameter.grad.any() for parameter in trained)
        require(not trained or has_any, f"all gradients of part {part!r} are zero")


def stays_near_in_bf16(subject: Subject) -> None:
    """Under bf16 autocast the states differ from those in fp32 by at most 5 % in the root mean square."""
    backbone = _backbone(subject)
    rows = _rows(backbone)
    exact = _states(backbone, rows).float()
    with torch.autocast("cpu", torch.bfloat16):
        rough = _states(backbone, rows).float()
    error = float((rough - exact).square().mean().sqrt() / exact.square().mean().sqrt())
    require(
        error <= BF16_TOLERANCE,
        f"under bf16 autocast the states are off by {error:.3g} of their size; {BF16_TOLERANCE} is allowed",
    )


def names_its_parts(subject: Subject) -> None:
    """Each parameter is of one part, and the parts are `vision`, `projector` and `language`."""
    backbone = _backbone(subject)
    parts = backbone.parts()
    unknown = sorted(set(parts) - set(PARTS))
    require(not unknown, f"it has the parts {', '.join(unknown)}; parts are {', '.join(PARTS)}")
    require("language" in parts, "it has no part 'language'")
    owner: dict[int, str] = {}
    for part, module in parts.items():
        for parameter in module.parameters():
            other = owner.setdefault(id(parameter), part)
            require(other == part, f"a parameter is of two parts, {other!r} and {part!r}")
    for name, parameter in backbone.named_parameters():
        require(id(parameter) in owner, f"parameter {name} is of no part")


def names_its_blocks(subject: Subject) -> None:
    """`blocks` are modules of its own, none within another, in the order of the forward pass."""
    backbone = _backbone(subject)
    blocks = backbone.blocks()
    modules = {id(module) for module in backbone.modules()}
    for number, block in enumerate(blocks):
        require(id(block) in modules, f"block {number} is no module of it")
        inner = {id(module) for module in block.modules()} - {id(block)}
        require(
            not any(id(other) in inner for other in blocks), f"block {number} has another block within it"
        )
    order: list[int] = []
    hooks = [
        block.register_forward_hook(lambda module, inputs, output, number=number: order.append(number))
        for number, block in enumerate(blocks)
    ]
    try:
        _hidden(backbone, backbone.forest(_rows(backbone)))
    finally:
        for hook in hooks:
            hook.remove()
    ran = list(dict.fromkeys(order))
    require(ran == sorted(ran), f"the forward pass runs the blocks in the order {ran}")


def _backbone(subject: Subject) -> Any:
    return subject.build().eval()


def _sees(backbone: Backbone) -> bool:
    return "vision" in backbone.parts()


def _rows(backbone: Backbone) -> list[Comparison]:
    """Return comparisons with 0, 1 and 2 images where the backbone reads images; of texts alone elsewhere."""
    sees = _sees(backbone)
    return list(comparisons((0, 1, 2, 0) if sees else (0, 0, 0, 0)))


def _with_responses(row: Comparison, responses: Sequence[str]) -> Comparison:
    return Comparison(row.prompt, responses)


@torch.no_grad()
def _hidden(backbone: Any, forest: Forest) -> Tensor:
    hidden: Tensor = backbone(forest)
    return hidden


def _states(backbone: Any, rows: Sequence[Comparison]) -> Tensor:  # [N, D]
    forest = backbone.forest(rows)
    return at_ends(_hidden(backbone, forest), forest)


def _by_row(backbone: Any, rows: Sequence[Comparison]) -> list[Tensor]:
    return list(_states(backbone, rows).split([len(row.responses) for row in rows]))


def _states_and_gradients(backbone: nn.Module, forest: Forest) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the states at the ends, and the gradients of a sum that weighs them unequally."""
    backbone.zero_grad()
    states = at_ends(backbone(forest), forest)
    generator = torch.Generator().manual_seed(0)
    (states * torch.randn(states.shape, generator=generator)).mean(1).sum().backward()
    gradients = {
        name: parameter.grad.clone()
        for name, parameter in backbone.named_parameters()
        if parameter.grad is not None
    }
    return states.detach(), gradients


def _require_all_reached(backbone: nn.Module, gradients: Mapping[str, Tensor], of: str = "") -> None:
    trained = {name for name, parameter in backbone.named_parameters() if parameter.requires_grad}
    missing = sorted(trained - gradients.keys())
    listed = f"{', '.join(missing[:3])}{' and others' * (len(missing) > 3)}"
    require(not missing, f"no gradient{of} reaches {listed}")


def _require_states(actual: Tensor, expected: Tensor, what: str) -> None:
    scale = max(1.0, float(expected.abs().max()))
    require_alike(actual, expected, f"hidden states {what}", tolerance=TOLERANCE * scale)


CHECKS = checks_of(__name__)
