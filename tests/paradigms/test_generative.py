"""The judge is asked in both orders, is never guessed for, and says how far it can be trusted."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from rounding import TINY_REWARD
from torch.nn import functional

from basereward.comparison import Comparison
from basereward.config import Component
from basereward.data.ranking_pairs import pair_of
from basereward.errors import ConfigError, DataError
from basereward.scoring.reward_model import RewardModel

TEXT = "<think>the cat is there</think><answer>{}</answer>"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.add_language_head(tiny.save_qwen_vl(tmp_path_factory.mktemp("judge") / "model"))


def build(directory: Path, **options: Any) -> RewardModel:
    torch.manual_seed(0)
    model = RewardModel.build(
        backbone=Component("qwen-vl", {"model": str(directory)}), paradigm=Component("generative", options)
    )
    model.paradigm.eval()
    return model


def row(num: int = 2, **more: Any) -> Comparison:
    responses = ["a cat sits on the mat", "the dog runs", "a red house", "it is blue"][:num]
    return Comparison(
        "what is shown in the image?",
        responses,
        images=[tiny.image(84, 56, 1)],
        ranks=list(range(num)),
        **more,
    )


class Fixed(torch.nn.Module):
    """Gives the log-odds of "1" against "2" that it is told, one for each question."""

    def __init__(self, margins: list[float]) -> None:
        super().__init__()
        self.margins = torch.tensor(margins)

    def forward(self, hidden: torch.Tensor, tokens: torch.Tensor | None = None) -> torch.Tensor:
        others = 0 if tokens is not None else 2  # as likely each as "2"
        return torch.cat([self.margins[:, None], torch.zeros(len(self.margins), 1 + others)], dim=1)


def test_a_verdict_is_the_probability_of_one_token_against_the_other(directory: Path) -> None:
    model = build(directory)
    paradigm = model.paradigm
    margins = []
    for shown in (row().responses, row().responses[::-1]):
        messages = paradigm.template.messages(row().prompt, shown)
        tree = model.backbone.encode(Comparison(messages, ["1", "2"]))
        hidden = model.backbone(model.backbone.pack([tree]))[0, len(tree.prompt) - 1]
        first, second = ((paradigm.head.weight @ hidden)[ids[0]] for ids in tree.responses)
        margins.append((first - second).item())
    share = 1 / (1 + math.exp(-(margins[0] - margins[1]) / 2))
    [rewards] = model.score([row()])
    assert rewards == pytest.approx([share, 1 - share], abs=TINY_REWARD)


def test_a_judge_that_always_takes_the_first_prefers_none_and_is_found_out(directory: Path) -> None:
    model = build(directory)
    model.paradigm.head = Fixed([2.0, 2.0])
    assert model.score([row()]) == [[0.5, 0.5]]
    assert model.statistics == {
        "answers": 2,
        "parse_failure_rate": 0.0,
        "answer_mass": pytest.approx((math.exp(2) + 1) / (math.exp(2) + 3)),
        "position_consistency": 0.0,
        "first_preferred": 1.0,
    }


def test_what_is_counted_and_what_follows_for_three_responses(directory: Path) -> None:
    model = build(directory)
    # Pairs (0, 1), (0, 2), (1, 2), each asked with its first response shown first, then second.
    model.paradigm.head = Fixed([2.0, -1.0, 1.0, 3.0, -4.0, 2.0])
    [rewards] = model.score([row(3)])
    preferences = [(2 + 1) / 2, (1 - 3) / 2, (-4 - 2) / 2]
    p01, p02, p12 = (1 / (1 + math.exp(-margin)) for margin in preferences)
    assert rewards == pytest.approx([(p01 + p02) / 2, (1 - p01 + p12) / 2, (1 - p02 + 1 - p12) / 2])
    # Of three pairs, the second is preferred by its place; four of six verdicts are for what came first.
    assert model.statistics["position_consistency"] == pytest.approx(2 / 3)
    assert model.statistics["first_preferred"] == pytest.approx(4 / 6)


@pytest.mark.parametrize("aggregate", ["wins", "bradley-terry"])
def test_turned_round_responses_have_turned_round_rewards(directory: Path, aggregate: str) -> None:
    model = build(directory, aggregate=aggregate)
    [rewards] = model.score([row(4)])
    turned = Comparison(row(4).prompt, row(4).responses[::-1])
    assert model.score([turned])[0] == pytest.approx(rewards[::-1], abs=TINY_REWARD)


def test_a_budget_of_pairs_is_kept(directory: Path) -> None:
    model = build(directory, max_pairs=4)
    model.score([row(4)])
    assert model.statistics["answers"] == 8


def test_a_text_in_no_form_is_no_verdict_and_its_comparison_has_no_rewards(directory: Path) -> None:
    model = build(directory, template="reasoned", max_answer_tokens=5, num_votes=2)
    [(_, found)] = model.score_stream([row()])
    assert isinstance(found, DataError)
    assert str(found) == "responses: no verdict could be read in what the judge wrote on its pairs"
    assert model.statistics == {"answers": 4, "parse_failure_rate": 1.0}


def judged(*, verdicts: tuple[int, int] = (1, 2)) -> Comparison:
    orders = ((0, 1), (1, 0))
    judgements = [
        {"first": first, "second": second, "text": TEXT.format(verdict)}
        for (first, second), verdict in zip(orders, verdicts, strict=True)
    ]
    return row(meta={"judgements": judgements})


def test_it_learns_to_reason_and_votes(directory: Path, tmp_path: Path) -> None:
    model = build(directory, template="reasoned", max_answer_tokens=60)
    paradigm = model.paradigm.train()
    optimizer = torch.optim.Adam(paradigm.parameters(), 1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        output = paradigm.loss([judged()])
        output.loss.backward()
        optimizer.step()
    num_pairs, accuracy = output.sums[:2].tolist()
    assert (num_pairs, accuracy) == (1, 1)
    paradigm.eval()
    assert paradigm.judge(row()) == judged().meta["judgements"]
    assert model.score([row()]) == [[1.0, 0.0]]
    assert model.statistics["position_consistency"] == 1.0
    model.save(tmp_path / "saved")
    loaded = RewardModel.load(tmp_path / "saved")
    assert loaded.score([row()]) == [[1.0, 0.0]]
    loaded.paradigm.num_votes = 3
    assert loaded.score([row()]) == [[1.0, 0.0]]
    assert loaded.statistics["answers"] == 2 + 6


def test_its_loss_is_the_mean_likelihood_of_what_it_is_to_write(directory: Path) -> None:
    model = build(directory, template="reasoned")
    paradigm = model.paradigm
    costs = []
    for entry in judged().meta["judgements"]:
        shown = [row().responses[entry["first"]], row().responses[entry["second"]]]
        tree = model.backbone.encode(
            Comparison(paradigm.template.messages(row().prompt, shown), [entry["text"]])
        )
        hidden = model.backbone(model.backbone.pack([tree]))[0]
        logits = (hidden @ paradigm.head.weight.T)[len(tree.prompt) - 1 : -1]
        costs.append(functional.cross_entropy(logits, torch.tensor(tree.responses[0])).item())
    output = paradigm.loss([judged()])
    assert output.loss.item() == pytest.approx(sum(costs) / 2, rel=TINY_REWARD)
    assert output.weight.item() == 1


def test_a_tie_teaches_nothing(directory: Path) -> None:
    paradigm = build(directory).paradigm
    output = paradigm.loss([Comparison("q", ["a", "b"], ranks=[0, 0])])
    assert (output.loss.item(), output.weight.item()) == (0.0, 0.0)
    output.loss.backward()


def test_the_untied_pairs_of_a_ranking_with_a_tie_are_learned(directory: Path) -> None:
    paradigm = build(directory).paradigm
    ranking = row(3).replace(ranks=[0, 1, 1])
    output = paradigm.loss([ranking])
    # Two pairs, each asked about in both orders, which share its weight; the mean over the pairs.
    costs = [paradigm.loss([pair_of(ranking, pair)]).loss.item() for pair in ranking.pairs() if not pair.tie]
    assert output.loss.item() == pytest.approx(sum(costs) / 2, rel=TINY_REWARD)
    assert output.weight.item() == 2


def test_a_batch_without_a_text_to_learn_trains_nothing_where_the_tower_is_frozen(directory: Path) -> None:
    paradigm = build(directory, template="reasoned").paradigm.train()
    paradigm.backbone.parts()["vision"].requires_grad_(False)
    output = paradigm.loss([row(meta={"judgements": []}), row(meta={"judgements": []})])
    assert (output.loss.item(), output.weight.item()) == (0.0, 0.0)
    output.loss.backward()
    # As in every process that trains with this one, all that is trained has a gradient, of zeros.
    trained = [item for item in paradigm.backbone.parts()["language"].parameters() if item.grad is not None]
    assert trained
    assert not any(item.grad.any() for item in trained)


@pytest.mark.parametrize(
    ("judgements", "message"),
    [
        (
            None,
            'a reasoned judge learns from texts; give a list of {"first": 0, "second": 1, '
            '"text": "<think>...</think><answer>1</answer>"}',
        ),
        ([{"first": 0}], 'an entry is {"first": 0, "second": 1, "text": "..."}, not {\'first\': 0}'),
        (
            [{"first": 0, "second": 0, "text": "x"}],
            "first and second are two numbers of responses, 0 to 1, and text is a text; not 0, 0 and 'x'",
        ),
        (
            [{"first": 0, "second": 1, "text": "1"}],
            "a judgement's form is <think>...</think><answer>1</answer>; '1' isn't in it",
        ),
        (
            [{"first": 0, "second": 1, "text": TEXT.format(2)}],
            "the judgement of responses 0 and 1 prefers 1, whose rank is worse; leave it out",
        ),
    ],
)
def test_wrong_judgements_are_refused(directory: Path, judgements: Any, message: str) -> None:
    paradigm = build(directory, template="reasoned").paradigm.train()
    with pytest.raises(DataError) as error:
        paradigm.prepare(row(meta={} if judgements is None else {"judgements": judgements}))
    assert str(error.value) == f"meta.judgements: {message}"


def test_one_response_cant_be_judged(directory: Path) -> None:
    with pytest.raises(DataError) as error:
        build(directory).score([row(1)])
    assert str(error.value) == "responses: a judge compares responses; there is only one"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"template": "critique"},
            "judge template 'critique' asks for a critique; generative needs one that asks for a verdict",
        ),
        (
            {"num_votes": 3},
            "num_votes is 3, but template 'verdict' gives its probabilities at once, and asking again would "
            'change nothing; leave out num_votes, or set template = "reasoned"',
        ),
        ({"max_pairs": 0}, "paradigm 'generative': max_pairs is a number >= 1, not 0"),
        ({"temperature": 0.0}, "paradigm 'generative': temperature is a finite number > 0, not 0.0"),
    ],
)
def test_what_cant_be_is_refused(directory: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        build(directory, **options)
    assert str(error.value) == message


def test_images_must_stand_before_the_responses(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from basereward.message import Message
    from basereward.paradigms.judge_template import JudgeTemplate

    model = build(directory)
    image = row().images[0]
    monkeypatch.setattr(
        JudgeTemplate,
        "messages",
        lambda self, prompt, responses: [Message("user", (*responses, image, "which?"))],
    )
    with pytest.raises(DataError) as error:
        model.paradigm.prepare(row())
    assert str(error.value) == "prompt: the images of what is asked don't stand before the responses"
