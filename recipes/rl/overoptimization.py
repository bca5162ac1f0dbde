"""Does an ensemble delay overoptimization? Best of n of the small policy's answers, by weak rewards.

Run as `python recipes/rl/overoptimization.py`. Five proxies that differ by seed alone are trained on few
ratings of products, a gold reward on many of film reviews; the candidates are those of candidates.py, which
none was trained on. `basereward best-of-n --gold` reports on the ensemble of the five.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from basereward_mini import smollm2

from basereward.cli import main as basereward

RECIPES = Path(__file__).parent
NUM_MEMBERS = 5
NUM_GOLD_TEXTS, NUM_PROXY_TEXTS = 1500, 240
DATA = {
    "movies": ("texts=movies", f"num_texts={NUM_GOLD_TEXTS}"),
    "products": ("texts=products", f"num_texts={NUM_PROXY_TEXTS}"),
    "movies-test": ("texts=movies", "split=test", "num_texts=480"),
}


def run(*command: str) -> None:
    """Run a command of basereward."""
    if basereward(list(command)):
        raise SystemExit(f"basereward {' '.join(command)} failed")


def trained(name: str, recipe: str, rows: str, place: Path, *, num_layers: int, seed: int = 0) -> Path:
    """Return the directory of a model, which is trained unless it is there."""
    directory = place / name / "model"
    if not (directory / "reward_config.json").is_file():
        settings = [
            f"output={place / name}",
            f"cache={place / 'cache'}",
            f"seed={seed}",
            f"backbone.model={smollm2.directory(num_layers)}",
            f"data.train.0.path={place / rows}.jsonl",
            f"data.eval.0.path={place / 'movies-test.jsonl'}",
        ]
        flags = [part for text in settings for part in ("--set", text)]
        run("train", str(RECIPES / f"{recipe}.toml"), *flags)
    return directory


def accuracy_of(run_directory: Path) -> dict[str, float]:
    """Return the share of held-out pairs that a model orders as people do, with its interval."""
    lines = (run_directory / "log.jsonl").read_text(encoding="utf-8").splitlines()
    last = [record for record in map(json.loads, lines) if record["kind"] == "evaluation"][-1]
    return {key: last[key] for key in ("accuracy", "low", "high", "num_pairs")}


def main() -> None:
    """Train what is missing, and write the report and the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, default=Path("runs/overoptimization"))
    parser.add_argument("--candidates", type=Path, default=RECIPES / "candidates.jsonl.gz")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/overoptimization.json"))
    arguments = parser.parse_args()
    place: Path = arguments.models
    place.mkdir(parents=True, exist_ok=True)
    for name, options in DATA.items():
        if not (path := place / f"{name}.jsonl").is_file():
            chosen = [part for option in options for part in ("--option", option)]
            run("data", "convert", "--dataset", "human-ratings", *chosen, "--output", str(path), "--quiet")
    names = [f"proxy-{seed}" for seed in range(NUM_MEMBERS)]
    gold = trained("gold", "gold", "movies", place, num_layers=4)
    members = [
        trained(name, "proxy", "products", place, num_layers=1, seed=seed) for seed, name in enumerate(names)
    ]
    ensemble, report = place / "ensemble", place / "report"
    if not ensemble.exists():
        run("ensemble", *map(str, members), "--output", str(ensemble))
    run(
        "best-of-n",
        *(str(ensemble), str(arguments.candidates), "--gold", str(gold), "--report", str(report), "--quiet"),
    )
    found = json.loads((report / "report.json").read_text(encoding="utf-8"))
    taken = ("num_prompts", "num_rejected", "kl", "curves", "against_members", "delays")
    kept = {name: found[name] for name in taken}
    kept["held_out"] = {name: accuracy_of(place / name) for name in ("gold", *names)}
    arguments.results.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
