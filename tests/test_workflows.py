"""What can rot in GitHub's workflows unseen, since they run elsewhere; and how the site becomes public."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

import check_address

ROOT = Path(__file__).parents[1]
WORKFLOWS = {path.name: path.read_text() for path in sorted((ROOT / ".github" / "workflows").glob("*.yml"))}
MAKEFILE = (ROOT / "Makefile").read_text()
REQUIRES = re.search(r'requires-python = ">=([\d.]+)"', (ROOT / "pyproject.toml").read_text())[1]
PROMISED = sorted(set(re.findall(r"\bpython(3\.\d+)\b", re.search(r"^PYTHON \?=.*$", MAKEFILE, re.MULTILINE)[0])))
KNOWN_ACTIONS = {"actions/checkout@v4", "actions/setup-python@v5", "actions/upload-artifact@v4"}
MAY_WRITE = {("publish.yml", "publish"): {"contents": "write"}}
CRON = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))


def is_cron(text):
    """Whether it is five fields of numbers, lists, ranges and steps, each in its range."""
    fields = text.split()
    return len(fields) == len(CRON) and all(
        re.fullmatch(r"(\*|\d+(-\d+)?)(/[1-9]\d*)?", part)
        and all(low <= int(number) <= high for number in re.findall(r"\d+", part.partition("/")[0]))
        for field, (low, high) in zip(fields, CRON, strict=True)
        for part in field.split(",")
    )


def called(text):
    """What a workflow's commands call: make's targets, and the repository's own files."""
    steps = [step for job in yaml.safe_load(text)["jobs"].values() for step in job.get("steps", [])]
    commands = [step["run"] for step in steps if "run" in step]
    targets = {name for command in commands for name in re.findall(r"\bmake ([a-z-]+)", command)}
    return targets, {name for command in commands for name in re.findall(r"(?:\.ci|code/tools)/[\w.]+", command)}


def problems(name, text):
    """List what is wrong with a workflow."""
    workflow = yaml.safe_load(text)
    triggers = workflow[True]  # YAML 1.1, which PyYAML reads, takes the word `on` for a truth value
    found = []
    targets, files = called(text)
    found += [f"make {name} is no target" for name in targets if not re.search(rf"^{name}:", MAKEFILE, re.MULTILINE)]
    found += [f"{file} is no program" for file in files if not (ROOT / file).is_file()]
    found += [f"{file} may not run" for file in files if file[:3] == ".ci" and not os.access(ROOT / file, os.X_OK)]
    crons = [entry["cron"] for entry in (triggers.get("schedule") if isinstance(triggers, dict) else None) or []]
    found += [f"{cron!r} is no time" for cron in crons if not is_cron(cron)]
    if crons and "workflow_dispatch" not in triggers:
        found.append("nobody can start it by hand")
    if workflow.get("permissions") != {"contents": "read"}:
        found.append("may do more than read, or does not say")
    if "concurrency" not in workflow:
        found.append("runs beside itself")
    for key, job in workflow["jobs"].items():
        found += [f"{key} needs {other}, no job" for other in job.get("needs", []) if other not in workflow["jobs"]]
        if job.get("permissions", {}) != MAY_WRITE.get((name, key), {}):
            found.append(f"{key} has other permissions than it should")
        if "uses" in job:
            if not (ROOT / job["uses"]).is_file():
                found.append(f"{job['uses']} is no workflow")
            continue
        if not 0 < job.get("timeout-minutes", 0) <= 120:
            found.append(f"{key} may run for hours")
        for step in job["steps"]:
            action, settings = step.get("uses", ""), step.get("with", {})
            if action and action not in KNOWN_ACTIONS:
                found.append(f"{action} is not known")
            if "checkout" in action and settings.get("persist-credentials") is not False:
                found.append(f"{key} keeps its token")
            version = settings.get("python-version", REQUIRES)
            if version not in (REQUIRES, "${{ matrix.python }}", *PROMISED):
                found.append(f"{key} runs on Python {version!r}")
    return found


@pytest.mark.parametrize("name", WORKFLOWS)
def test_nothing_is_wrong_with_a_workflow(name):
    assert problems(name, WORKFLOWS[name]) == []


@pytest.mark.parametrize(
    "name, old, new, message",
    [
        ("nightly.yml", "make test-oldest", "make test-older", "make test-older is no target"),
        ("checks.yml", "run: .ci/run", "run: .ci/runs", ".ci/runs is no program"),
        ("nightly.yml", '"23 3 * * *"', '"23 25 * * *"', "'23 25 * * *' is no time"),
        ("links.yml", '"41 4 * * 1"', '"41 4 * *"', "'41 4 * *' is no time"),
        ("links.yml", "workflow_dispatch:", "push:", "nobody can start it by hand"),
        ("links.yml", "contents: read", "contents: write", "may do more than read, or does not say"),
        ("checks.yml", "permissions:\n  contents: read\n", "", "may do more than read, or does not say"),
        ("checks.yml", "concurrency:", "env:", "runs beside itself"),
        ("publish.yml", "[address, checks]", "[address, tests]", "publish needs tests, no job"),
        ("publish.yml", "contents: write", "packages: write", "publish has other permissions than it should"),
        ("publish.yml", "workflows/checks.yml", "workflows/check.yml", "./.github/workflows/check.yml is no workflow"),
        ("checks.yml", "    timeout-minutes: 120\n", "", "run may run for hours"),
        ("links.yml", "setup-python@v5", "setup-python@main", "actions/setup-python@main is not known"),
        ("links.yml", "persist-credentials: false", "persist-credentials: true", "links keeps its token"),
        ("links.yml", '"3.11"', "3.10", "links runs on Python 3.1"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_found(name, old, new, message):
    assert WORKFLOWS[name].count(old) == 1
    assert message in problems(name, WORKFLOWS[name].replace(old, new))


@pytest.mark.parametrize("text", ["0 0 1 1 0", "*/15 3-5 1,15 * 1-5", "59 23 31 12 6"])
def test_a_time(text):
    assert is_cron(text)


NO_TIMES = ["60 3 * * *", "3 * * *", "3 3 0 * *", "3 3 * 13 *", "3 3 * * 7", "3 3 * * mon", "*/0 3 * * *", ""]


@pytest.mark.parametrize("text", NO_TIMES)
def test_no_time(text):
    assert not is_cron(text)


def test_every_pull_request_and_every_push_to_main_is_checked():
    checks, publish = yaml.safe_load(WORKFLOWS["checks.yml"]), yaml.safe_load(WORKFLOWS["publish.yml"])
    assert {"pull_request", "workflow_call"} <= checks[True].keys()
    assert checks[True]["pull_request"] is None  # no filter: all of them
    assert [step["run"] for step in checks["jobs"]["run"]["steps"] if "run" in step] == [".ci/run"]
    assert "if" not in checks["jobs"]["run"]
    assert publish[True]["push"] == {"branches": ["main"]}
    assert publish["jobs"]["checks"] == {"uses": "./.github/workflows/checks.yml"}


def test_nothing_is_published_unchecked():
    publish = yaml.safe_load(WORKFLOWS["publish.yml"])["jobs"]
    assert set(publish["publish"]["needs"]) == {"address", "checks"}
    assert publish["publish"]["if"] == "github.ref == 'refs/heads/main'"
    assert publish["address"]["steps"][-1]["run"] == 'python3 code/tools/check_address.py "$GITHUB_REPOSITORY"'
    *before, last = publish["publish"]["steps"]
    assert [step.get("run") for step in before if "run" in step] == ["make book"]
    assert last["run"].endswith(".ci/publish")
    assert "GH_TOKEN" in last["env"]
    assert not any("GH_TOKEN" in str(step) for step in before)


def test_every_python_promised_is_tried_at_night():
    nightly = yaml.safe_load(WORKFLOWS["nightly.yml"])["jobs"]
    assert len(PROMISED) >= 3
    assert PROMISED[0] == REQUIRES
    strategy = nightly["python"]["strategy"]
    assert strategy == {"fail-fast": False, "matrix": {"python": PROMISED}}
    assert {"test", "test-colab", "test-oldest"} == called(WORKFLOWS["nightly.yml"])[0]


# the guard and the push

CONFIG = """title: A book
html:
  url: https://example.org/not-this-one  # nor this
repository:
  # one line that a fork changes
  branch: main

  url: {url}
parse: {{}}
"""


@pytest.mark.parametrize("url", ["https://github.com/o/n", '"https://github.com/o/n"', "https://github.com/o/n # mine"])
def test_the_guard_finds_the_address_as_yaml_does(url):
    config = CONFIG.format(url=url)
    assert check_address.address(config) == (yaml.safe_load(config)["repository"]["url"], 8)
    assert check_address.problem(config, "o/n") is None


def test_the_guard_reads_the_books_own_configuration():
    config = check_address.CONFIG.read_text()
    found = check_address.address(config)
    assert (found and found[0]) == yaml.safe_load(config).get("repository", {}).get("url")


@pytest.mark.parametrize("url", ["https://github.com/p/n", "https://github.com/o/n2", "http://github.com/o/n", "o/n"])
def test_the_guard_refuses_a_wrong_address_and_names_the_line(url):
    message = check_address.problem(CONFIG.format(url=url), "o/n")
    assert message.startswith("::error file=_config.yml,line=8::Line 8 ")
    assert f"`url: {url}`" in message
    assert message.endswith("Change the line to `url: https://github.com/o/n`")


@pytest.mark.parametrize("config", ["", "title: A book\n", "repository:\nhtml:\n  url: https://github.com/o/n\n"])
def test_the_guard_refuses_no_address(config):
    assert "needs the lines" in check_address.problem(config, "o/n")


def test_the_guards_exit_status(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(check_address, "CONFIG", tmp_path / "_config.yml")
    check_address.CONFIG.write_text(CONFIG.format(url="https://github.com/o/n"))
    assert check_address.main(["o/n"]) == 0
    assert check_address.main(["o/fork"]) == 1
    assert "::error" in capsys.readouterr().out


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
