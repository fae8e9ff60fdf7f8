"""Documentation names what exists: verbs and their options, make targets, modules, files."""

import importlib
import re
import shlex
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pytest
import typer

from outrider.cli import VERBS

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    page for page in [*ROOT.glob("*.md"), *ROOT.glob("*/README.md"), *ROOT.glob("docs/**/*.md")]
    if page.name != "CHANGELOG.md" and "adr" not in page.parts
)  # fmt: skip
"""What is true of an older version stands in the change log and in decisions."""
CODE = re.compile(r"```[a-z]*\n(.*?)```|`([^`\n]+)`", re.DOTALL)
OWN_FILE = re.compile(
    r"\b(?:benchmarks|contracts|docs|edge_agent|firmware_interface|fleet_hub|navigation|outrider|safety|sim|tests|tools"
    r"|trainer|ros_ws/src)/[\w./-]+\.(?:py|md|yaml|c|h|png|jsonl?|csv)\b"
)
MODULE = re.compile(r"python3? -m ((?:benchmarks|tools|tests|trainer)(?:\.\w+)*)")
MAKE = re.compile(r"^(?:[A-Z_]+=\S+ )*make ([a-z-]+)", re.MULTILINE)


def code(page: Path) -> Iterator[str]:
    """Its lines of code: blocks line by line, and what stands in the text."""
    for block, inline in CODE.findall(page.read_text(encoding="utf-8")):
        yield from (block.replace("\\\n", " ").splitlines() if block else [inline])


def shown(page: Path) -> list[list[str]]:
    """The words of each command of this project's own, without what follows in a pipe or a comment."""
    found = []
    for line in code(page):
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|;&>")
        lexer.whitespace_split = True
        try:
            words = list(lexer)
        except ValueError:  # a quotation that goes on in the next line
            words = line.split()
        parts = [list(part) for whole, part in groupby(words, lambda word: word[0] not in "|;&>") if whole]
        found += [part for part in parts if part[0] == "outrider" and len(part) > 1 and part[1] != "VERB"]
    return found


def unknown_in(words: list[str]) -> str:
    """What a command line has that there is no such thing of; empty where it has all."""
    _, verb, *rest = words
    if verb.startswith("-"):
        return ""
    if verb not in VERBS:
        return f"verb {verb}"
    here = typer.main.get_command(importlib.import_module(f"outrider.verbs.{verb}").app)
    while (below := getattr(here, "commands", None)) and rest and rest[0] in below:
        here = below[rest.pop(0)]
    if below:
        return f"command {rest[0]}" if rest and rest[0].islower() and rest[0].isalpha() else ""
    known = {"--help", *(name for option in here.params for name in (*option.opts, *option.secondary_opts))}
    given = {word.partition("=")[0] for word in rest if word.startswith("--")}
    return ", ".join(sorted(given - known))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_names_what_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    wrong = [f"{shlex.join(words)}: no {what}" for words in shown(page) if (what := unknown_in(words))]
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    wrong += [f"make {name}" for line in code(page) for name in MAKE.findall(line) if name not in targets]
    for module in MODULE.findall(text):
        path = ROOT / module.replace(".", "/")
        if not (path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()):
            wrong.append(f"module {module}")
    for name in OWN_FILE.findall(text):
        if not any((folder / name).exists() for folder in (ROOT, ROOT / "docs", page.parent)):
            wrong.append(f"file {name}")
    assert wrong == []


def test_the_pages_show_commands_of_every_verb() -> None:
    assert {words[1] for page in PAGES for words in shown(page)} >= set(VERBS)


@pytest.mark.parametrize(
    ("command", "what"),
    [
        ("outrider rollout start --release 1.0.0 --to all", ""),
        ("outrider rollout start --releases 1.0.0", "--releases"),
        ("outrider rollout begin", "command begin"),
        ("outrider fly", "verb fly"),
    ],
)
def test_what_is_not_there_is_seen(command: str, what: str) -> None:
    assert unknown_in(command.split()) == what
