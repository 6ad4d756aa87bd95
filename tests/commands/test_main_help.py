"""Help that commands print: every description of theirs, and usage without types."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import pfmsmt
from pfmsmt.commands.main import app


def every_command(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The program, its groups and their commands: (words, command)."""
    yield words, command
    for word, inner in getattr(command, "commands", {}).items():
        yield from every_command(inner, (*words, word))


COMMANDS = dict(every_command(typer.main.get_command(app)))
each_command = pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words) or "pfmsmt")


def printed(words: tuple[str, ...], columns: int) -> str:
    done = CliRunner().invoke(app, [*words, "--help"], prog_name="pfmsmt", env={"COLUMNS": str(columns)})
    assert done.exit_code == 0, done.output
    return done.output


def pressed(text: str) -> str:
    """Without spaces and line ends, as columns break lines anywhere."""
    return "".join(text.split())


@each_command
def test_every_description_is_printed(words):
    command = COMMANDS[words]
    shown = pressed(printed(words, 300))
    assert command.help, "the command has no description"
    assert all(pressed(line) in shown for line in command.help.splitlines())
    for parameter in command.params:
        assert not getattr(parameter, "hidden", False), parameter.name
        assert parameter.help, f"{parameter.name} has no description"
        assert pressed(parameter.help) in shown, parameter.name
        assert parameter.help[0].isupper(), parameter.help
        assert parameter.help.endswith("."), parameter.help
    for word, inner in getattr(command, "commands", {}).items():
        assert pressed(f"{word}{inner.help.splitlines()[0]}") in shown.replace("\u2502", ""), word


@each_command
def test_usage_names_arguments_and_no_types(words):
    usage = re.search(r"Usage: (.*?)\n\s*\n", printed(words, 80), re.DOTALL)[1]
    assert len(usage.splitlines()) == 1
    names = [word for word in usage.split() if word not in ("pfmsmt", *words, "[OPTIONS]", "COMMAND", "[ARGS]...")]
    arguments = [p for p in COMMANDS[words].params if p.param_type_name == "argument"]
    assert [re.sub(r"[][.]", "", name) for name in names] == [p.name.upper() for p in arguments]


def test_the_version_is_printed():
    done = CliRunner().invoke(app, ["--version"])
    assert (done.exit_code, done.output) == (0, f"pfmsmt {pfmsmt.__version__}\n")
