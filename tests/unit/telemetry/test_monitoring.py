"""Dashboard and alert rules ask for metrics and labels that exist, in PromQL that parses, and say what to do."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client.core import Metric

from illume_db.live import RunTotals
from illume_loop.telemetry import collectors
from illume_loop.telemetry.collectors import ProcessCollector
from tests.support.compose import BASE, compose
from tests.support.golden import ROOT

MONITORING = ROOT / "monitoring"
OF_PROMETHEUS = {"instance", "job"}


def _labels() -> dict[str, set[str]]:
    """Every metric as it is stored, with its labels."""
    heldout = {"mean": 0.5, "low": 0.4, "high": 0.6}
    numbers = {"heldout": {"parent": heldout, "candidate": heldout}}
    totals = RunTotals("r", {("sample", "done"): 1}, {"failed": 0}, {"promoted": 1}, 1, 1, numbers)
    rows = [{"role": "generator", "depth": 0, "oldest_age_s": None}]
    workers = [{"name": "w", "role": "generator", "state": "running", "heartbeat_age_s": 1.0}]
    families: list[Metric] = [*ProcessCollector().collect(), *collectors.of_run(totals)]
    families += [*collectors.of_service(rows, workers), *collectors.of_store(0)]
    found = {}
    for family in families:
        name = f"{family.name}_total" if family.type == "counter" else family.name
        found[name] = set(family._labelnames)  # type: ignore[attr-defined]
    return found


def _rules() -> list[dict[str, Any]]:
    content = yaml.safe_load((MONITORING / "alerts.yml").read_text(encoding="utf-8"))
    return [rule for group in content["groups"] for rule in group["rules"]]


def _panels() -> list[dict[str, Any]]:
    panels: list[dict[str, Any]] = json.loads((MONITORING / "grafana" / "illume-loop.json").read_text())["panels"]
    return panels


def _queries() -> Iterator[Any]:
    for rule in _rules():
        yield pytest.param(rule["expr"], id=rule["alert"])
    for panel in _panels():
        for target in panel["targets"]:
            yield pytest.param(target["expr"].replace("$run", "any"), id=f"{panel['title']}-{target['refId']}")


def _selectors(node: Any) -> Iterator[Any]:
    """Every selector below a node of the parsed query."""
    if isinstance(node, promql_parser.VectorSelector):
        yield node
    for name in ("expr", "lhs", "rhs", "vector_selector", "param"):
        if (child := getattr(node, name, None)) is not None:
            yield from _selectors(child)
    for child in getattr(node, "args", None) or ():
        yield from _selectors(child)


@pytest.mark.parametrize("query", list(_queries()))
def test_queries_parse_and_ask_for_what_there_is(query: str) -> None:
    labels = _labels()
    selectors = list(_selectors(promql_parser.parse(query)))
    named = re.findall(r"\billume_\w+", query)
    assert sorted(selector.name for selector in selectors) == sorted(named), "no selector was overlooked"
    for selector in selectors:
        assert selector.name in labels
        asked = {matcher.name for matcher in selector.matchers.matchers}
        assert asked <= labels[selector.name] | OF_PROMETHEUS, selector.name
    for group in re.findall(r"\b(?:by|on) \(([^)]*)\)", query):
        assert set(group.split(", ")) <= set().union(*(labels[name] for name in named)) | OF_PROMETHEUS


def test_rules_say_what_to_do_with_labels_that_they_have() -> None:
    labels = _labels()
    for rule in _rules():
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["action"]
        known = set().union(*(labels[name] for name in re.findall(r"\billume_\w+", rule["expr"]))) | OF_PROMETHEUS
        assert set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"])) <= known


def test_every_metric_is_on_the_dashboard() -> None:
    shown = " ".join(target["expr"] for panel in _panels() for target in panel["targets"])
    # Its states are what an alert is about, and what the choice of the run is made from; the other is for an alert.
    assert {name for name in _labels() if name not in shown} == {"illume_rounds", "illume_unattended_runs"}


def _workers_shown(*workers: tuple[str, float]) -> list[str]:
    rows = [{"name": state, "role": "generator", "state": state, "heartbeat_age_s": age} for state, age in workers]
    [family] = [found for found in collectors.of_service([], rows) if found.name.startswith("illume_worker")]
    return [sample.labels["state"] for sample in family.samples]


def test_a_worker_that_is_gone_has_no_series() -> None:
    ended = ("stopped", 1.0), ("unhealthy", 1.0)
    assert _workers_shown(("running", 1.0), ("draining", 2.0), *ended, ("lost", 90.0)) == [
        "running",
        "draining",
        "lost",
    ]
    assert _workers_shown(("lost", collectors.LOST_SHOWN_S + 1)) == []


def test_no_rule_asks_for_what_a_finished_run_no_longer_shows() -> None:
    """A coordinator ends with its run, and its series with it: only a metric of the workers may be asked about that."""
    for rule in _rules():
        assert "absent" not in rule["expr"], rule["alert"]
    [rule] = [rule for rule in _rules() if rule["alert"] == "IllumeNobodyLooksAfterTheRun"]
    assert rule["expr"] == "max(illume_unattended_runs) > 0"


def test_panels_do_not_overlap() -> None:
    taken = set[tuple[int, int]]()
    for panel in _panels():
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells


def test_prometheus_looks_where_the_services_serve() -> None:
    services = compose(BASE)["services"]
    [job] = yaml.safe_load((MONITORING / "prometheus.yml").read_text())["scrape_configs"]
    [found] = job["dns_sd_configs"]
    for name in found["names"]:
        assert services[name]["environment"]["ILLUME_RUNTIME__METRICS_ADDRESS"] == f"0.0.0.0:{found['port']}"
    source = yaml.safe_load((MONITORING / "grafana" / "datasources.yml").read_text())["datasources"][0]
    assert source["url"] == "http://prometheus:9090"
    assert {panel["datasource"]["uid"] for panel in _panels()} == {source["uid"]}


def test_what_is_mounted_is_there() -> None:
    for name in ("prometheus", "grafana"):
        service = compose(BASE)["services"][name]
        assert service["profiles"] == ["monitoring"]
        for volume in service["volumes"]:
            if volume.startswith("./"):
                assert (ROOT / Path(volume.split(":")[0])).exists(), volume
                assert volume.endswith(":ro")
