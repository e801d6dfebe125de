"""Chromium, to look at pages as a person does: at a width, in light or dark, with a mouse."""

import asyncio
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import choreographer
import pytest

needs_browser = pytest.mark.skipif(
    not (shutil.which("chromium") or shutil.which("google-chrome")),
    reason="needs Chromium, which is not installed",
)


@dataclass
class Seen:
    """The result of looking at a page.

    Attributes:
        value: The value of the script that ran in it.
        complaints: Messages of Chromium's console: errors, refused loads, blocked scripts.
    """

    value: Any
    complaints: list[str]


class Looking:
    """One browser for many pages, each in a tab of its own."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._browser = choreographer.Browser()
        self._runner.run(self._browser.open())

    def close(self) -> None:
        self._runner.run(self._browser.close())
        self._runner.close()

    def at(self, page: Path, script: str, *, width: int = 1400, dark: bool = False) -> Seen:
        """Load a page, run an expression of JavaScript in it, and wait for its value."""
        return self._runner.run(self._at(page.resolve().as_uri(), script, width, dark))

    async def _at(self, page: str, script: str, width: int, dark: bool) -> Seen:
        complaints: list[str] = []

        async def note(event: dict[str, Any]) -> None:
            complaints.append(str(event["params"]))

        tab = await self._browser.create_tab("about:blank")
        for event in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"):
            tab.subscribe(event, note)
        for domain in ("Page", "Runtime", "Log"):
            await tab.send_command(f"{domain}.enable")
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        await tab.send_command("Emulation.setDeviceMetricsOverride", params=size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await tab.send_command("Emulation.setEmulatedMedia", params={"features": [scheme]})
        await tab.send_command("Page.navigate", params={"url": page})
        # Not the event of a load, which may be that of the blank page.
        there = f"location.href === {json.dumps(page)} && document.readyState === 'complete'"
        while not (await _evaluate(tab, there)).get("result", {}).get("value"):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        answer = await _evaluate(tab, script)
        await tab.close()
        assert answer.keys() == {"result"}, answer
        return Seen(answer["result"].get("value"), complaints)


async def _evaluate(tab: choreographer.Tab, script: str) -> dict[str, Any]:
    asked = {"expression": script, "awaitPromise": True, "returnByValue": True}
    return (await tab.send_command("Runtime.evaluate", params=asked)).get("result", {})
