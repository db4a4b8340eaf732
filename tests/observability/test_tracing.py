import subprocess
import sys

import pytest

from observability import tracing

SCRIPT = """
import builtins, importlib.util, logging, sys
logging.basicConfig()
if "hide" in sys.argv:
    real = importlib.util.find_spec
    importlib.util.find_spec = lambda name, *a: None if name.startswith("opentelemetry") else real(name, *a)
from observability import tracing
print(tracing.start("causeway-test"))
with tracing.span("x", session="y") as span:
    span.note(a=1)
    span.fail("b")
    print(len(tracing.trace_id()))
print(any(name.startswith("opentelemetry") for name in sys.modules))
"""


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-c", SCRIPT, *arguments]
    return subprocess.run(argv, env={"PATH": "", **environment}, capture_output=True, text=True)


def test_nothing_is_traced_or_imported_unless_an_endpoint_is_named() -> None:
    assert run().stdout.split() == ["False", "0", "False"]


def test_without_the_extra_that_is_said_and_all_goes_on() -> None:
    done = run("hide", OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9")
    assert done.stdout.split() == ["False", "0", "False"]
    assert "the extra `tracing` is not installed" in done.stderr


def test_spans_have_a_trace_where_an_endpoint_is_named() -> None:
    assert run(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9", OTEL_BSP_EXPORT_TIMEOUT="1").stdout.split()[:2] == [
        "True",
        "32",
    ]


def test_what_fails_inside_goes_on_to_fail() -> None:
    with pytest.raises(ValueError, match="x"), tracing.span("x"):
        raise ValueError("x")
