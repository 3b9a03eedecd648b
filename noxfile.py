"""Every task of the repository; ``nox -l`` lists them with one line each.

Each package is tested in an environment of its own that holds only what it declares, so that a missing
dependency shows up here rather than on a user's machine.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tomllib
from pathlib import Path

import nox
from nox.command import CommandFailed

nox.needs_version = ">=2026.2"
nox.options.default_venv_backend = "uv"
nox.options.sessions = ["lint", "types", "tests"]
nox.options.reuse_existing_virtualenvs = True

ROOT = Path(__file__).parent
RESULTS = ROOT / ".nox" / "results"
# Folder of each member under the name that people install.
MEMBERS = {
    tomllib.loads((folder / "pyproject.toml").read_text())["project"]["name"]: folder.relative_to(ROOT)
    for folder in (ROOT / "shared", *sorted((ROOT / "packages").glob("*/")))
    if (folder / "pyproject.toml").exists()
}
PACKAGES = [name for name in MEMBERS if name != "medshared"]
# What installing one package alone must not pull in.
HEAVY = {
    "advmil": ["nibabel", "stable-baselines3", "torch-geometric"],
    "aespa": ["openslide-python", "stable-baselines3", "torch-geometric", "lifelines", "torchvision"],
    "infection-mt": ["openslide-python", "nibabel", "stable-baselines3"],
    "spars": ["openslide-python", "lightning-fabric", "lightning", "gradio", "torch-geometric", "lifelines"],
    "til-mtl": ["nibabel", "stable-baselines3", "torch-geometric", "lifelines"],
}
# Where a machine turns it off, every process would compile torch and its company anew, ten seconds each.
CACHED_BYTECODE = {"PYTHONDONTWRITEBYTECODE": ""}
WORKERS = os.environ.get("MEDPAPERS_TEST_WORKERS", str(min(4, os.cpu_count() or 1)))
# Import names that differ from the distribution's name.
MODULES = {
    "pyyaml": "yaml",
    "pillow": "PIL",
    "scikit-learn": "sklearn",
    "lightning-fabric": "lightning_fabric",
    "opencv-python-headless": "cv2",
    "openslide-python": "openslide",
    "scikit-image": "skimage",
    "stable-baselines3": "stable_baselines3",
}


def sync(session: nox.Session, *arguments: str) -> None:
    """Install from the lock file into the session's environment."""
    location = session.virtualenv.location
    session.run_install(
        "uv", "sync", "--frozen", "--no-default-groups", *arguments, env={"UV_PROJECT_ENVIRONMENT": location}
    )


def sync_member(session: nox.Session, name: str) -> None:
    sync(session, "--package", name, "--group", "test")


def declared(file: Path) -> list[str]:
    """Return the distributions that a member names anywhere in its pyproject.toml."""
    content = tomllib.loads(file.read_text())
    project = content["project"]
    groups = [project["dependencies"], *project.get("optional-dependencies", {}).values()]
    groups += content.get("dependency-groups", {}).values()
    return sorted({re.split(r"[\[<>=~! ]", line)[0] for group in groups for line in group})


def run_pytest(
    session: nox.Session, name: str, *arguments: str, codes: tuple[int, ...] = (0,), **environment: str
) -> None:
    report = RESULTS / f"{session.name.split('(')[0]}-{name}.xml"
    report.parent.mkdir(parents=True, exist_ok=True)
    report.unlink(missing_ok=True)
    module = name.replace("-", "_")
    session.run(
        "pytest",
        str(MEMBERS[name] / "tests"),
        *(["--doctest-modules", "--pyargs", module] if not arguments else []),
        f"--junitxml={report}",
        # Tests of one file share what they train; files go to one worker a core. Marked ones need a machine's parts.
        *(["-n", WORKERS, "--dist", "loadfile"] if not arguments and WORKERS != "0" else []),
        *arguments,
        *session.posargs,
        success_codes=codes,
        env={"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"), **CACHED_BYTECODE, **environment},
    )


@nox.session
@nox.parametrize("package", [nox.param(name, id=name) for name in MEMBERS])
def tests(session: nox.Session, package: str) -> None:
    """Test each package in an environment that holds only its own dependencies."""
    sync_member(session, package)
    run_pytest(session, package)


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff, import contract, dependencies of each member, spelling, shell scripts."""
    sync(session, "--only-group", "lint")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    sources = os.pathsep.join(str(ROOT / folder / "src") for folder in MEMBERS.values())
    session.run("lint-imports", "--no-cache", env={"PYTHONPATH": sources})
    for folder in MEMBERS.values():
        names = declared(ROOT / folder / "pyproject.toml")
        module_map = ",".join(f"{name}={MODULES.get(name, name.replace('-', '_'))}" for name in names)
        unused = "|".join(("DEP002=imagecodecs", "openslide-bin", "tensorboard"))
        with session.chdir(ROOT / folder):
            session.run(
                "deptry", "src", "--package-module-name-map", module_map, "--per-rule-ignores", unused
            )
    session.run("codespell")
    found = [*ROOT.glob("packages/*/*.sh"), *ROOT.glob("packages/*/*/*.sh")]
    scripts = [str(path.relative_to(ROOT)) for path in found]
    session.run("shellcheck", *scripts, ".ci/run")


@nox.session
def types(session: nox.Session) -> None:
    """Pyright over all members."""
    sync(session, "--all-packages", "--all-extras", "--group", "types", "--group", "dev")
    python = str(Path(session.virtualenv.bin) / "python")
    session.run("pyright", "--pythonpath", python, env={"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"})


@nox.session
def demo(session: nox.Session) -> None:
    """Run every package end to end on data it makes itself; results in runs/demo/index.html."""
    output = ROOT / "runs" / "demo"
    failed = []
    for name in PACKAGES:
        sync_member(session, name)
        try:
            session.run(name, "demo", "--output", str(output / name), *session.posargs, env=CACHED_BYTECODE)
        except CommandFailed:
            failed.append(name)
    session.run("python", "-m", "medshared.demo", str(output))
    if failed:
        session.error(f"the demo failed for: {', '.join(failed)}")


@nox.session
def bench(session: nox.Session) -> None:
    """Speed and memory benchmarks; one JSON line a workload."""
    for name in MEMBERS:
        scripts = sorted((ROOT / MEMBERS[name]).glob("benchmarks/*.py"))
        if scripts:
            sync_member(session, name)
        for script in scripts:
            session.run("python", str(script.relative_to(ROOT)), *session.posargs)


@nox.session(venv_backend="venv")
def build(session: nox.Session) -> None:
    """Build all wheels, install each package from them with plain pip, run its --help."""
    wheels = ROOT / "dist"
    shutil.rmtree(wheels, ignore_errors=True)
    for name in MEMBERS:
        session.run(
            "uv",
            "build",
            "--quiet",
            "--wheel",
            "--no-sources",
            "--package",
            name,
            "-o",
            str(wheels),
            external=True,
        )
    for name in PACKAGES:
        # An environment for each: what one package brought would hide what the next one lacks.
        folder = Path(session.create_tmp()) / name
        session.run("python", "-m", "venv", "--clear", str(folder))
        programs = folder / ("Scripts" if os.name == "nt" else "bin")
        pip = (str(programs / "python"), "-m", "pip")
        session.run(*pip, "install", "--quiet", "--find-links", str(wheels), name, external=True)
        session.run(str(programs / name), "--help", external=True)
        installed = session.run(*pip, "list", "--format=freeze", silent=True, external=True) or ""
        unwanted = [heavy for heavy in HEAVY.get(name, []) if f"{heavy}==" in installed.lower()]
        if unwanted:
            session.error(f"installing {name} alone pulled in {', '.join(unwanted)}")
        shutil.rmtree(folder)


@nox.session
@nox.parametrize("package", [nox.param(name, id=name) for name in MEMBERS])
def minimums(session: nox.Session, package: str) -> None:
    """Test each package against the lowest versions that it declares."""
    folder = MEMBERS[package]
    session.run_install(
        "uv",
        "pip",
        "install",
        "--quiet",
        "--python",
        session.virtualenv.location,
        "--resolution",
        "lowest-direct",
        "--group",
        f"{folder}/pyproject.toml:test",
        "-e",
        str(folder),
    )
    run_pytest(session, package)


def _marked(session: nox.Session, marker: str, **environment: str) -> None:
    """Run the tests of one marker; a member without such tests is no failure."""
    for name in MEMBERS:
        sync_member(session, name)
        run_pytest(session, name, "-m", marker, codes=(0, 5), **environment)


@nox.session
def gpu(session: nox.Session) -> None:
    """Tests that need a CUDA device."""
    _marked(session, "gpu")


@nox.session
def slurm(session: nox.Session) -> None:
    """Submit every wrapper to a one-node SLURM cluster that lives for the session (root installs what is missing)."""
    sys.path.insert(0, str(ROOT))
    from slurm_cluster import install, running_cluster

    try:
        install()
    except RuntimeError as error:
        session.error(str(error))
    with running_cluster() as cluster:
        _marked(session, "slurm", **cluster.environment)


@nox.session
def crash(session: nox.Session) -> None:
    """Kill every preparation, training and prediction 50 times, and compare what comes out at last."""
    session.env["MEDPAPERS_KILLS"] = os.environ.get("MEDPAPERS_KILLS", "50")
    _marked(session, "crash")


@nox.session
def browser(session: nox.Session) -> None:
    """Tests that need headless Chromium."""
    if shutil.which("chromium") is None and shutil.which("google-chrome") is None:
        session.error("install Chromium first, for example: apt-get install chromium")
    _marked(session, "browser")
