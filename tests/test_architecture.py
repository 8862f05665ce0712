"""The rules of the house, kept by reading the code itself: who may import whom, who knows the time, what a file has."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import itertools
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Collection, ItemsView, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import msgspec
import pytest

import workers
import writer
from commands.example import example_of
from config.settings import OutputTable, SourceTable

T = TypeVar("T")

ROOT = Path(__file__).parents[1]
FOLDERS = ("api", "commands", "config", "history", "logbook", "supervise", "workers", "writer")
FILES = sorted([*ROOT.glob("*.py"), *(file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py"))])


class Each(dict[Path, T]):
    """Of each file what `of` makes of it, when it is first asked for: most processes that run tests never ask."""

    def __init__(self, paths: Iterable[Path], of: Callable[[Path], T]) -> None:
        super().__init__(dict.fromkeys(paths))  # type: ignore[arg-type]
        self._of = of

    def __getitem__(self, path: Path) -> T:
        if (made := super().__getitem__(path)) is None:
            made = self[path] = self._of(path)
        return made

    def items(self) -> ItemsView[Path, T]:
        return ItemsView(self)


TREES = Each((file.relative_to(ROOT) for file in FILES), lambda path: ast.parse((ROOT / path).read_text(), str(path)))

# Each layer may import those before it, and itself; nobody imports one that comes after.
LAYERS = (
    ("reading", "config", "printed", "tariff"),
    ("channel", "files", "graphite_helper", "history", "logbook", "logs", "mqtt_helper", "reconcile", "tap", "vitals"),
    ("api", "supervise", "workers", "writer"),  # a folder is a process: none imports another
    ("commands",),
    ("orchestrator",),
)
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names}
PROCESSES = ("api", "supervise", "workers", "writer")

# The packages that reach hardware or a vendor: a house without the hardware does not have them.
DRIVERS = frozenset(
    {"RPi", "gpiod", "gpiozero", "influxdb_client", "kasa", "lgpio", "minimalmodbus", "paho", "pymodbus", "serial"}
    | {"smbus", "smbus2", "spidev", "tinytuya", "usb"}
)

# Who may ask for the time of day, and why. Everybody else measures with the monotonic clock, which nobody can set.
KNOWS_THE_TIME_OF_DAY = {
    "writer/clock.py": "it alone turns monotonic time into dates",
    "logs.py": "the date of a line, when there is no journal to add it",
    "api/snapshot.py": "a page shows how long ago a date was; nothing is recorded",
    "supervise/instance.py": "a first number that is beyond every earlier one when the file that had it is lost",
    "writer/outputs/graphite.py": "the age of a record decides which archive it falls into; nothing is recorded",
    "writer/outputs/_http.py": "Retry-After may be a date, and a server may not tell its own; nothing is recorded",
}
TIME_OF_DAY = {"time.time", "time.time_ns", "time.localtime", "time.ctime", "time.strftime", "time.gmtime"}
TIME_OF_DAY |= {f"{name}.{call}" for name in ("datetime", "date") for call in ("now", "utcnow", "today")}
TIME_OF_DAY |= {"time.CLOCK_REALTIME", "time.CLOCK_TAI"}


def names(paths: Iterator[Path] | list[Path] | dict[Path, ast.Module]) -> list[str]:
    return sorted(str(path) for path in paths)


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every module that is imported anywhere in `tree`, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield module, node.lineno
            yield from ((f"{module}.{alias.name}", node.lineno) for alias in node.names)


IMPORTS = Each(TREES, lambda path: sorted({*imports(TREES[path])}))


def home(path: Path) -> str:
    """The part of the house that a file belongs to."""
    return path.parts[0].removesuffix(".py")


def kinds(folder: str) -> list[Path]:
    """The files of a folder that are kinds a user can configure."""
    return sorted(path for path in TREES if path.parent == Path(folder) and not path.name.startswith("_"))


def used(tree: ast.AST, names: Collection[str]) -> Iterator[tuple[str, int]]:
    """Those of the dotted names, such as `time.time` or `.listen`, that are used in `tree`, with their lines."""
    last = {name.split(".")[-1] for name in names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in last:
            whole = f".{ast.unparse(node)}"
            yield from ((name, node.lineno) for name in names if whole.endswith(f".{name.removeprefix('.')}"))


# ---- layers


def test_modules_are_imported_by_their_whole_names() -> None:
    assert [f"{path}:{line}" for path in TREES for module, line in IMPORTS[path] if module.startswith(".")] == []


def test_every_file_has_its_place_in_the_layers() -> None:
    assert {home(path) for path in TREES} == {*LAYER}


def test_nobody_imports_a_later_layer_or_another_process() -> None:
    wrong = [
        f"{path}:{line} imports {module}"
        for path in TREES
        for module, line in IMPORTS[path]
        if (other := module.split(".")[0]) in LAYER and other != home(path)
        if LAYER[other] > LAYER[home(path)] or (LAYER[other] == LAYER[home(path)] and LAYERS[LAYER[other]] == PROCESSES)
    ]
    assert wrong == []


def test_there_are_no_circles() -> None:
    known = {".".join(path.with_suffix("").parts).removesuffix(".__init__"): path for path in TREES}
    edges = {name: {module for module, _ in IMPORTS[path] if module in known} for name, path in known.items()}
    for _ in range(len(edges)):
        leaves = {name for name, needs in edges.items() if not needs}
        edges = {name: needs - leaves for name, needs in edges.items() if name not in leaves}
    assert edges == {}, "these import each other"


def test_drivers_are_imported_only_where_the_hardware_is_opened() -> None:
    wrong = []
    for path, tree in TREES.items():
        inside_open = {
            line
            for node in ast.walk(tree)
            if (isinstance(node, ast.FunctionDef) and node.name == "open" and home(path) in ("workers", "mqtt_helper"))
            or (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")  # never imported at all
            for _, line in imports(node)
        }
        top = {line for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom) for _, line in imports(node)}
        for module, line in IMPORTS[path]:
            if module.split(".")[0] not in DRIVERS:
                continue
            if line in top or (line not in inside_open and home(path) != "commands"):
                wrong.append(f"{path}:{line} imports {module}, which belongs into open()")
    assert sorted({*wrong}) == []


def test_every_package_that_only_a_source_needs_is_known_as_a_driver() -> None:
    """The list above cannot be forgotten: a package outside requirements/base.in is a driver."""
    base = {name.lower() for name in re.findall(r"^[\w-]+", (ROOT / "requirements/base.in").read_text(), re.MULTILINE)}
    module_of = {"python-dotenv": "dotenv", "prometheus-client": "prometheus_client"}
    common = {module_of.get(name, name.replace("-", "_")) for name in base}
    ours = {*LAYER} | {*sys.stdlib_module_names}
    found = {module.split(".")[0] for path in TREES for module, _ in IMPORTS[path]} - ours
    carried = {"h11", "starlette", "urllib3"}  # by uvicorn, fastapi and influxdb-client, of no use without
    assert found - DRIVERS - carried <= common, "neither in requirements/base.in nor a driver"


# ---- processes


def test_the_parent_has_no_thread_no_loop_no_server_and_no_foreign_package() -> None:
    never = {"_thread", "asyncio", "concurrent", "http", "multiprocessing", "socketserver", "sqlite3", "threading"}
    known = ({*sys.stdlib_module_names} | {*LAYER}) - never
    wrong = [
        f"{path}:{line} imports {module}"
        for path in TREES
        if home(path) == "supervise"
        for module, line in IMPORTS[path]
        if module.split(".")[0] not in known
    ]
    assert wrong == []


def test_the_parent_listens_nowhere() -> None:
    wrong = [
        f"{path}:{line} {call}"
        for path, tree in TREES.items()
        if home(path) == "supervise"
        for call, line in used(tree, {".listen", ".accept", ".bind"})
    ]
    assert wrong == []


def test_nothing_is_shared_through_multiprocessing_or_pickle() -> None:
    wrong = [
        f"{path}:{line} imports {module}"
        for path in TREES
        for module, line in IMPORTS[path]
        if module.split(".")[0] in ("multiprocessing", "concurrent", "pickle", "shelve", "marshal")
    ]
    assert wrong == []


def test_only_those_with_a_reason_know_the_time_of_day() -> None:
    found = {str(path) for path, tree in TREES.items() if any(used(tree, TIME_OF_DAY))}
    assert found == {*KNOWS_THE_TIME_OF_DAY}


def test_no_name_of_the_clock_comes_in_by_the_back_door() -> None:
    wrong = [
        f"{path}:{line} imports {module}"
        for path in TREES
        for module, line in IMPORTS[path]
        if re.fullmatch(r"time\.(time|time_ns|localtime|gmtime|ctime|strftime|clock_gettime\w*)", module)
    ]
    assert wrong == []


def test_a_source_has_no_use_for_dates() -> None:
    in_workers = [(path, module) for path in TREES if home(path) == "workers" for module, _ in IMPORTS[path]]
    assert [(path, module) for path, module in in_workers if module.split(".")[0] in ("datetime", "calendar")] == []


# ---- files


@pytest.mark.parametrize("path", names(TREES))
def test_every_file_opens_with_a_sentence_that_says_what_it_is_for(path: str) -> None:
    documentation = ast.get_docstring(TREES[Path(path)])
    assert documentation, f"{path} has no docstring"
    first = documentation.split("\n\n")[0]
    assert first.endswith((".", ":")), f"{path} opens with half a sentence"


def test_no_file_is_longer_than_one_reads_at_a_sitting() -> None:
    lengths = {str(path): len((ROOT / path).read_text().splitlines()) for path in TREES}
    assert {path: length for path, length in lengths.items() if length > 400} == {}


# Lists and such that a module keeps for itself, and why it may.
MUTABLE = {"logs.py: _secrets": "what no line may show; each process only adds to it"}


def test_no_module_keeps_state() -> None:
    found = set()
    for path, tree in TREES.items():
        for node in tree.body:
            if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
                continue
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            constant = isinstance(target, ast.Name) and re.fullmatch(r"_?[A-Z][A-Z0-9_]*|__all__", target.id)
            final = isinstance(node, ast.AnnAssign) and "Final" in ast.unparse(node.annotation)
            mutable = any(
                isinstance(part, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp)
                or (isinstance(part, ast.Call) and ast.unparse(part.func).split(".")[-1] in _MAKES_MUTABLES)
                for part in [node.value]
            )
            if mutable and not constant and not final:
                found.add(f"{path}: {ast.unparse(target)}")
        found |= {f"{path}: global {', '.join(node.names)}" for node in ast.walk(tree) if isinstance(node, ast.Global)}
    assert found == {*MUTABLE}


_MAKES_MUTABLES = {
    "list",
    "dict",
    "set",
    "bytearray",
    "deque",
    "defaultdict",
    "Counter",
    "OrderedDict",
    "count",
    "Lock",
}


# What only the developers use has examples too, here and there.
BESIDE = [file.relative_to(ROOT) for folder in ("bench", "tests") for file in sorted((ROOT / folder).rglob("*.py"))]
WITH_EXAMPLES = [path for path in BESIDE if "\n    >>> " in (ROOT / path).read_text()]


@pytest.mark.parametrize("path", names([*(path for path in TREES if path.name != "orchestrator.py"), *WITH_EXAMPLES]))
def test_the_examples_in_the_docstrings_are_true(path: str) -> None:
    module = importlib.import_module(path.removesuffix(".py").replace("/", ".").removesuffix(".__init__"))
    failed, _ = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert failed == 0


# ---- sources and outputs


def classes_of(module: ModuleType, base: type) -> list[type]:
    return [
        member
        for _, member in inspect.getmembers(module, inspect.isclass)
        if issubclass(member, base) and member.__module__ == module.__name__
    ]


@pytest.mark.parametrize("path", names(kinds("workers")))
def test_a_file_of_workers_is_one_source_with_its_options_its_example_and_its_line_in_the_readme(path: str) -> None:
    kind = Path(path).stem
    module = importlib.import_module(f"workers.{kind}")
    [source] = classes_of(module, workers.Source)
    assert workers.source_class(kind) is source
    assert issubclass(source.Options, SourceTable)
    assert source.Options.__module__ == module.__name__, "the options live beside the code that uses them"
    table = example_table(module, "sources")
    assert table["kind"] == kind
    msgspec.convert(table, source.Options)
    assert_one_line_in_the_readme(kind, "sources")


@pytest.mark.parametrize("path", names(kinds("writer/outputs")))
def test_a_file_of_outputs_is_one_output_with_its_options_its_example_and_its_line_in_the_readme(path: str) -> None:
    kind = Path(path).stem
    module = importlib.import_module(f"writer.outputs.{kind}")
    [output] = classes_of(module, writer.Output)
    assert writer.output_class(kind) is output
    assert issubclass(output.Options, OutputTable)
    assert output.Options.__module__ == module.__name__
    msgspec.convert(example_table(module, "outputs"), output.Options)
    assert_one_line_in_the_readme(kind, "outputs")


def example_table(module: ModuleType, group: str) -> dict[str, object]:
    """The only table in the example of a module's docstring."""
    tables = tomllib.loads(example_of(inspect.getdoc(module) or ""))
    assert {*tables} == {group}, f"the docstring of {module.__name__} needs an example with one table of [{group}]"
    [table] = tables[group].values()
    return table


def assert_one_line_in_the_readme(kind: str, group: str) -> None:
    readme = ROOT / "README.md"
    assert readme.exists(), "README.md with its tables of sources and outputs is missing"
    _, _, after = readme.read_text().lower().partition(f"## {group}")
    section = re.split(r"^#", after, maxsplit=1, flags=re.MULTILINE)[0]
    assert re.findall(rf"^\| *`{kind}` *\|", section, re.MULTILINE), f"README.md: {kind} has no line under {group}"
    assert len(re.findall(rf"^\| *`{kind}` *\|", section, re.MULTILINE)) == 1


def test_the_readme_promises_no_kind_that_is_not_there() -> None:
    for group, there in (("sources", workers.kinds()), ("outputs", writer.kinds())):
        _, _, after = (ROOT / "README.md").read_text().lower().partition(f"## {group}")
        section = re.split(r"^#", after, maxsplit=1, flags=re.MULTILINE)[0]
        assert {*re.findall(r"^\| *`(\w+)` *\|", section, re.MULTILINE)} <= {*there}


# ---- a new source changes nothing else


@pytest.mark.long
def test_a_source_needs_its_file_its_test_and_its_line_in_the_readme_and_nothing_else(tmp_path: Path) -> None:
    """What CONTRIBUTING.md tells, done by the letter in a copy of the house."""
    house = tmp_path / "house"
    house.mkdir()
    for folder in (*FOLDERS, "tests/test_architecture.py"):
        copy = shutil.copytree if (ROOT / folder).is_dir() else shutil.copy
        (house / folder).parent.mkdir(exist_ok=True)
        copy(ROOT / folder, house / folder)
    for file in (*ROOT.glob("*.py"), ROOT / "README.md", ROOT / "pyproject.toml"):
        shutil.copy(file, house)
    shutil.copytree(ROOT / "requirements", house / "requirements")
    pieces = dict(contributed())
    [source] = [name for name in pieces if re.fullmatch(r"workers/[a-z]\w*\.py", name)]
    [test] = [name for name in pieces if name.startswith("tests/workers/test_")]
    [line] = re.findall(r"^    (\| `\w+` \|.*)$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    for name in (source, test):
        (house / name).parent.mkdir(parents=True, exist_ok=True)
        (house / name).write_text(pieces[name])
    readme = (house / "README.md").read_text()
    (house / "README.md").write_text(readme.replace("\n| `simulated`", f"\n{line}\n| `simulated`"))
    kind = Path(source).stem
    example = run(house, "orchestrator.py", "example", kind)
    (house / "site.toml").write_text(example)
    assert "1 source, " in run(house, "orchestrator.py", "check", "--config", "site.toml")
    pytest_arguments = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", ".")
    run(house, *pytest_arguments, test, "tests/test_architecture.py", "-k", f"{kind} or layer or drivers")


def run(house: Path, *words: str) -> str:
    done = subprocess.run([sys.executable, *words], cwd=house, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def contributed() -> Iterator[tuple[str, str]]:
    """Each file that CONTRIBUTING.md shows: its name, in the last line before the block, and its text."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    for before, block in itertools.pairwise(re.split(r"^```", text, flags=re.MULTILINE)):
        if block.startswith("python\n"):
            [name] = re.findall(r"`([\w/]+\.py)`[^`]*\Z", before)
            yield name, block.removeprefix("python\n")
