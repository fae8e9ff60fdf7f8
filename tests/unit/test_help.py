"""What ``--help`` says of every command: what it does, and an example that its own parser takes."""

import importlib
import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from outrider.cli import VERBS

EXAMPLE = re.compile(r"(?:^|(?<=\s\s))outrider (\S+(?: \S+)*)")
"""At the start of a line or after two spaces; up to the next two. One in the midst of a sentence is none."""
HELP_MIN_CHARS = 12


def leaves(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command below a verb that is no group, with the words that lead to it."""
    below = getattr(command, "commands", None)
    if below is None:
        yield path, command
        return
    for name, child in below.items():
        yield from leaves(child, (*path, name))


def verb(name: str) -> Any:
    """The verb's command, or group of commands."""
    return typer.main.get_command(importlib.import_module(f"outrider.verbs.{name}").app)


def said(command: Any) -> str:
    """Its help and what stands below its options, wrapped commands in one line."""
    text = "\n".join([command.help or "", command.epilog or ""])
    return re.sub(r"\\\n\s*", "", text)


def examples(command: Any) -> list[list[str]]:
    """The words after ``outrider`` of each example; what the shell does with its output is not part of it."""
    found = []
    for line in said(command).splitlines():
        # An environment variable before a command is the shell's, too.
        for match in EXAMPLE.finditer(re.sub(r"[A-Z][A-Z0-9_]*=\S+ (?=outrider )", "", line.strip())):
            words = shlex.split(match[1].removesuffix(";"))
            shell = next((n for n, word in enumerate(words) if word in (">", "|")), len(words))
            found.append(words[:shell])
    return found


def parsed(command: Any, words: list[str], path: tuple[str, ...]) -> tuple[str, ...]:
    """Read the words as the command would, and run nothing; the path of the command that would run.

    Raises:
        ClickException: A word that it does not take.
    """
    context = command.make_context(path[-1], list(words))
    if not hasattr(command, "commands"):
        return path
    left = [*context._protected_args, *context.args]
    name, child, rest = command.resolve_command(context, left)
    return parsed(child, rest, (*path, name))


COMMANDS = [found for name in VERBS for found in leaves(verb(name), (name,))]


def test_there_are_commands() -> None:
    assert len(COMMANDS) > 80
    assert {path[0] for path, _ in COMMANDS} == set(VERBS)


@pytest.mark.parametrize(("path", "command"), COMMANDS, ids=[" ".join(path) for path, _ in COMMANDS])
def test_every_command_says_what_it_does_and_shows_how(path: tuple[str, ...], command: Any) -> None:
    assert len((command.help or "").strip()) >= HELP_MIN_CHARS
    found = examples(command)
    assert found, f"outrider {' '.join(path)} --help shows no example"
    reached = [parsed(verb(words[0]), words[1:], (words[0],)) for words in found]
    assert path in reached, f"none of its examples is of outrider {' '.join(path)}: {reached}"


def test_an_example_that_its_command_does_not_take_is_found() -> None:
    app = typer.Typer(add_completion=False)

    @app.command(epilog="Example:  outrider keys robot --colour red")
    def robot(name: str) -> None:
        """Nothing of use: `outrider keys robot` in a sentence is no example."""

    command = typer.main.get_command(app)
    (words,) = examples(command)
    assert words == ["keys", "robot", "--colour", "red"]
    with pytest.raises(Exception, match="No such option: --colour"):
        parsed(command, words[2:], ("robot",))
