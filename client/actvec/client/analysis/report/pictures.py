"""The figures of a report as PNG files, drawn by Chromium."""

import asyncio
import base64
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from actvec.client.analysis.report.material import Material
from actvec.client.analysis.report.page import write_report
from actvec.client.errors import MissingExtra
from actvec.client.extras import import_extra
from actvec.client.files import given_path, write_atomic

_SIZE = 1000, 600


def write_pictures(folder: str | Path, material: Material) -> list[Path]:
    """Write each figure as `<name>.png`.

    Raises:
        MissingExtra: choreographer is not installed, or there is no Chromium.
        OSError: they cannot be written.
    """
    import_extra("choreographer", "report")
    folder = given_path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(1) as thread:
        page = Path(scratch, "report.html").resolve()
        write_report(page, material)
        script = f"ready.then(() => pictures({_SIZE[0]}, {_SIZE[1]}))"
        # On a thread of its own, because a notebook's runs an event loop.
        pictures = thread.submit(asyncio.run, _run(page.as_uri(), script)).result()
    paths = []
    for name, url in pictures.items():
        paths.append(folder / f"{name}.png")
        write_atomic(paths[-1], base64.b64decode(url.partition(",")[2]))
    return paths


async def _run(page: str, script: str) -> Mapping[str, Any]:
    """The value of a JavaScript expression in the page of a URL.

    Raises:
        MissingExtra: Chromium did not start, or failed.
    """
    choreographer = import_extra("choreographer", "report")
    try:
        async with choreographer.Browser() as browser:
            tab = await browser.create_tab("about:blank")
            loaded = tab.subscribe_once("Page.loadEventFired")
            await tab.send_command("Page.enable")
            await tab.send_command("Page.navigate", params={"url": page})
            await loaded
            asked = {"expression": script, "awaitPromise": True, "returnByValue": True}
            answer = await tab.send_command("Runtime.evaluate", params=asked)
            value: Mapping[str, Any] = answer["result"]["result"]["value"]
            return value
    except Exception as error:  # whatever choreographer raises if its browser does not start
        raise MissingExtra(
            f"Chromium draws the pictures, and it did not start; install it ({error})"
        ) from error
