from pathlib import Path

import pytest

from configuration.environment import EnvironmentReader, SettingError


def reader(**environment: str) -> EnvironmentReader:
    return EnvironmentReader(environment)


def test_a_blank_variable_counts_as_not_set() -> None:
    assert reader(A="  ").text("A", "default") == "default"
    assert reader(A=" value ").text("A") == "value"
    assert not reader(A=" ").is_set("A")


@pytest.mark.parametrize(("word", "value"), [("on", True), ("TRUE", True), ("1", True), ("no", False), ("0", False)])
def test_a_flag_is_read_in_any_case(word: str, value: bool) -> None:
    assert reader(A=word).flag("A", not value) is value


@pytest.mark.parametrize("text", ["-1", "11", "1.5", "one", "1" * 20, "１"])
def test_a_whole_number_is_within_its_limits(text: str) -> None:
    with pytest.raises(SettingError, match="A must be a whole number from 0 to 10"):
        reader(A=text).whole("A", 5, 0, 10)
    assert reader(A="10").whole("A", 5, 0, 10) == 10
    assert reader().whole("A", 5, 0, 10) == 5


@pytest.mark.parametrize("text", ["-0.1", "nan", "inf", "one"])
def test_a_number_is_within_its_limits(text: str) -> None:
    with pytest.raises(SettingError, match="A must be a number from 0 to 10"):
        reader(A=text).number("A", 5, 0, 10)
    assert reader(A="0.5").number("A", 5, 0, 10) == 0.5


def test_a_choice_is_returned_as_it_is_spelled_in_the_list() -> None:
    assert reader(A="debug").choice("A", "INFO", ("DEBUG", "INFO")) == "DEBUG"
    with pytest.raises(SettingError, match="must be one of DEBUG, INFO"):
        reader(A="loud").choice("A", "INFO", ("DEBUG", "INFO"))


def test_a_secret_comes_from_the_variable_or_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("from-file\n")
    assert reader(A="from-variable").secret("A") == "from-variable"
    assert reader(A_FILE=str(file)).secret("A") == "from-file"


def test_a_secret_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="A_FILE cannot be read: No such file"):
        reader(A_FILE=str(tmp_path / "missing")).secret("A")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingError, match="A_FILE cannot be read: the file is not UTF-8 text"):
        reader(A_FILE=str(tmp_path / "binary")).secret("A")


@pytest.mark.parametrize(
    ("read", "value"),
    [
        (lambda it: it.ip("A"), "hunter2"),
        (lambda it: it.url("A"), "ftp://user:hunter2@host"),
        (lambda it: it.networks("A"), "hunter2"),
        (lambda it: it.flag("A", False), "hunter2"),
        (lambda it: it.choice("A", "x", ("x",)), "hunter2"),
        (lambda it: it.whole("A", 1, 0, 2), "hunter2"),
    ],
)
def test_no_message_repeats_the_value(read: object, value: str) -> None:
    with pytest.raises(SettingError) as error:
        read(reader(A=value))  # type: ignore[operator]
    assert "hunter2" not in str(error.value)
    assert error.value.variable == "A"


def test_addresses_networks_and_urls_are_normalised() -> None:
    assert reader(A="2001:DB8::0").ip("A") == "2001:db8::"
    assert [str(network) for network in reader(A="10.0.0.0/8, fd00::/8").networks("A")] == ["10.0.0.0/8", "fd00::/8"]
    assert reader(A="https://host:1/").url("A") == "https://host:1"
    assert reader().ip("A") == reader().url("A") == ""


def test_the_prefix_is_part_of_every_name() -> None:
    read = EnvironmentReader({"CW_A": "x"}, prefix="CW_")
    with pytest.raises(SettingError, match="CW_A must be a whole number"):
        read.whole("A", 1, 0, 2)
    assert list(read.variables) == ["CW_A"]


def test_every_read_is_recorded_with_its_section() -> None:
    read = reader()
    read.section("Web", read_by="web")
    read.secret("KEY", "opens everything")
    read.number("SECONDS", 1.5, 0, 10)
    key, seconds = read.variables.values()
    assert key == ("Web", "web", "KEY", "text", "", "opens everything", True)
    assert (seconds.kind, seconds.default, seconds.is_secret) == ("number from 0 to 10", "1.5", False)


def test_the_caller_decides_what_happens_on_an_error() -> None:
    def stop(error: SettingError) -> None:
        raise SystemExit(f"causeway: {error}")

    with pytest.raises(SystemExit, match="causeway: A must be an IP address"):
        EnvironmentReader({"A": "x"}, on_error=stop).ip("A")  # type: ignore[arg-type]
