from relaymgr.operations.doctor.findings import Level, Of, worst


def test_worst_of_findings() -> None:
    fine, so_so, bad = Of("x").ok("a", ""), Of("x").warning("a", "", ""), Of("x", "y").problem("a", "", "do")
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
        "text": "",
        "todo": "do",
    }
