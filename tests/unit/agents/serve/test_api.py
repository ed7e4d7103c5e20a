"""The OpenAPI document is of the routes that there are, and its page needs nothing from anywhere."""

from __future__ import annotations

import re
from importlib.metadata import version
from typing import Any, cast

from oomstream.agents.serve.api_page import api_document, api_page
from oomstream.agents.serve.http import OPEN_PATHS, HttpApi
from oomstream.agents.serve.metrics import METRICS, ServeMetrics
from oomstream.stores.settings import load_settings


def test_every_route_is_documented() -> None:
    """Paths and methods of the application and of the document are the same, and so is what needs no token."""
    api = HttpApi(cast(Any, None), cast(Any, None), cast(Any, None), load_settings(), ServeMetrics())
    routes = {(route.resource.canonical, route.method.lower()) for route in api.app().router.routes() if route.resource}
    paths = api_document()["paths"]
    documented = {(path, method) for path, methods in paths.items() for method in methods}
    assert {(path, method) for path, method in routes if method != "head"} == documented
    open_paths = {path for path, methods in paths.items() for each in methods.values() if each.get("security") == [{}]}
    assert open_paths == OPEN_PATHS
    assert api_document()["info"]["version"] == version("oomstream")


def test_every_reference_leads_somewhere() -> None:
    """Each `$ref` of the document is there."""
    document = api_document()

    def references(node: Any) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if "$ref" in node else []
            return own + [found for value in node.values() for found in references(value)]
        return [found for value in node for found in references(value)] if isinstance(node, list) else []

    for reference in references(document):
        found: Any = document
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]


def test_the_page_loads_nothing() -> None:
    """No address of another server is in it, no script, and every path and schema is."""
    page = api_page()
    assert not re.search(r"(src|href)=\"(?!openapi\.json|#)", page)
    assert "<script" not in page
    assert "http://" not in page
    assert "https://" not in page
    for name in (*api_document()["paths"], *api_document()["components"]["schemas"]):
        assert name in page


def test_every_metric_is_shown() -> None:
    """A request moves its metrics; all of METRICS are in the text, by their full names."""
    metrics = ServeMetrics()
    with metrics.timed("http", "/push") as timed:
        timed.code, timed.of_a_store = "503", True
    text = metrics.text().decode()
    for metric in METRICS:
        assert f"# HELP oomstream_serve_{metric.name}" in text
    assert 'oomstream_serve_requests_total{code="503",interface="http",method="/push"} 1.0' in text
    assert 'oomstream_serve_store_errors_total{interface="http"} 1.0' in text
    assert 'oomstream_serve_requests_in_flight{interface="http"} 0.0' in text
