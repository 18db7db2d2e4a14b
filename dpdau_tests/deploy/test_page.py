"""What docs/deploy.md says: each block is typed by test_containers.py, or is held to one that is, and to the files."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import yaml

from dpdau_tests.deploy import rules
from dpdau_tests.deploy.page import PAGE, blocks
from dpdau_tests.deploy.test_containers import TYPED
from dpdau_tests.support.project import PROJECT

BY_HAND, WITHOUT_SERVICES = "After a loss, on Kubernetes", "Work by hand"
BEGINNING = {"The image", "Compose", "Kubernetes"}
"""How it is begun: engines.py builds and starts it as the tests need it."""


def test_every_heading_with_commands_is_typed_by_the_test_of_containers_or_held_to_one_that_is() -> None:
    assert set(blocks("sh")) == {*TYPED, BY_HAND, WITHOUT_SERVICES, *BEGINNING}


def steps(block: str, before: str) -> list[list[str]]:
    """The commands that a block runs inside, as words."""
    lines = [line for line in block.splitlines() if re.match(before, line)]
    return [shlex.split(re.sub(before, "", line, count=1), comments=True) for line in lines]


def test_a_restore_has_the_same_steps_on_kubernetes_as_under_compose() -> None:
    (compose,) = blocks("sh")["After a loss"]
    ours = [[program, *words] for program, service, *words in steps(compose, "once ") if service == "prepare"]
    *_, kubernetes = blocks("sh")[BY_HAND]
    theirs = steps(kubernetes, "kubectl exec (-i )?by-hand -- ")
    assert ours == theirs and len(ours) == len(kubernetes.splitlines()) == 8


def test_a_restore_hands_the_requests_in_again_before_it_is_reopened() -> None:
    (compose,) = blocks("sh")["After a loss"]
    words = (
        "dpdau prepare restore",
        "dpdau erase",
        "dpdau prepare flush-deletes",
        "dpdau prepare reopen",
        "up --detach",
    )
    places = [compose.rindex(each) for each in words]
    assert places == sorted(places)


def test_what_kubernetes_is_told_by_hand_names_what_the_manifests_have() -> None:
    text = "\n".join(block for heading in (BY_HAND, WITHOUT_SERVICES) for block in blocks("sh")[heading])
    there = {f"{found['kind'].lower()}/{found['metadata']['name']}" for found in rules.manifests(PROJECT)}
    named = set(re.findall(r"(?:statefulset|pod)/[\w-]+", text))
    assert named == {"statefulset/dpdau", "statefulset/postgres", "pod/dpdau-0", "pod/postgres-0", "pod/by-hand"}
    assert {name.removesuffix("-0").replace("pod/dpdau", "statefulset/dpdau") for name in named} <= there | {
        "pod/postgres"
    }
    assert "persistentvolumeclaim ledger-postgres-0" in text
    assert all((PROJECT / file).is_file() for file in re.findall(r"docker/\S+\.yaml", text))


def test_the_example_of_a_folder_for_readers_is_a_compose_file_for_every_service_of_dpdau(tmp_path: Path) -> None:
    ((example,),) = blocks("yaml").values()
    services = yaml.safe_load(example)["services"]
    assert set(services) == set(rules.OF_DPDAU)
    assert {volume for service in services.values() for volume in service["volumes"]} == {"/srv/dpdau-mart:/data/mart"}
    shutil.copytree(PROJECT / "docker", tmp_path / "docker", ignore=shutil.ignore_patterns("__pycache__", ".env"))
    (tmp_path / "docker" / "compose.yaml").write_text(example)
    assert list(rules.compose_keeps_its_schema(tmp_path)) == []


def test_the_guard_is_named_with_the_compose_file_and_the_smoke_test_with_an_address() -> None:
    text = "\n".join(block for there in blocks("sh").values() for block in there)
    commands = re.findall(r"tools/(\w+)\.py ([^`\n]*)", text)
    guards = [words for name, words in commands if name == "ci_config_guard"]
    assert guards == ["docker/.env --compose docker/compose.yaml --files-alone"] * 2
    asked = re.findall(r"(?:make verify-deploy|verify_deploy\.py)( URL=http| http)?", PAGE)
    assert asked and all(asked)
