"""Files of deploy/ and docs/operations.md, for operators, against the program."""

import configparser
import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from fnmatch import fnmatch
from pathlib import Path

import click
import pytest
import yaml
from prometheus_client import CollectorRegistry

from actvec.client.cli import cli
from actvec.server.config import Limits
from actvec.server.program.main import main as server_main
from actvec.server.telemetry.metrics import Metrics

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
DOCKERFILE = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")

FLAGS = {option: param for param in server_main.params for option in param.opts}
VARIABLES = {
    f"ACTVEC_SERVER_{param.name.upper()}": param
    for param in server_main.params
    if param.name is not None
}


def instructions(name):
    """The arguments of one kind of instruction in the Dockerfile."""
    return [
        line.removeprefix(f"{name} ").strip()
        for line in DOCKERFILE.splitlines()
        if line.startswith(f"{name} ")
    ]


def table_after(heading):
    """The rows of the first table under a heading of docs/operations.md, cell by cell."""
    section = OPERATIONS.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in row] for row in rows if not row[0].startswith(" ---")][1:]


def metric_names():
    """Every metric that a server registers, under its name in Prometheus."""
    registry = CollectorRegistry()
    metrics = Metrics(2048, registry)
    metrics.describe({"version": "0"})
    metrics.watch_queue({"bulk": lambda: 0})
    metrics.watch_device_memory(lambda: 0)
    suffixes = {"counter": "_total", "info": "_info"}
    names = {
        family.name + suffixes.get(family.type, "")
        for family in registry.collect()
        if family.name.startswith("actvec_")
    }
    assert len(names) > 10
    return names


def image_environment():
    (line,) = [line for line in instructions("ENV") if "ACTVEC_SERVER_HOST" in line]
    return dict(pair.split("=", 1) for pair in shlex.split(line))


def unit():
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str
    parser.read(DEPLOY / "actvec.service")
    return parser


def test_image_sources_exist():
    ignore = [line for line in (ROOT / ".dockerignore").read_text().split("\n") if line]
    assert "*" in ignore
    for line in instructions("COPY"):
        if not line.startswith("--from="):
            *sources, _ = line.split()
            for source in sources:
                assert (ROOT / source).exists(), source
                assert any(fnmatch(source, rule[1:]) for rule in ignore if rule[0] == "!"), source


def test_image_runs_as_nobody():
    assert instructions("USER") == ["10001"]
    assert json.loads(instructions("ENTRYPOINT")[0]) == ["actvec-server"]
    assert set(json.loads(instructions("CMD")[0])) <= {"--model", "demo"}
    assert instructions("STOPSIGNAL") == ["SIGTERM"]


def test_variables_in_deploy_are_those_of_flags():
    texts = (DOCKERFILE, (DEPLOY / "actvec.service").read_text(), OPERATIONS)
    named = set(re.findall(r"ACTVEC_SERVER_[A-Z_]+[A-Z]", " ".join(texts)))
    assert named
    assert named <= VARIABLES.keys()
    clients = set(re.findall(r"\bACTVEC_(?!SERVER)[A-Z_]+[A-Z]", " ".join(texts)))
    known = set(re.findall(r"ACTVEC_[A-Z_]+[A-Z]", cli.get_help(click.Context(cli))))
    assert clients
    assert clients <= known


def test_image_health_check_finds_its_server(start_server):
    environment = image_environment()
    variables = {key: value for key, value in environment.items() if key in VARIABLES}
    variables["ACTVEC_SERVER_METRICS_PORT"] = "0"
    del variables["ACTVEC_SERVER_DATA_DIR"], variables["ACTVEC_SERVER_PORT"]
    server = start_server(env=variables | {"ACTVEC_TOKEN": "t"})
    assert server.target.startswith("0.0.0.0:")

    (line,) = [line for line in DOCKERFILE.splitlines() if line.startswith("HEALTHCHECK")]
    command = json.loads(line[line.index("CMD ") + 4 :])
    assert command[0] == "actvec"
    target = f"127.0.0.1:{server.target.rpartition(':')[2]}"

    def check(**variables):
        return subprocess.run(
            [sys.executable, "-c", "from actvec.client.cli import main; main()", *command[1:]],
            env=os.environ | {"ACTVEC_TARGET": target} | variables,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    healthy = check(ACTVEC_TOKEN="t")
    assert healthy.returncode == 0, healthy.stderr
    assert json.loads(healthy.stdout)["model"]
    assert check(ACTVEC_TOKEN="another").returncode != 0


def test_compose_mounts_existing_files():
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    for service in compose["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (DEPLOY / source).is_dir(), source
            else:
                assert source in compose["volumes"]
    environment = image_environment()
    scraped = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    (target,) = scraped["scrape_configs"][0]["static_configs"][0]["targets"]
    host, port = target.split(":")
    assert host in compose["services"]
    assert port == environment["ACTVEC_SERVER_METRICS_PORT"]
    for rules in scraped["rule_files"]:
        assert (DEPLOY / "prometheus" / rules).is_file()


def test_grafana_finds_the_dashboard_and_prometheus():
    provisioning = DEPLOY / "grafana" / "provisioning"
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    mounts = dict(volume.split(":")[:2] for volume in compose["services"]["grafana"]["volumes"])
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "actvec.yaml").read_text())[
        "providers"
    ]
    assert provider["options"]["path"] == mounts["./grafana/dashboards"]
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())[
        "datasources"
    ]
    assert source["url"].startswith("http://prometheus:")
    dashboard = json.loads((DEPLOY / "grafana" / "dashboards" / "actvec.json").read_text())
    (variable,) = [v for v in dashboard["templating"]["list"] if v["type"] == "datasource"]
    assert variable["query"] == source["type"]


def test_unit_manages_the_program():
    service = unit()["Service"]
    command = shlex.split(service["ExecStart"])
    flags = {word for word in command if word.startswith("--")}
    assert flags <= FLAGS.keys()
    grace = float(command[command.index("--grace") + 1])
    assert float(service["TimeoutStopSec"]) > 2 * grace
    assert service["RestartForceExitStatus"] == str(os.EX_SOFTWARE)
    assert service["RestartPreventExitStatus"] == "2"
    assert "-HUP" in service["ExecReload"]
    assert service["DynamicUser"] == "yes"
    assert {"RestartForceExitStatus", "LoadCredential", "StateDirectory"} <= set(service)


def test_alerts_name_existing_metrics():
    (group,) = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"]
    named = set()
    for rule in group["rules"]:
        assert rule["annotations"]["summary"]
        named |= set(re.findall(r"\bactvec_\w+", rule["expr"]))
    assert named
    assert {re.sub(r"_bucket$", "", name) for name in named} <= metric_names()
    alerts = [rule["alert"] for rule in group["rules"]]
    section = OPERATIONS.split("\n## Metrics\n")[1].split("\n## ")[0]
    assert re.findall(r"^\| `(Actvec\w+)`", section, re.MULTILINE) == alerts


def test_the_guide_has_every_metric():
    metrics = {row[0].strip("`") for row in table_after("Metrics") if row[0].startswith("`actvec_")}
    assert metrics == metric_names()


def test_guide_lists_every_limit_and_default():
    rows = {row[0].strip("`"): row[1] for row in table_after("Limits")}
    assert rows.keys() >= {f"--{field.name.replace('_', '-')}" for field in fields(Limits)}
    for flag, default in rows.items():
        value = FLAGS[flag].default
        value = (
            "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
        )
        assert default == value, flag


@pytest.mark.parametrize("program", ["actvec-server", "actvec"])
def test_flags_in_the_guide_are_flags(program):
    known = set(FLAGS) if program == "actvec-server" else client_flags()
    lines = re.findall(rf"^(?:\S+/)?{program} (.*)$", OPERATIONS, re.MULTILINE)
    assert lines
    for line in lines:
        assert set(re.findall(r"--[a-z-]+", line)) <= known, line


def client_flags():
    found = set()

    def walk(command):
        found.update(option for param in command.params for option in param.opts)
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                walk(command.get_command(context, name))

    walk(cli)
    return found


def test_guide_explains_every_exit_code():
    codes = {code for row in table_after("Exit codes") for code in row[0].split(", ")}
    assert codes == {"0", "1", "2", "70", "130", "143", "137"}
    assert "Exit codes: 0" in server_main.help
