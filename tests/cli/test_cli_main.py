"""What every command has in common: exit codes, streams, start-up cost, no traceback."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.command_line import ROOT, FakeCdk, FakeCloud, Result

from modelstacks.cli import commands
from modelstacks.core.errors import DeploymentFailed, EnvironmentFault

HEAVY = ("aws_cdk", "moto", "sagemaker", "boto3", "httpx", "starlette", "rich")
HEADINGS = {
    "Start": ["new", "setup", "init", "demo"],
    "Specs and locks": ["validate", "lock", "plan"],
    "On this machine": ["up", "status", "invoke", "verify", "logs", "down", "env"],
    "AWS": ["deploy", "destroy"],
    "Checks": ["doctor"],
}


def fresh(*arguments: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, as a person starts it."""
    return subprocess.run(
        [sys.executable, "-m", "modelstacks", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("arguments", [["--help"], ["validate", "deployments/churn.yaml"], ["up", "--help"]])
def test_help_and_validate_import_nothing_heavy(arguments: list[str]) -> None:
    script = (
        "import sys; from modelstacks.cli.main import main; code = main(sys.argv[1:]); "
        f"heavy = sorted(set({HEAVY!r}) & set(sys.modules)); print(code, heavy, file=sys.stderr)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ran.stderr.strip().endswith("0 []")


def test_help_lists_every_command_and_the_exit_codes(cli) -> None:
    ran = fresh("--help")
    commands = ran.stdout[ran.stdout.index("Start:") :]
    sections = re.findall(r"(?m)^(\w[\w ]+):\n((?:  .*\n)+)", commands)
    listed = {heading: re.findall(r"(?m)^  (\w+)  ", lines) for heading, lines in sections}
    assert listed == HEADINGS
    assert "2 spec or usage" in ran.stdout
    assert "..." not in commands


def test_help_imports_no_implementation() -> None:
    """A command's file imports what it needs inside its functions: pydantic alone would double --help."""
    script = (
        "import sys; from modelstacks.cli.main import main; main(['--help']); "
        "print(sorted({'pydantic', 'yaml', 'asyncio'} & set(sys.modules)), file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stderr == "[]\n"


@pytest.fixture
def greet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command's file beside the others."""
    folder = str(ROOT / "tests" / "fixtures" / "commands")
    monkeypatch.setattr(commands, "__path__", [*commands.__path__, folder])


@pytest.mark.usefixtures("greet")
def test_a_file_in_the_commands_folder_is_a_command(cli, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli("greet", "--loud", "ann").out == "HELLO ANN\n"
    assert cli("--help").code == 0
    assert "  greet     Say hello.\n" in capsys.readouterr().out.split("Start:")[1].split("Specs")[0]
    assert cli("greet", "--help").code == 0
    assert "Examples:\n    modelstacks greet ann\n" in capsys.readouterr().out


@pytest.mark.usefixtures("greet")
def test_a_command_that_declares_it_gets_the_arguments_after_the_dashes(cli) -> None:
    assert cli("greet", "ann", "--", "--force", "x").out == "hello ann --force x\n"


def test_the_documented_exit_codes_are_the_real_ones() -> None:
    from modelstacks.core import errors

    text = (ROOT / "docs" / "cli.md").read_text()
    documented = {int(code) for code in re.findall(r"(?m)^\| (\d+) \|", text)}
    raised = {kind.exit_code for kind in errors.ModelstacksError.__subclasses__()}
    assert documented == raised | {0, 1, 130}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["frob"], "no such command 'frob'"),
        (["up", "--nope"], "no such option: --nope"),
        (["invoke"], "missing argument 'NAME'"),
        (["up", "--port", "80"], "invalid value for '--port'"),
        (["plan", "--architecture", "hosted"], "'hosted' is not one of"),
        (["-C", "/nowhere", "status"], "the project's folder does not exist; got /nowhere"),
    ],
)
def test_a_wrong_command_line_is_one_line_on_stderr_and_exit_code_2(cli, arguments, words) -> None:
    ran: Result = cli(*arguments)
    assert ran.code == 2
    assert ran.out == ""
    assert ran.err.startswith("modelstacks: ")
    assert words in ran.err
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code"),
    [(EnvironmentFault("port 4566 is in use"), 4), (DeploymentFailed("the stack rolled back"), 5)],
)
def test_an_error_ends_the_command_with_its_own_exit_code(cli, cloud: FakeCloud, error, code) -> None:
    cloud.refuses = error
    ran = cli("up")
    assert (ran.code, ran.err.splitlines()[-1]) == (code, f"modelstacks: {error}")


def test_an_unexpected_error_is_one_line_without_a_traceback(cli, cloud: FakeCloud) -> None:
    cloud.refuses = RuntimeError("boom\nsecond line")
    ran = cli("status")
    assert ran.code == 1
    assert "an unexpected error in modelstacks itself: RuntimeError: boom;" in ran.err
    assert "MODELSTACKS_DEBUG=1" in ran.err
    assert "Traceback" not in ran.err


def test_debug_shows_the_traceback_of_an_unexpected_error(cli, cloud: FakeCloud) -> None:
    cloud.refuses = RuntimeError("boom")
    assert "Traceback" in cli("--debug", "status").err


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_one_message_and_exit_code_4(cli, cdk: FakeCdk, number: int) -> None:
    cdk.fails["synth"] = OSError(number, os.strerror(number), "/project/.modelstacks/cdk.out")
    ran = cli("up")
    assert ran.code == 4
    assert "the disk is full: cannot write /project/.modelstacks/cdk.out; fix: free some space" in ran.err


def test_a_disk_that_really_is_full_is_one_message(project: Path) -> None:
    """RLIMIT_FSIZE stands for the full disk: the kernel refuses every byte."""
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)); "
        "from modelstacks.cli.main import main; sys.exit(main(['init', '--name', 'full']))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 4
    assert ran.stderr.startswith("modelstacks: the disk is full")
    assert ran.stderr.count("\n") == 1


def test_no_color_is_honoured_and_colour_never_reaches_a_pipe(project: Path) -> None:
    ran = fresh("doctor", cwd=project, FORCE_COLOR="1", NO_COLOR="1")
    assert "\x1b" not in ran.stdout + ran.stderr
    assert "\x1b" not in fresh("doctor", cwd=project).stdout


def test_a_reader_that_leaves_early_is_no_error(project: Path) -> None:
    ran = subprocess.run(
        f"{sys.executable} -m modelstacks plan | true",
        shell=True,
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.stderr == ""


def test_deployment_names_are_completed(project: Path) -> None:
    ran = fresh(
        cwd=project,
        _MODELSTACKS_COMPLETE="complete_bash",
        COMP_WORDS="modelstacks invoke ch",
        COMP_CWORD="2",
    )
    assert ran.stdout.split() == ["churn"]


def test_the_version_is_printed(cli) -> None:
    from modelstacks import __version__

    assert fresh("--version").stdout == f"modelstacks {__version__}\n"


def test_the_project_is_found_from_a_folder_inside_it(project: Path) -> None:
    inside = project / "model_artifacts" / "churn-xgboost"
    ran = fresh("plan", "churn", "--json", cwd=inside)
    assert [plan["name"] for plan in json.loads(ran.stdout)["plans"]] == ["churn"]
