from web.health import HealthSerializer, health_report


def test_components_that_do_not_work_are_named_and_counted() -> None:
    report = health_report({"database": True, "broker": False, "nodes": False})
    assert report["message"] == "Not working: broker, nodes."
    assert (report["status"], report["healthy_components"], report["unhealthy_components"]) == ("UNHEALTHY", 1, 2)
    assert HealthSerializer(data=report).is_valid()


def test_all_components_work() -> None:
    report = health_report({"database": True})
    assert (report["status"], report["healthy_components"], report["unhealthy_components"]) == ("HEALTHY", 1, 0)
