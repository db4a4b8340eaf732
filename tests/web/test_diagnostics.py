from web.diagnostics import Check, Level, worst


def test_worst_of_findings() -> None:
    fine, so_so, bad = Check("x").ok("a", ""), Check("x").warning("a", "", ""), Check("x", "y").problem("a", "", "do")
    assert [worst(found) for found in ([], [fine], [fine, so_so], [so_so, bad, fine])] == [
        Level.OK,
        Level.OK,
        Level.WARNING,
        Level.PROBLEM,
    ]
    assert bad.document() == {
        "area": "x",
        "subject": "y",
        "check": "a",
        "level": "problem",
        "message": "",
        "hint": "do",
    }
