"""What mkdocs is told beside its configuration: pages that are made from other files.

The contract's page is made from the comments of `proto/`, which buf reads; the benchmarks' is
`bench/README.md`. Links to files that are not pages become plain text.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made."""
    made = {
        "bench.md": (ROOT / "bench" / "README.md").read_text(),
        "reference/contract.md": contract_page(),
    }
    for path, content in made.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 - mkdocs' form
    """Keep the text of links to files beside the pages, which the site does not have."""
    outside = "../" * page.file.src_uri.count("/") + "../"
    markdown = markdown.replace(f"]({outside}bench/README.md", "](bench.md")
    return re.sub(rf"\[([^\]]+)\]\({outside}[^)]+\)", r"\1", markdown)


def contract_page() -> str:
    """Every rpc, message and enum with its comment, as Markdown."""
    image = subprocess.run(  # noqa: S603 - a program of our environment
        [Path(sys.executable).with_name("buf"), "build", "-o", "-#format=json"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    ours = [file for file in json.loads(image)["file"] if file["package"] == "actvec.v1"]
    # The service first, then what it speaks of.
    ours.sort(key=lambda file: "service" not in file)
    lines = [
        "# The contract",
        "",
        "Package `actvec.v1`, generated from the comments of `proto/`."
        " [Without our client](../grpc.md) shows calls.",
        "",
    ]
    for file in ours:
        lines += _file(file)
    return "\n".join(lines)


def _file(file: dict[str, Any]) -> list[str]:
    comments = {
        tuple(location["path"]): location["leadingComments"].strip()
        for location in file["sourceCodeInfo"]["location"]
        if "leadingComments" in location
    }
    lines = []
    # The numbers are descriptor.proto's: service 6, message 4, enum 5; method, field, value 2.
    for index, service in enumerate(file.get("service", [])):
        lines += _heading(service["name"], comments.get((6, index)))
        for number, method in enumerate(service["method"]):
            takes = _stream(method, "client") + _type(method["inputType"])
            gives = _stream(method, "server") + _type(method["outputType"])
            lines += [f"### {method['name']}", "", f"Takes {takes}, gives {gives}.", ""]
            lines += [comments.get((6, index, 2, number), ""), ""]
    for index, message in enumerate(file.get("messageType", [])):
        lines += _heading(message["name"], comments.get((4, index)))
        if message.get("field"):
            lines += ["| field | type | |", "| --- | --- | --- |"]
        for number, field in enumerate(message.get("field", [])):
            comment = _cell(comments.get((4, index, 2, number)))
            many = "repeated " if field["label"] == "LABEL_REPEATED" else ""
            kind = many + _type(field.get("typeName", field["type"].removeprefix("TYPE_").lower()))
            lines.append(f"| `{field['name']}` | {kind} | {comment} |")
    for index, enum in enumerate(file.get("enumType", [])):
        lines += _heading(enum["name"], comments.get((5, index)))
        lines += ["| value | number | |", "| --- | --- | --- |"]
        for number, value in enumerate(enum["value"]):
            comment = _cell(comments.get((5, index, 2, number)))
            lines.append(f"| `{value['name']}` | {value.get('number', 0)} | {comment} |")
    return lines


def _heading(name: str, comment: str | None) -> list[str]:
    return ["", f"## {name}", "", comment or "", ""]


def _cell(comment: str | None) -> str:
    return " ".join((comment or "").split()).replace("|", "\\|")


def _stream(method: dict[str, Any], side: str) -> str:
    return "a stream of " if method.get(f"{side}Streaming") else ""


def _type(name: str) -> str:
    short = name.rpartition(".")[2]
    return f"[{short}](#{short.lower()})" if name.startswith(".actvec.v1.") else f"`{short}`"
