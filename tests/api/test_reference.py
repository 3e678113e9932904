"""The reference page needs nothing but the service."""

import re

import httpx


async def test_the_page_and_all_that_it_loads_come_from_the_service_without_a_key(app):
    async with httpx.AsyncClient(base_url=app.http_url, trust_env=False) as stranger:
        page = (await stranger.get("/docs")).raise_for_status()
        loaded = re.findall(r'(?:src|href)="((?!data:)[^"]+)"', page.text)
        kinds = [(await stranger.get(f"/{path}")).raise_for_status().headers["content-type"] for path in loaded]
        start = (await stranger.get("/docs/start.js")).text
    assert "://" not in page.text + start
    assert [kind.split(";")[0] for kind in kinds] == ["text/css", "text/javascript", "text/javascript"]
    assert 'url: "openapi.json"' in start


async def test_the_page_may_do_no_more_than_it_needs(app):
    async with httpx.AsyncClient(base_url=app.http_url, trust_env=False) as stranger:
        policy = (await stranger.get("/docs")).headers["content-security-policy"]
        elsewhere = (await stranger.get("/version")).headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert elsewhere == "default-src 'none'; frame-ancestors 'none'"
