"""The two JSON-LD contexts of a Workflow Run RO-Crate, without a network.

`python contexts.py FILE` puts them into the cache of roc-validator, which otherwise fetches them from w3id.org.
"""

from __future__ import annotations

import io
import json
import sys
from importlib import resources

RO_CRATE = "https://w3id.org/ro/crate/1.1/context"
WORKFLOW_RUN = "https://w3id.org/ro/terms/workflow-run/context"

# https://w3id.org/ro/terms/workflow-run#, as far as crates of atflow use it.
VOCABULARY = "https://w3id.org/ro/terms/workflow-run#"
TERMS = ("ParameterConnection", "connection", "sourceParameter", "targetParameter", "resourceUsage", "sha256")


def contexts() -> dict[str, str]:
    """The contexts as JSON texts, by address."""
    ro_crate = resources.files("rocrate").joinpath("data/ro-crate.jsonld").read_text()
    workflow_run = {"@context": {term: VOCABULARY + term for term in TERMS}}
    return {RO_CRATE: ro_crate, WORKFLOW_RUN: json.dumps(workflow_run)}


def fill(file: str) -> None:
    """Fills a cache of requests_cache with the contexts."""
    import requests
    import urllib3
    from requests_cache import CachedSession

    texts = contexts()

    class Shelf(requests.adapters.BaseAdapter):
        def send(self, request, **_):
            kind = {"Content-Type": "application/ld+json"}
            text = texts[request.url].encode()
            response = requests.Response()
            response.status_code, response.url, response.request = 200, request.url, request
            response.headers.update(kind)
            response.raw = urllib3.HTTPResponse(io.BytesIO(text), headers=kind, status=200, preload_content=False)
            response._content = text
            return response

        def close(self) -> None:
            pass

    session = CachedSession(file, backend="sqlite", expire_after=-1)
    session.mount("https://", Shelf())
    for address in texts:
        for method in ("GET", "HEAD"):
            session.request(method, address).raise_for_status()


if __name__ == "__main__":
    fill(sys.argv[1])
