"""The rules of the house that a machine can check: imports, names, style, help texts, and the README's tree."""

import ast
import re
import runpy
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = ("cloc", "mllm_bridge", "benchmarks")
SOURCES = sorted(path for package in PACKAGES for path in (REPOSITORY / package).rglob("*.py"))
BINARIES = Path(sys.executable).parent


def named(path):
    return str(path.relative_to(REPOSITORY))


def call(*command, folder=REPOSITORY):
    return subprocess.run([str(part) for part in command], cwd=folder, capture_output=True, text=True, timeout=900)


def test_imports_keep_the_contracts():
    done = call(BINARIES / "lint-imports", "--no-cache")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


@pytest.mark.parametrize("command", [("check",), ("format", "--check")], ids=" ".join)
def test_ruff_has_nothing_to_say(command):
    done = call(
        sys.executable, "-m", "ruff", *command, "--no-cache", *PACKAGES, "tests", "tools"
    )  # not what lies beside them
    assert done.returncode == 0, done.stdout + done.stderr


def foreign_modules():
    """Top-level modules of the standard library and of everything this project depends on."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = {re.match(r"[\w.-]+", entry)[0].lower().replace("_", "-") for entry in project["dependencies"]}
    modules = {
        module
        for module, distributions in metadata.packages_distributions().items()
        if wanted & {name.lower().replace("_", "-") for name in distributions}
    }
    assert {"torch", "lvis", "datasets", "PIL", "yaml"} <= modules
    return modules | set(sys.stdlib_module_names)


def test_no_name_hides_another_module():
    """`deepspeed cloc/pretrain.py` puts cloc/ first on the path, so cloc/logging.py would be `logging` to everybody."""
    taken = foreign_modules()
    ours = [path for package in ("cloc", "benchmarks") for path in (REPOSITORY / package).iterdir()]
    names = {path.stem: named(path) for path in ours if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert {name: path for name, path in names.items() if name in taken and name != "__init__"} == {}


def test_no_package_under_tests_hides_ours():
    assert [named(path) for path in (REPOSITORY / "tests").rglob("__init__.py")] == []


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_no_except_catches_everything(path):
    caught = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ExceptHandler)]
    broad = [node.lineno for node in caught if node.type is None or _says(node.type, "Exception", "BaseException")]
    assert broad == []


def _says(node, *names):
    return any(isinstance(part, ast.Name) and part.id in names for part in ast.walk(node))


def test_nothing_is_unpickled_and_no_remote_code_is_trusted():
    for path in SOURCES:
        tree = ast.parse(path.read_text())
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        for node in calls:
            called = ast.unparse(node.func)
            assert called not in ("pickle.load", "pickle.loads", "torch.load", "eval", "exec"), (path, node.lineno)
            trusted = [word for word in node.keywords if word.arg == "trust_remote_code"]
            assert all(ast.unparse(word.value) == "False" for word in trusted), (path, node.lineno)


COMMANDS = (
    ("cloc/pretrain.py",),
    ("-m", "mllm_bridge.swap"),
    ("benchmarks/run.py",),
    ("-m", "cloc.scenes"),
    ("-m", "cloc.convert"),
    ("-m", "cloc.convert", "coco"),
    ("-m", "cloc.check"),
    ("-m", "cloc.convert.dictionary"),
    ("-m", "benchmarks.experiments.closed_loop"),
    ("-m", "benchmarks.external.environment"),
    ("-m", "benchmarks.external.clip_scores"),
    ("-m", "benchmarks.external.answers"),
    ("-m", "benchmarks.speed.scoring"),
    ("-m", "benchmarks.speed.conversion_memory"),
    ("-m", "benchmarks.speed.labelling_kills"),
    ("-m", "benchmarks.speed.labelling_runners"),
    ("-m", "benchmarks.speed.swap"),
    ("-m", "cloc.detect"),
    ("-m", "cloc.embed"),
    ("-m", "cloc.export"),
    ("-m", "cloc.label"),
    ("-m", "cloc.label.chunker_quality"),
    ("-m", "mllm_bridge.tune"),
    ("-m", "mllm_bridge.assess"),
    ("-m", "mllm_bridge.box_text"),
    ("-m", "mllm_bridge.conversations"),
    ("-m", "mllm_bridge.hosts"),
    ("-m", "mllm_bridge.trial"),
    ("-m", "benchmarks.experiments"),
)


@pytest.mark.filterwarnings("ignore:.*found in sys.modules")
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(command, monkeypatch, capsys):
    """Run as `__main__` in this process, which has the heavy imports behind it."""
    first, *rest = command
    script = first if first != "-m" else rest.pop(0)
    monkeypatch.setattr(sys, "argv", [script, *rest, "--help"])
    start = runpy.run_module if first == "-m" else runpy.run_path
    with pytest.raises(SystemExit) as ended:
        start(script if first == "-m" else str(REPOSITORY / script), run_name="__main__")
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert told.startswith("usage: ")
    assert len(told) > 300


@pytest.mark.parametrize("script", ["cloc/pretrain.py", "benchmarks/run.py"])
def test_a_script_starts_from_any_folder(script, tmp_path):
    """Its own folder is first on the path then; nothing in it may hide what it imports."""
    done = call(sys.executable, REPOSITORY / script, "--help", folder=tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_mistake_is_one_line_and_code_2(tmp_path, monkeypatch, capsys):
    """Run as `__main__` in this process; a traceback would come out of it."""
    script = str(REPOSITORY / "cloc/pretrain.py")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [script, "run.nmae=x"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(script, run_name="__main__")
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "run.nmae: unknown key; the nearest known one is 'run.name'" in line
    assert not list(tmp_path.iterdir())


def tree_of_the_layout():
    """The paths below `mllm-vision-kit/` in docs/layout.md, by indentation; what follows a name is prose."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", (REPOSITORY / "docs/layout.md").read_text(), re.DOTALL | re.MULTILINE)
    (block,) = [b for b in blocks if b.startswith("mllm-vision-kit/")]
    found, parents = set(), []
    for line in block.splitlines()[1:]:
        entry = re.match(r"(?P<indent>[\s│├└─|`+-]*)(?P<name>[\w.][\w./-]*)", line)
        if entry is None:
            continue
        depth, name = len(entry["indent"]), entry["name"]
        parents = [(d, n) for d, n in parents if d < depth]
        found.add("/".join([n.rstrip("/") for _, n in parents] + [name.rstrip("/")]))
        if name.endswith("/"):
            parents.append((depth, name))
    return found


def test_the_page_of_the_layout_is_what_lies_on_the_disk():
    """Every package folder and every top-level module of the kit is named, and nothing that is not there."""
    listed = tree_of_the_layout()
    folders = {named(path.parent) for path in SOURCES if path.name == "__init__.py"}
    modules = {named(path) for path in SOURCES if path.parent == REPOSITORY / "cloc"}
    wanted = folders | {module for module in modules if not module.endswith("__init__.py")}
    assert sorted(wanted - listed) == []
    assert sorted(path for path in listed if not (REPOSITORY / path).exists()) == []
