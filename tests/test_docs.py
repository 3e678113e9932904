"""The documents speak of what is there: links lead somewhere, commands exist, every decision is listed."""

import ast
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from pydantic import BaseModel

from ingestd.settings import Settings

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
TARGETS = set(re.findall(r"^\.PHONY: ([\w-]+)$", (ROOT / "Makefile").read_text(), re.MULTILINE))


def marked(kind: str) -> set[str]:
    """What the tests name with `pytest.mark.rule` or `pytest.mark.threat`."""
    calls = (
        node
        for path in (ROOT / "tests").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == kind
    )
    return {ast.literal_eval(argument) for call in calls for argument in call.args}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_within_the_project_leads_to_a_file(document):
    links = re.findall(r"\]\((?!https?://|#)([^)#\s]+)", document.read_text())
    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_make_command_that_is_named_exists(document):
    assert set(re.findall(r"(?:^|`)make ([\w-]+)", document.read_text(), re.MULTILINE)) <= TARGETS


OTHERS = {"INGESTD_ROLES", "INGESTD_SECRETS_DIR", "INGESTD_PUSH_API", "INGESTD_PUSH_API_KEY", "INGESTD_PUSH_KEY"}


def names(model, prefix="INGESTD_"):
    """The variables of a settings model, and those one level down."""
    for name, declared in model.model_fields.items():
        kind = declared.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from names(kind, f"{prefix}{name.upper()}__")
        else:
            yield f"{prefix}{name.upper()}"


@pytest.mark.parametrize(
    "document", [*DOCUMENTS, ROOT / "Dockerfile", ROOT / "compose.yaml"], ids=lambda path: str(path.relative_to(ROOT))
)
def test_every_setting_that_is_named_exists(document):
    named = set(re.findall(r"INGESTD_[A-Z_]*[A-Z]", document.read_text()))
    assert named <= {*names(Settings), *OTHERS}


def test_every_make_command_is_in_its_help():
    assert set(re.findall(r"^([\w-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)) == TARGETS


def test_every_decision_is_listed():
    listed = (ROOT / "docs/decisions/README.md").read_text()
    decisions = sorted((ROOT / "docs/decisions").glob("[0-9]*.md"))
    assert decisions
    assert [path.name for path in decisions if f"({path.name})" not in listed] == []


def test_every_rule_a_test_names_is_on_the_page_of_rules_once():
    listed = re.findall(r"^- \*\*([SD]\d+)\*\* \S", (ROOT / "docs/rules.md").read_text(), re.MULTILINE)
    assert listed == [f"S{number}" for number in range(1, 144)] + [f"D{number}" for number in range(1, 59)]
    assert marked("rule") - set(listed) == set()
    assert len(marked("rule")) > 50


SFTP = (*range(20, 25), *range(26, 44))
FILES_AND_OUTPUTS = (*range(70, 82), 83, 84, *range(90, 95), 96, *range(98, 107))
THREATS = {f"T{number}" for number in (*SFTP, *FILES_AND_OUTPUTS)}


def test_every_threat_of_sftp_files_manifests_and_outputs_is_shown_or_listed_with_the_reason():
    page = (ROOT / "docs/security.md").read_text()
    listed = set(re.findall(r"^\| (T\d+) \| \S", page, re.MULTILINE))
    assert listed & marked("threat") == set()
    assert THREATS - listed == THREATS & marked("threat")


@pytest.mark.parametrize("name", ["run", "dev"])
def test_the_locked_requirements_are_hashed_and_name_no_address(name):
    text = (ROOT / f"requirements/{name}.txt").read_text()
    entries = re.split(r"\n(?=\S)", text.strip())
    assert all(re.match(r"[a-z0-9-]+==\S+( ; .*)? \\\n    --hash=sha256:", entry) for entry in entries)
    assert not re.search(r"://|--(extra-)?index|--find-links| @ ", text)


def test_every_dependency_is_locked_within_its_bounds():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {"run": project["dependencies"], "dev": project["dependencies"] + project["optional-dependencies"]["dev"]}
    for name, requirements in wanted.items():
        pins = re.findall(r"^([a-z0-9-]+)==([^\s;]+)", (ROOT / f"requirements/{name}.txt").read_text(), re.MULTILINE)
        for requirement in map(Requirement, requirements):
            versions = [version for package, version in pins if package == requirement.name]
            assert versions, requirement
            assert all(version in requirement.specifier for version in versions), requirement
