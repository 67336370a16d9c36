"""What a linter of workflows does not see in GitHub's (`make lint` has two), and how the site becomes public."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOWS = {path.name: path.read_text() for path in sorted((ROOT / ".github" / "workflows").glob("*.yml"))}
MAKEFILE = (ROOT / "Makefile").read_text()


def called(text):
    """What a workflow's commands call: make's targets, and the repository's own files."""
    steps = [step for job in yaml.safe_load(text)["jobs"].values() for step in job.get("steps", [])]
    commands = " ".join(step.get("run", "") for step in steps)
    return set(re.findall(r"\bmake ([a-z-]+)", commands)), set(re.findall(r"\.ci/\w+", commands))


@pytest.mark.parametrize("name", WORKFLOWS)
def test_what_a_workflow_calls_exists(name):
    targets, programs = called(WORKFLOWS[name])
    assert [target for target in targets if not re.search(rf"^{target}:", MAKEFILE, re.MULTILINE)] == []
    assert [program for program in programs if not os.access(ROOT / program, os.X_OK)] == []
    jobs = yaml.safe_load(WORKFLOWS[name])["jobs"]
    assert all(set(job.get("needs", [])) <= set(jobs) for job in jobs.values())
    assert all((ROOT / job["uses"]).is_file() for job in jobs.values() if "uses" in job)


def test_every_pull_request_and_every_push_to_main_is_checked():
    checks, publish = yaml.safe_load(WORKFLOWS["checks.yml"]), yaml.safe_load(WORKFLOWS["publish.yml"])
    on = True  # YAML 1.1, which PyYAML reads, takes the word for a truth value
    assert {"pull_request", "workflow_call"} <= checks[on].keys()
    assert checks[on]["pull_request"] is None  # no filter: all of them
    assert [step["run"] for step in checks["jobs"]["run"]["steps"] if "run" in step] == [".ci/run"]
    assert "if" not in checks["jobs"]["run"]
    assert publish[on]["push"] == {"branches": ["main"]}
    assert publish["jobs"]["checks"] == {"uses": "./.github/workflows/checks.yml"}


def test_nothing_is_published_unchecked():
    publish = yaml.safe_load(WORKFLOWS["publish.yml"])["jobs"]
    assert set(publish["publish"]["needs"]) == {"address", "checks"}
    assert publish["publish"]["if"] == "github.ref == 'refs/heads/main'"
    *before, last = publish["publish"]["steps"]
    assert [step.get("run") for step in before if "run" in step] == ["make book"]
    assert last["run"].endswith(".ci/publish")
    assert "GH_TOKEN" in last["env"]
    assert not any("GH_TOKEN" in str(step) for step in before)


def test_every_python_promised_is_tried_at_night():
    promised = sorted(set(re.findall(r"\bpython(3\.\d+)\b", re.search(r"^PYTHON \?=.*$", MAKEFILE, re.MULTILINE)[0])))
    assert f'requires-python = ">={promised[0]}"' in (ROOT / "pyproject.toml").read_text()
    nightly = yaml.safe_load(WORKFLOWS["nightly.yml"])["jobs"]
    assert nightly["python"]["strategy"] == {"fail-fast": False, "matrix": {"python": promised}}
    assert called(WORKFLOWS["nightly.yml"])[0] == {"test", "test-colab", "test-oldest"}


@pytest.mark.parametrize(
    "url, status",
    [
        ("https://github.com/o/n", 0),
        ("https://github.com/o/n2", 1),
        ("https://github.com/p/n", 1),
        ("http://github.com/o/n", 1),
    ],
)
def test_a_site_is_published_under_its_own_address_alone(url, status, tmp_path):
    guard = yaml.safe_load(WORKFLOWS["publish.yml"])["jobs"]["address"]["steps"][-1]["run"]
    book = re.sub(r"^  url: .*$", f"  url: {url}", (ROOT / "_config.yml").read_text(), flags=re.MULTILINE)
    (tmp_path / "_config.yml").write_text(book)
    (tmp_path / "README.md").write_text("    pip install git+https://github.com/o/n\n")
    environment = {**os.environ, "GITHUB_REPOSITORY": "o/n"}
    settings = dict(cwd=tmp_path, env=environment, capture_output=True, text=True)
    done = subprocess.run(["bash", "-ec", guard], check=False, **settings)
    assert done.returncode == status
    assert ("::error file=_config.yml::" in done.stdout) == bool(status)


@pytest.fixture
def checkout(tmp_path):
    """A repository with one commit, a site and an empty `origin`; and git in it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}

    def run(*command, check=True):
        settings = dict(cwd=tmp_path / "book", env=environment, capture_output=True, text=True)
        return subprocess.run(command, check=check, **settings)

    site = tmp_path / "book" / "_build" / "html"
    (site / "_static").mkdir(parents=True)
    (site / "index.html").write_text("first")
    (site / "_static" / "old.css").touch()
    (tmp_path / "book" / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "publish", tmp_path / "book" / ".ci" / "publish")
    (tmp_path / "book" / ".gitignore").write_text("/_build/\n*.css\n")
    run("git", "init", "--quiet", "--bare", str(tmp_path / "origin"))
    run("git", "init", "--quiet", "--initial-branch", "main")
    (tmp_path / "book" / ".git" / "info" / "exclude").write_text("*.css\n")  # leaves nothing out of the site
    run("git", "remote", "add", "origin", str(tmp_path / "origin"))
    run("git", "add", ".ci", ".gitignore")
    run("git", "-c", "user.name=A", "-c", "user.email=a@example.org", "commit", "--quiet", "--message", "The book")
    return run


def test_the_site_is_published_as_one_commit(checkout, tmp_path):
    site = tmp_path / "book" / "_build" / "html"
    for content, style in (("first", "old.css"), ("second", "new.css")):
        (site / "index.html").write_text(content)
        (site / "_static" / "old.css").rename(site / "_static" / style)
        checkout(".ci/publish")
        git = ("git", "--git-dir", str(tmp_path / "origin"))
        assert checkout(*git, "rev-list", "--count", "gh-pages").stdout == "1\n"
        assert checkout(*git, "show", "gh-pages:index.html").stdout == content
        listed = checkout(*git, "ls-tree", "-r", "--name-only", "gh-pages").stdout.split()
        assert listed == [".nojekyll", f"_static/{style}", "index.html"]
    assert checkout("git", "rev-parse", "HEAD").stdout.strip() in checkout(*git, "log", "gh-pages").stdout
    assert checkout("git", "status", "--porcelain").stdout == ""
    assert checkout(*git, "branch", "--list", "--format", "%(refname:short)").stdout == "gh-pages\n"


def test_without_a_site_nothing_is_published(checkout, tmp_path):
    (tmp_path / "book" / "_build" / "html" / "index.html").unlink()
    done = checkout(".ci/publish", check=False)
    assert done.returncode == 1
    assert "make book" in done.stdout
