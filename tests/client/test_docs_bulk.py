"""The page on bulk vectors: every line of code in it runs, in order, as it stands."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "bulk.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_every_snippet_runs(demo_server, tmp_path):
    lines = [{"id": f"doc-{n}", "text": f"In {1900 + n} the orchard was sold."} for n in range(40)]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    said = []
    for language, code in BLOCK.findall(PAGE.read_text()):
        program = {"console": ["sh", "-e", "-c"], "python": [sys.executable, "-W", "error", "-c"]}
        run = subprocess.run(
            [*program[language], code.replace("127.0.0.1:50051", demo_server.target)],
            cwd=tmp_path,
            env=os.environ | {"ACTVEC_TARGET": demo_server.target, "PATH": path},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert run.returncode == 0, f"{code}\n{run.stderr}"
        said.append(run.stdout)
    numpy, torch, pandas, duckdb, one, job, sink = [
        text for text in said if "vectors of" not in text
    ]
    assert numpy.startswith("(40, 256) doc-")
    assert torch == "torch.Size([256]) demo [4, 5, 6]\n"
    assert "(40, 256)" in pandas
    assert len(re.findall(r"doc-\d+", duckdb)) == 5
    assert "exp_977" in one
    assert job == "40 0\n"
    assert sink == "['a', 'b']\n"
