"""The reference pages against the code they are generated from, and links in all pages against the files.

Truth: what `docs/generate.py` writes now, and the registry of errors and settings.
"""

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from magicid_cli.config import KNOBS
from magicid_cli.errors import CODES

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")])


@pytest.fixture(scope="module")
def generator() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "docs" / "generate.py"))


def test_reference_pages_are_fresh(generator: dict[str, Any]) -> None:
    for name, text in generator["pages"]().items():
        written = (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8")
        assert written == text, f"docs/reference/{name} is stale: run python docs/generate.py"


def test_pages_do_not_depend_on_the_terminal(generator: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    wide = generator["pages"]()
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERMINAL_WIDTH", "40")
    assert generator["pages"]() == wide


def test_pages_hold_every_setting_code_and_command(generator: dict[str, Any]) -> None:
    pages = generator["pages"]()
    for knob in KNOBS.values():
        assert f"| `{knob.name}` |" in pages["configuration.md"]
        assert f"`{knob.variable}`" in pages["configuration.md"]
        if knob.flag:
            assert re.search(rf"\| `{knob.flag}( |`)", pages["commands.md"]), knob.flag
    for code, facts in CODES.items():
        assert f"| `{code}` | {facts.exit_code} |" in pages["exit-codes.md"]
    exit_codes = {facts.exit_code for facts in CODES.values()} | {0}
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", pages["exit-codes.md"], re.MULTILINE)} == exit_codes


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target or target.startswith(("#", "mailto:")):
            continue
        assert (page.parent / target.partition("#")[0]).exists(), f"{page.name} links to {target}"
