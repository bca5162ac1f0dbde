"""Judges as members of an ensemble, whose server somebody else may have chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from basereward.errors import ConfigError, ModelError
from basereward.plugins.options import component_options
from basereward.plugins.plugin_manager import PluginManager
from basereward.scoring.ensemble_directory import SavedMember, Source
from basereward.scoring.judge_settings import judge_settings
from basereward.scoring.writer_judge import WriterJudge


def load_judge(
    source: Source, *, plugins: PluginManager, options: Mapping[str, Any], saved: SavedMember | None = None
) -> WriterJudge:
    """Load a member that asks a writer.

    Args:
        source: Its file, or the address of its server.
        plugins: Where its writer is looked up.
        options: Options of the writer, in the place of the file's, as far as it has them.
        saved: The member, where an ensemble's directory names it: nothing is sent to another machine then
            unless `allow_upload` is among the options, since whoever wrote the directory chose the machine.

    Raises:
        ConfigError: When the file is wrong, the judge gives no rewards, or would send to another machine.
        ModelError: When its template isn't any more what it was saved with.
    """
    writer = judge_settings(source).writer
    allowed = component_options(plugins.load("writer", writer.name))
    judge = WriterJudge.load(
        source, plugins=plugins, **{name: value for name, value in options.items() if name in allowed}
    )
    judge.check_rewards()
    if saved is None:
        return judge
    if judge.template.digest != saved.template:
        raise ModelError(f"{source}: its judge template is not the one it was saved with")
    if judge.writer.remote_urls and not options.get("allow_upload"):
        hosts = ", ".join(dict.fromkeys(str(urlsplit(url).hostname) for url in judge.writer.remote_urls))
        key = writer.options.get("key_variable")
        raise ConfigError(
            f"it asks {hosts}{f' with the key in ${key}' if key else ''}, as whoever saved the ensemble "
            "chose; let prompts, responses and images go there by --allow-upload, in Python by "
            'writer_options={"allow_upload": True}'
        )
    return judge
