"""The plugin system: what is found, what a broken plugin costs, and what the messages say."""

from __future__ import annotations

import re
import sys
import textwrap
import warnings
from pathlib import Path
from typing import Any

import packaging.requirements  # noqa: F401  imported before tests hide site-packages
import pytest

from basereward import __version__, hookspecs
from basereward.config.conversion import Component
from basereward.errors import ConfigError, PluginError
from basereward.hookspecs import KINDS
from basereward.plugins import Plugin, PluginManager, PluginWarning, Provided, builtin

HOOKS = ", ".join([*KINDS.values(), "basereward_commands", "basereward_log"])
GOOD = """
    from basereward import hookimpl

    class Focal:
        '''A loss.'''

        def __init__(self, *, gamma: float = 2.0) -> None:
            self.gamma = gamma

        def forward(self, rewards, targets):
            raise NotImplementedError

    @hookimpl
    def basereward_losses():
        return {"focal": Focal}
    """


class Space:
    """A directory on the path, in which modules are written and distributions installed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def write(self, name: str, source: str) -> str:
        (self.directory / f"{name}.py").write_text(textwrap.dedent(source))
        return name

    def install(
        self, name: str, module: str, *, version: str = "1.0", requires: str = "", plugin: str = ""
    ) -> None:
        info = self.directory / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (info / "METADATA").write_text(metadata + (f"Requires-Dist: {requires}\n" if requires else ""))
        (info / "entry_points.txt").write_text(f"[basereward]\n{plugin or name} = {module}\n")


@pytest.fixture
def space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a directory on the path that hides whatever plugins are installed beside the tests."""
    before = set(sys.modules)
    monkeypatch.setattr(
        sys, "path", [str(tmp_path), *(path for path in sys.path if "site-packages" not in path)]
    )
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delenv("BASEREWARD_DISABLE_PLUGINS", raising=False)
    yield Space(tmp_path)
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def only_plugin(manager: PluginManager) -> Plugin:
    """Return the one plugin besides the built-in."""
    _, plugin = manager.plugins
    return plugin


BROKEN = {
    "does not import": ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
    "exits": ("raise SystemExit(3)", "SystemExit: 3"),
    "is no Python": ("def :", "SyntaxError: invalid syntax (bad.py, line 1)"),
    "has a misspelt hook": (
        "from basereward import hookimpl\n@hookimpl\ndef basereward_loses(): return {}",
        f"unknown hook 'basereward_loses'; did you mean 'basereward_losses'? hooks: {HOOKS}",
    ),
    "has a hook like no other": (
        "from basereward import hookimpl\n@hookimpl\ndef xyz(): return {}",
        f"unknown hook 'xyz'; hooks: {HOOKS}",
    ),
    "forgets the mark": (
        "def basereward_losses(): return {}",
        "function 'basereward_losses' is not marked @hookimpl",
    ),
    "has no hook": ("", "no function in it is marked @hookimpl"),
    "asks for an argument that there isn't": (
        "from basereward import hookimpl\n@hookimpl\ndef basereward_log(recrd): pass",
        "PluginValidationError: Plugin 'bad' for hook 'basereward_log' hookimpl definition: "
        "basereward_log(recrd) Argument(s) {'recrd'} are declared in the hookimpl "
        "but can not be found in the hookspec",
    ),
    "raises in a hook": (
        "from basereward import hookimpl\n@hookimpl\ndef basereward_losses(): return 1 / 0",
        "ZeroDivisionError: division by zero",
    ),
    "yields in a hook": (
        "from basereward import hookimpl\n@hookimpl\ndef basereward_losses(): yield 'x', 'm:X'",
        "basereward_losses returned generator, not a mapping of names to 'module:Class'",
    ),
    "returns nothing": (
        "from basereward import hookimpl\n@hookimpl\ndef basereward_losses(): pass",
        "basereward_losses returned NoneType, not a mapping of names to 'module:Class'",
    ),
    "has a bad name": (
        "from basereward import hookimpl\n@hookimpl\ndef basereward_losses(): return {'Focal_Loss': 'm:X'}",
        "bad loss name 'Focal_Loss'; names are lower-case words joined by '-' or '.', "
        "such as 'bradley-terry'",
    ),
    "has a bad target": (
        "from basereward import hookimpl\n@hookimpl\ndef basereward_losses(): return {'focal': 'm.X'}",
        "loss 'focal' is registered as 'm.X'; write 'module:Class'",
    ),
    "is bad in its second hook": (
        "from basereward import hookimpl\n@hookimpl\ndef basereward_heads(): return {'h': 'm:X'}\n"
        "@hookimpl\ndef basereward_losses(): return []",
        "basereward_losses returned list, not a mapping of names to 'module:Class'",
    ),
}


@pytest.mark.parametrize(("source", "error"), BROKEN.values(), ids=BROKEN)
def test_plugin_that_is_broken_is_warned_about_once_and_costs_nothing_else(
    space: Space, source: str, error: str
) -> None:
    space.write("bad", source)
    space.write("good", GOOD)
    with pytest.warns(PluginWarning) as caught:
        manager = PluginManager(["bad", "good"])
    assert [str(item.message) for item in caught] == [f"plugin 'bad' did not load: {error}"]
    built_in, bad, good = manager.plugins
    assert (built_in.error, bad.error, good.error) == (None, error, None)
    assert (bad.components, [plugin.name for plugin in manager.loaded]) == ({}, ["basereward", "good"])
    assert manager.build("loss", Component("focal")).gamma == 2.0


def test_optional_hook_of_another_version_is_no_misspelling(space: Space) -> None:
    hook = "@hookimpl(optionalhook=True)\n    def basereward_of_the_future(): pass\n"
    space.write("good", GOOD + f"\n    {hook}")
    assert only_plugin(PluginManager(["good"])).error is None


def test_warning_of_a_broken_plugin_is_fatal_where_warnings_are_errors(space: Space) -> None:
    space.write("bad", "")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(PluginWarning, match=r"^plugin 'bad' did not load: no function in it is marked"):
            PluginManager(["bad"])


def test_installed_plugin_knows_its_distribution_and_version(space: Space) -> None:
    space.write("focal_losses", GOOD)
    space.install(
        "basereward-focal", "focal_losses", version="0.3", plugin="focal", requires="basereward>=0.1,<0.2"
    )
    found = PluginManager(discover=True).find("loss", "focal")
    assert found == Provided("loss", "focal", "focal_losses:Focal", "focal", "0.3", "basereward-focal")


def test_installed_plugins_come_in_the_order_of_their_names(space: Space) -> None:
    for name in ("zebra", "ant", "mole"):
        space.write(f"{name}_module", GOOD)
        space.install(name, f"{name}_module")
    names = [plugin.name for plugin in PluginManager(discover=True).plugins]
    assert names == ["basereward", "ant", "mole", "zebra"]


INSTALLED = {
    "basereward<0.1": f"needs basereward<0.1, this is {__version__}",
    "BaseReward [train] >=9": f"needs basereward>=9, this is {__version__}",
    'basereward<0.1; python_version > "3"': f"needs basereward<0.1, this is {__version__}",
    'basereward<0.1; extra == "old"': None,
    "basereward-other<0.1": None,
    "basereward": None,
    # 0.1 and 0.1.0 are one version.
    "basereward<0.2,>=0.1": None,
    "basereward>=0.1.0,<0.1.0.1": None,
    "basereward<0.1.0,>=0.1": f"needs basereward<0.1.0,>=0.1, this is {__version__}",
    "basereward>=0.1.0.1": f"needs basereward>=0.1.0.1, this is {__version__}",
    "basereward>=0.1rc1": None,
    'basereward[test]; extra == "test"': None,
    'basereward[test]<0.1; extra != "test"': f"needs basereward<0.1, this is {__version__}",
}


@pytest.mark.parametrize(("requires", "error"), INSTALLED.items())
def test_plugin_is_refused_when_its_own_metadata_excludes_this_version(
    space: Space, requires: str, error: str | None
) -> None:
    space.write("focal_losses", GOOD)
    space.install("focal", "focal_losses", requires=requires)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plugin = only_plugin(PluginManager(discover=True))
    assert plugin.error == error
    assert [str(item.message) for item in caught] == (
        [f"plugin 'focal' did not load: {error}"] if error else []
    )


def test_what_nearly_every_plugin_requires_is_read_without_packaging(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "packaging.requirements", None)  # 16 ms of `basereward --help`
    space.write("focal_losses", GOOD)
    space.install("focal", "focal_losses", requires="basereward<0.2,>=0.1")
    assert only_plugin(PluginManager(discover=True)).error is None


def test_plugin_with_broken_metadata_is_broken(space: Space) -> None:
    space.write("focal_losses", GOOD)
    space.install("focal", "focal_losses", requires="basereward~nonsense")
    with pytest.warns(PluginWarning, match="^plugin 'focal' did not load: InvalidRequirement: "):
        PluginManager(discover=True)


def test_second_plugin_of_a_name_is_an_error(space: Space) -> None:
    for number in (1, 2):
        space.write(f"focal{number}", GOOD)
        space.install(f"dist{number}", f"focal{number}", plugin="focal")
    with pytest.warns(
        PluginWarning, match="^plugin 'focal' did not load: the name is taken by the plugin in focal1$"
    ):
        manager = PluginManager(discover=True)
    assert manager.find("loss", "focal").distribution == "dist1"


def test_second_entry_point_of_a_module_is_an_error(space: Space) -> None:
    space.write("losses", GOOD)
    for name in ("a", "b"):
        space.install(name, "losses")
    with pytest.warns(PluginWarning, match="^plugin 'b' did not load: losses is plugin 'a' already$"):
        PluginManager(discover=True)


def test_entry_point_with_a_bad_name_is_an_error(space: Space) -> None:
    space.write("losses", GOOD)
    space.install("a", "losses", plugin="My Plugin")
    with pytest.warns(PluginWarning) as caught:
        PluginManager(discover=True)
    assert [str(item.message) for item in caught] == [
        "plugin 'My Plugin' did not load: bad plugin name 'My Plugin'; "
        "names are lower-case words joined by '-' or '.', such as 'bradley-terry'"
    ]


def test_module_of_an_installed_plugin_may_be_named_too(space: Space) -> None:
    space.write("focal_losses", GOOD)
    space.install("focal", "focal_losses")
    assert [plugin.name for plugin in PluginManager(["focal_losses"], discover=True).plugins] == [
        "basereward",
        "focal",
    ]


def test_module_named_twice_is_one_plugin(space: Space) -> None:
    space.write("focal_losses", GOOD)
    manager = PluginManager(["focal_losses", "focal_losses"])
    manager.add(["focal_losses"])
    assert [plugin.name for plugin in manager.plugins] == ["basereward", "focal_losses"]


def test_same_name_twice_is_an_error_only_when_used(space: Space) -> None:
    space.write("one", GOOD)
    space.write("two", GOOD)
    space.write("three", GOOD.replace('"focal": Focal', '"hinge": Focal'))
    manager = PluginManager(["one", "two", "three"])
    assert manager.find("loss", "bradley-terry").plugin == "basereward"
    with pytest.raises(PluginError) as error:
        manager.find("loss", "focal")
    assert str(error.value) == "loss 'focal' is provided by several plugins; write one/focal or two/focal"
    with pytest.raises(PluginError) as error:
        manager.load("loss", "hinge")
    assert (
        str(error.value)
        == "loss 'hinge' is provided by several plugins; write basereward/hinge or three/hinge"
    )
    assert manager.load("loss", "two/focal").__module__ == "two"
    assert manager.names("loss") == [
        "basereward/hinge",
        "binary-cross-entropy",
        "bradley-terry",
        "one/focal",
        "plackett-luce",
        "regression",
        "three/hinge",
        "two/focal",
    ]


def test_unknown_component_is_answered_with_the_known_ones_and_with_what_did_not_load(space: Space) -> None:
    manager = PluginManager()
    losses = "losses: binary-cross-entropy, bradley-terry, hinge, plackett-luce, regression"
    messages = {
        ("loss", "bradley-tery"): f"unknown loss 'bradley-tery'; did you mean 'bradley-terry'? {losses}",
        ("loss", "xyz"): f"unknown loss 'xyz'; {losses}",
        ("loss", "other/hinge"): f"unknown loss 'other/hinge'; did you mean 'hinge'? {losses}",
        ("ensembler", "xyz"): (
            "unknown ensembler 'xyz'; ensemblers: accuracy-weighted, confidence-weighted, mean, "
            "mean-minus-std, median, min, rank-mean, routed, stacked, z-mean"
        ),
        ("los", "hinge"): f"unknown kind 'los'; did you mean 'loss'? kinds: {', '.join(KINDS)}",
    }
    for (kind, name), message in messages.items():
        with pytest.raises(PluginError) as error:
            manager.find(kind, name)
        assert str(error.value) == message
    space.write("bad", "import no_such_module")
    with pytest.warns(PluginWarning):
        manager.add(["bad"])
    with pytest.raises(PluginError) as error:
        manager.load("loss", "xyz")
    assert str(error.value) == (
        f"unknown loss 'xyz'; {losses}; plugins that did not load: bad (ModuleNotFoundError: No module named "
        "'no_such_module')"
    )


TARGETS = {
    "lacking:X": "ModuleNotFoundError: No module named 'lacking'",
    "parts:X": "AttributeError: module 'parts' has no attribute 'X'",
    "parts:make": "it is a function, not a class",
    "parts_that_exit:X": "SystemExit: 1",
}


@pytest.mark.parametrize(("target", "reason"), TARGETS.items())
def test_target_that_fails_is_named_with_its_plugin_and_the_cause(
    space: Space, target: str, reason: str
) -> None:
    space.write("parts", "def make(): pass")
    space.write("parts_that_exit", "raise SystemExit(1)")
    space.write("good", GOOD.replace('"focal": Focal', f'"focal": {target!r}'))
    manager = PluginManager(["good"])
    assert manager.find("loss", "focal").target == target
    with pytest.raises(PluginError) as error:
        manager.load("loss", "focal")
    assert str(error.value) == f"loss 'focal' of plugin 'good' ({target}) failed to load: {reason}"
    assert (error.value.__cause__ is None) == (target == "parts:make")


def _log_steps(manager: PluginManager, run_dir: Path) -> None:
    for step in range(3):
        manager.emit("basereward_log", record={"step": step}, run_dir=run_dir)


def test_plugin_that_fails_in_an_event_is_warned_about_once_and_gets_no_more(
    space: Space, tmp_path: Path
) -> None:
    logger = """
        from basereward import hookimpl
        records = []

        @hookimpl
        def basereward_log(record, run_dir):
            records.append(record["step"])
            {}
        """
    space.write("failing", logger.format("raise OSError('no connection')"))
    space.write("working", logger.format("pass"))
    manager = PluginManager(["failing", "working"])
    with pytest.warns(PluginWarning) as caught:
        _log_steps(manager, tmp_path)
    assert [str(item.message) for item in caught] == [
        "plugin 'failing' failed in basereward_log and gets no more events: OSError: no connection"
    ]
    assert (sys.modules["failing"].records, sys.modules["working"].records) == ([0], [0, 1, 2])


@pytest.mark.parametrize(
    ("setting", "loaded"), [("ant", ["mole"]), (" ant, mole ", []), ("*", []), ("", ["ant", "mole"])]
)
def test_plugins_can_be_disabled(
    space: Space, monkeypatch: pytest.MonkeyPatch, setting: str, loaded: list[str]
) -> None:
    for name in ("ant", "mole"):
        space.write(f"{name}_module", GOOD)
        space.install(name, f"{name}_module")
    monkeypatch.setenv("BASEREWARD_DISABLE_PLUGINS", setting)
    manager = PluginManager(discover=True)
    assert [plugin.name for plugin in manager.loaded] == ["basereward", *loaded]
    assert [plugin.name for plugin in manager.plugins] == ["basereward", "ant", "mole"]
    assert {plugin.error for plugin in manager.plugins} <= {None, "disabled by BASEREWARD_DISABLE_PLUGINS"}


def test_asking_for_a_disabled_module_warns(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    space.write("good", GOOD)
    monkeypatch.setenv("BASEREWARD_DISABLE_PLUGINS", "good")
    message = "^plugin 'good' was asked for, but BASEREWARD_DISABLE_PLUGINS leaves it out$"
    with pytest.warns(PluginWarning, match=message):
        PluginManager(["good"])


def test_the_working_directory_is_on_the_path_only_while_a_plugin_of_it_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, space: Space
) -> None:
    elsewhere = tmp_path / "work"
    elsewhere.mkdir()
    names = {
        "local_plugin": """
            import local_names
            from basereward import hookimpl

            @hookimpl
            def basereward_losses():
                import local_hooks
                return {local_names.NAME: "local_losses:Loss", "gone": "no_such_module:Loss"}
            """,
        "local_names": "NAME = 'local'",
        "local_hooks": "",
        "local_losses": "import local_arithmetic\nclass Loss:\n    def forward(self, rewards, targets): ...",
        "local_arithmetic": "",
    }
    for name, source in names.items():
        (elsewhere / f"{name}.py").write_text(textwrap.dedent(source))
    path = list(sys.path)
    monkeypatch.chdir(elsewhere)
    plugins = PluginManager(["local_plugin"])
    assert sys.path == path
    monkeypatch.chdir(tmp_path)
    assert plugins.load("loss", "local").__name__ == "Loss"
    with pytest.raises(PluginError, match="No module named 'no_such_module'"):
        plugins.load("loss", "gone")
    assert sys.path == path
    with pytest.warns(PluginWarning, match="No module named 'local_other'"):
        PluginManager(["local_other"])
    assert sys.path == path


def test_process_has_one_manager_that_remembers_the_modules_named_to_it(space: Space) -> None:
    # In a process of its own: this one's manager may be in use.
    import subprocess

    space.write("good", GOOD)
    code = (
        "from basereward import plugins\n"
        "assert plugins.manager() is plugins.manager(['good']) is plugins.manager()\n"
        "assert plugins.manager().find('loss', 'good/focal').plugin == 'good'\n"
    )
    root = Path(hookspecs.__file__).parents[1]
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        cwd=space.directory,
        env={"PYTHONPATH": f"{root}:{space.directory}"},
    )


def test_component_is_built_of_wired_arguments_and_checked_options(space: Space) -> None:
    space.write("good", GOOD)
    manager = PluginManager(["good"])
    assert manager.build("loss", Component("focal", {"gamma": 3})).gamma == 3.0
    assert manager.resolve("loss", Component("focal")) == Component("focal", {"gamma": 2.0})
    messages = {
        "gama": ({"gama": 1.0}, "loss 'focal' has no option 'gama'; did you mean 'gamma'? options: gamma"),
        "type": ({"gamma": "big"}, "loss 'focal': gamma must be a number, not the string 'big'"),
    }
    for options, message in messages.values():
        with pytest.raises(ConfigError) as error:
            manager.build("loss", Component("focal", options))
        assert str(error.value) == message


def test_value_that_a_component_refuses_is_an_error_of_the_input() -> None:
    import types

    class Steep:
        def __init__(self, *, slope: float = 1.0) -> None:
            if slope < 0:
                raise ValueError(f"slope must be 0 or above, not {slope}")

        def forward(self, rewards: Any, targets: Any) -> Any:
            raise NotImplementedError

    module = types.ModuleType("steep")
    module.basereward_losses = hookspecs.hookimpl(lambda: {"steep": Steep})  # type: ignore[attr-defined]
    manager = PluginManager([module])
    with pytest.raises(ConfigError) as error:
        manager.build("loss", Component("steep", {"slope": -1}))
    assert str(error.value) == "loss 'steep': slope must be 0 or above, not -1.0"


READERS = """
    from basereward import hookimpl

    class Empty:
        def __iter__(self):
            return iter(())

    class File(Empty):
        def __init__(self, path, *, limit: int | None = None) -> None:
            self.path, self.limit = path, limit

    class Own(Empty):
        def __init__(self, path=None, *, limit: int | None = None) -> None:
            self.path, self.limit = path, limit

    class Made(Empty):
        def __init__(self, *, limit: int | None = None) -> None:
            self.limit = limit

    @hookimpl
    def basereward_datasets():
        return {"file": File, "own": Own, "made": Made}
    """


def test_dataset_is_wired_with_the_path_among_its_options(space: Space) -> None:
    space.write("readers", READERS)
    manager = PluginManager(["readers"])
    assert manager.build("dataset", Component("file", {"path": "a.jsonl", "limit": 3})).path == "a.jsonl"
    assert manager.build("dataset", Component("file", {"limit": 3}), "b.jsonl").path == "b.jsonl"
    assert manager.build("dataset", Component("own")).path is None
    assert manager.build("dataset", Component("made", {"limit": 3})).limit == 3
    assert manager.resolve("dataset", Component("file", {"path": "a.jsonl"})) == Component(
        "file", {"path": "a.jsonl", "limit": None}
    )
    messages = {
        "file": ({}, "dataset 'file' needs 'path'"),
        "own": ({"path": 3}, "dataset 'own': path must be a string, not 3"),
        "made": ({"path": "a"}, "dataset 'made' has no option 'path'; options: limit"),
    }
    for name, (options, message) in messages.items():
        with pytest.raises(ConfigError) as error:
            manager.build("dataset", Component(name, options))
        assert str(error.value) == message


def test_every_hook_has_a_contract() -> None:
    hooks = [name for name in vars(hookspecs) if name.startswith("basereward_")]
    assert hooks == [*KINDS.values(), "basereward_commands", "basereward_log"]
    assert all(len(getattr(hookspecs, hook).__doc__.splitlines()) > 3 for hook in hooks)


def test_every_kind_is_registered_by_the_built_in_plugin_through_the_same_hooks() -> None:
    manager = PluginManager()
    assert [plugin.name for plugin in manager.plugins] == ["basereward"]
    for kind, hook in KINDS.items():
        assert {item.name: item.target for item in manager.provided(kind)} == getattr(builtin, hook)()


def test_public_names_are_all_there() -> None:
    import basereward

    assert all(getattr(basereward, name) is not None for name in basereward.__all__)
    assert set(basereward.__all__) <= set(dir(basereward))
    with pytest.raises(AttributeError, match=r"^module 'basereward' has no attribute 'RewardModle'$"):
        basereward.RewardModle  # noqa: B018


def test_nothing_in_the_package_imports_a_plugin() -> None:
    package = Path(hookspecs.__file__).parent
    imports = re.compile(r"^\s*(?:from|import) (?:basereward_|plugins)", re.MULTILINE)
    assert [
        str(file) for file in package.rglob("*.py") if imports.search(file.read_text(encoding="utf-8"))
    ] == []
