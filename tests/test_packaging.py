"""What gets installed is what lies on disk, and the project's files name no machine."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
MAPPED = {"backends", "generators", "studies"}


def packages_on_disk() -> set[str]:
    found = set()
    for top in ("lawkit", *MAPPED):
        for init in (ROOT / top).rglob("__init__.py"):
            parts = init.parent.relative_to(ROOT).parts
            found.add(".".join(("lawkit", *parts) if top in MAPPED else parts))
    return found


def test_package_list_equals_the_folders_on_disk():
    assert set(CONFIG["tool"]["setuptools"]["packages"]) == packages_on_disk()


def test_every_folder_with_code_is_a_package():
    for top in ("lawkit", *MAPPED):
        for module in (ROOT / top).rglob("*.py"):
            assert (module.parent / "__init__.py").is_file(), f"{module.parent} has code but no __init__.py"


@pytest.mark.parametrize("name", sorted(MAPPED))
def test_no_stray_folder_shadows_a_mapped_one(name):
    assert not (ROOT / "lawkit" / name).exists()
    assert CONFIG["tool"]["setuptools"]["package-dir"][f"lawkit.{name}"] == name


def test_imports_from_another_folder(tmp_path):
    code = (
        "import lawkit, lawkit.backends, lawkit.generators, lawkit.studies\n"
        "print(lawkit.backends.__file__, lawkit.studies.__file__, lawkit.__version__)\n"
        "import importlib.util\n"
        "assert importlib.util.find_spec('backends') is None\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    backends, studies, version = done.stdout.split()
    assert Path(backends) == ROOT / "backends" / "__init__.py"
    assert Path(studies) == ROOT / "studies" / "__init__.py"
    assert version == CONFIG["project"]["version"]


@pytest.mark.slow
def test_a_built_wheel_holds_every_package_and_its_data(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(ROOT)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    import zipfile

    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for package in packages_on_disk():
        folder = package.replace(".", "/")
        source = ROOT.joinpath(
            *package.split(".")[1 if package.split(".")[1:2] and package.split(".")[1] in MAPPED else 0 :]
        )
        for module in source.glob("*.py"):
            assert f"{folder}/{module.name}" in names
    assert "lawkit/py.typed" in names
    data = {f"lawkit/{p.relative_to(ROOT)}" for p in (ROOT / "studies").rglob("*.csv")}
    assert data <= names


def tracked_files() -> list[Path]:
    done = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


# Written in pieces, so that this file does not match itself.
FORBIDDEN = re.compile(
    "|".join(["index" + r"-url", "https?://[^ ]*/" + "simple", r"(?<![\w.])/(work|root|home|farm)" + "/"])
)


def test_no_tracked_file_names_a_package_index_or_a_machine_path():
    for path in tracked_files():
        if path.suffix in {".png", ".npz", ".parquet"}:
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            assert not FORBIDDEN.search(line), f"{path}:{number}: {line.strip()[:100]}"


def test_no_lock_file_is_tracked():
    assert not [
        p for p in tracked_files() if p.name.endswith((".lock", "requirements.txt", "package-lock.json"))
    ]


def test_entry_points_and_extras():
    project = CONFIG["project"]
    assert project["scripts"] == {"lawkit": "lawkit.cli:main"}
    assert {"torchtitan", "vllm", "ray", "report", "dev"} <= set(project["optional-dependencies"])
    heavy = {"torch", "vllm", "ray", "torchtitan"}
    assert not heavy & {re.split(r"[^\w-]", d)[0] for d in project["dependencies"]}
