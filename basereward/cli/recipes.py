"""`basereward recipes`: the run and study files that BaseReward brings."""

from __future__ import annotations

import argparse
import json
import shutil

from basereward.cli.command import Command

COMMAND = Command(
    help="list the run files and studies that are installed, or print one",
    description="List the recipes that are installed, or print one of them. Wherever a run file is named, "
    "recipe:NAME is that recipe: on the command line, and as the base of a run file or a study.",
    examples="""\
  basereward recipes
  basereward recipes basereward-7b
  basereward plan recipe:basereward-7b --gpus 64 --gpu h100
  basereward train recipe:text-small --set output=runs/mine
""",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("name", metavar="NAME", nargs="?", help="print this one")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print the list, or a recipe's text."""
    from basereward.config.recipes import PREFIX, STUDY, located, recipe_files, title_of

    if args.name is not None:
        print(located(PREFIX + args.name.removeprefix(PREFIX)).read_text(encoding="utf-8"), end="")
        return 0
    texts = {name: path.read_text(encoding="utf-8") for name, path in recipe_files().items()}
    recipes = {
        name: {"kind": "study" if STUDY.search(text) else "run", "title": title_of(text)}
        for name, text in texts.items()
    }
    if args.json:
        print(json.dumps(recipes, indent=2))
        return 0
    width = max(map(len, recipes), default=0)
    room = shutil.get_terminal_size((80, 24)).columns - width - 9
    for name, recipe in recipes.items():
        title = recipe["title"]
        shown = title if len(title) <= room else f"{title[: max(room - 1, 0)]}…"
        print(f"{name:<{width}}  {recipe['kind']:<5}  {shown}")
    return 0
