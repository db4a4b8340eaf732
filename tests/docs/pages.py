"""Reads the pages of docs/, and runs what they show.

A block fenced as `console` holds commands and what they print: a line that begins with "$ " begins a command, which
continues while its quotes are open or a line ends in a backslash. The lines after it are its output, in which `...`
matches any text.
"""

import os
import re
import secrets
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).parent.parent.parent / "docs"
PROMPT = "$ "


@dataclass(frozen=True)
class Step:
    line: int  # in the page
    command: str
    output: str


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """(line of the first line, text) of the page's blocks in that language."""
    text = page.read_text()
    found = re.finditer(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [(text.count("\n", 0, block.start(1)) + 1, block[1]) for block in found]


def steps(page: Path) -> list[Step]:
    return [step for line, block in blocks(page, "console") for step in _steps(line, block)]


def _steps(first: int, block: str) -> list[Step]:
    found: list[tuple[int, list[str], list[str]]] = []
    is_open = False
    for number, line in enumerate(block.splitlines(), first):
        if is_open:
            found[-1][1].append(line)
        elif line.startswith(PROMPT):
            found.append((number, [line.removeprefix(PROMPT)], []))
        else:
            found[-1][2].append(line)
            continue
        is_open = _is_open("\n".join(found[-1][1]))
    return [Step(number, "\n".join(command), "\n".join(output)) for number, command, output in found]


def _is_open(command: str) -> bool:
    """Whether a shell would ask for another line."""
    if command.endswith("\\"):
        return True
    outside = re.sub(r"\"(\\.|[^\"\\])*\"|'[^']*'", "", command)
    return "'" in outside or '"' in outside


def run(
    steps: list[Step], folder: Path, environment: dict[str, str], within: float, inside: Sequence[str] = ()
) -> list[str]:
    """Runs all of them in one shell, started by the command `inside` if there is one; what differs from the page.
    Ends what the shell started when time is up."""
    mark = secrets.token_hex(16)
    script = "".join(f"{step.command}\necho {mark} $?\n" for step in steps)
    shell = subprocess.Popen(
        [*inside, "bash", "-c", script],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        printed, _ = shell.communicate(timeout=within)
    except subprocess.TimeoutExpired:
        os.killpg(shell.pid, signal.SIGKILL)
        printed, _ = shell.communicate()
    answers = re.findall(rf"(.*?){mark} (\d+)\n", printed, re.DOTALL)
    problems = [problem for step, answer in zip(steps, answers, strict=False) if (problem := _differs(step, *answer))]
    if len(answers) < len(steps):
        rest = printed.rpartition(mark)[2].partition("\n")[2]
        problems.append(f"line {steps[len(answers)].line} did not come to an end:\n{rest}")
    return problems


def _differs(step: Step, printed: str, status: str) -> str | None:
    printed = printed.replace("\r", "").strip("\n")
    if status == "0" and fits(step.output, printed):
        return None
    return f"line {step.line}: {step.command}\nshown:\n{step.output}\nprinted, status {status}:\n{printed}\n"


def fits(shown: str, printed: str) -> bool:
    pattern = ".*".join(re.escape(part) for part in shown.split("..."))
    return re.fullmatch(pattern, printed, re.DOTALL) is not None


def titled(page: Path) -> list[tuple[str, str]]:
    """(title, text) of the page's blocks that have a title, in order."""
    return re.findall(r'^```text title="([^"]*)"\n(.*?)^```$', page.read_text(), re.MULTILINE | re.DOTALL)


def octets(text: str) -> bytes:
    """The bytes of a block whose lines are some in hex, two spaces or more, and what they mean."""
    return bytes.fromhex("".join(line.partition("  ")[0] for line in text.splitlines()))


def table(page: Path, *, after: str) -> list[list[str]]:
    """The cells of the first table after that text, without its head."""
    rows = re.search(r"^\|.*?(?=^[^|]|\Z)", page.read_text().partition(after)[2], re.MULTILINE | re.DOTALL)
    assert rows, after
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[0].splitlines()[2:] if row]


def words(text: str) -> list[str]:
    """What stands in it `as code`."""
    return re.findall(r"`([^`]+)`", text)
