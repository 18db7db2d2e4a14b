"""The files in docker/ keep every rule, and a copy that was tampered with breaks the rule that is there for it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dpdau_tests.deploy import rules
from dpdau_tests.support.project import PROJECT

DOCKERFILE, COMPOSE, EXAMPLE = "docker/Dockerfile", "docker/compose.yaml", "docker/env.example"
DPDAU, POSTGRES = "docker/kubernetes/dpdau.yaml", "docker/kubernetes/postgres.yaml"
SETTINGS, NETWORK = "docker/kubernetes/settings.yaml", "docker/kubernetes/network.yaml"
BY_HAND = "docker/kubernetes/by-hand.yaml"
SECRET, KUSTOMIZATION = "docker/kubernetes/secret.example.yaml", "docker/kubernetes/kustomization.yaml"

Rule = Callable[[Path], Iterator[str]]


@dataclass(frozen=True)
class Fault:
    """One text for another in one file, and the rule that must see it."""

    file: str
    text: str
    instead: str
    rule: Rule


FAULTS = (
    Fault(DOCKERFILE, "WORKDIR /src", "WORKDIR src", rules.hadolint_is_content),
    Fault(DOCKERFILE, "USER 10001:10001\n", "USER root\n", rules.hadolint_is_content),
    Fault(COMPOSE, "  cap_drop: [ALL]", "  cap_dropp: [ALL]", rules.compose_keeps_its_schema),
    Fault(DPDAU, "readOnlyRootFilesystem: true", "readOnlyRootFileSystem: true", rules.manifests_keep_their_schemas),
    Fault(DPDAU, "replicas: 1", 'replicas: "1"', rules.manifests_keep_their_schemas),
    Fault(KUSTOMIZATION, "  - network.yaml\n", "", rules.kustomization_lists_what_is_applied_together_and_no_more),
    *(
        Fault(
            KUSTOMIZATION,
            "  - network.yaml\n",
            f"  - network.yaml\n  - {file}\n",
            rules.kustomization_lists_what_is_applied_together_and_no_more,
        )
        for file in ("secret.example.yaml", "by-hand.yaml")
    ),
    Fault(DOCKERFILE, "USER 10001:10001\n", "", rules.the_image_is_small_in_rights),
    Fault(DOCKERFILE, 'ENTRYPOINT ["dpdau"]', 'ENTRYPOINT ["sh", "-c", "dpdau"]', rules.the_image_is_small_in_rights),
    Fault(DOCKERFILE, "STOPSIGNAL SIGTERM\n", "", rules.the_image_is_small_in_rights),
    Fault(DOCKERFILE, "    DAGSTER_DISABLE_TELEMETRY=1 \\\n", "", rules.the_image_is_small_in_rights),
    Fault(DOCKERFILE, "COPY --from=build /opt/dpdau", "COPY --from=build /build", rules.the_image_is_small_in_rights),
    Fault(
        DOCKERFILE,
        "install --require-hashes --only-binary",
        "install --only-binary",
        rules.the_image_is_small_in_rights,
    ),
    Fault(DOCKERFILE, "RUN if python3", "RUN apt-get install gcc && if python3", rules.the_image_is_small_in_rights),
    Fault(COMPOSE, "  read_only: true\n", "", rules.services_are_small_in_rights),
    Fault(COMPOSE, "cap_drop: [ALL]", "cap_drop: [NET_RAW]", rules.services_are_small_in_rights),
    Fault(COMPOSE, "no-new-privileges:true", "no-new-privileges:false", rules.services_are_small_in_rights),
    Fault(COMPOSE, 'user: "10001:10001"', 'user: "0:0"', rules.services_are_small_in_rights),
    Fault(COMPOSE, '- "127.0.0.1:${API_PORT', '- "${API_PORT', rules.services_are_small_in_rights),
    Fault(COMPOSE, "restart: unless-stopped", "restart: on-failure", rules.services_are_small_in_rights),
    Fault(COMPOSE, "memory: 4g, ", "", rules.services_are_small_in_rights),
    Fault(DPDAU, "automountServiceAccountToken: false", "enableServiceLinks: true", rules.pods_are_small_in_rights),
    Fault(DPDAU, "seccompProfile: { type: RuntimeDefault }", "supplementalGroups: [1]", rules.pods_are_small_in_rights),
    Fault(DPDAU, "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", rules.pods_are_small_in_rights),
    Fault(DPDAU, "capabilities: { drop: [ALL] }", "capabilities: { add: [ALL] }", rules.pods_are_small_in_rights),
    Fault(POSTGRES, "runAsUser: 999", "runAsUser: 0", rules.pods_are_small_in_rights),
    Fault(POSTGRES, "livenessProbe", "lifecycle", rules.pods_are_small_in_rights),
    Fault(DPDAU, "path: /readyz", "path: /healthz", rules.the_api_is_asked_what_it_answers),
    Fault(NETWORK, "policyTypes: [Ingress, Egress]", "policyTypes: [Egress]", rules.every_pod_is_closed_to_strangers),
    Fault(NETWORK, "name: default-deny", "name: some-deny", rules.every_pod_is_closed_to_strangers),
    Fault(
        NETWORK,
        "    - from:\n        - namespaceSelector",
        "    - to:\n        - namespaceSelector",
        rules.every_pod_is_closed_to_strangers,
    ),
    Fault(BY_HAND, "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", rules.pods_are_small_in_rights),
    Fault(BY_HAND, "image: dpdau:0.1.0", "image: dpdau:latest", rules.the_images_tag_is_the_version),
    Fault(BY_HAND, "restartPolicy: Never", "restartPolicy: No", rules.manifests_keep_their_schemas),
    *(
        Fault(
            BY_HAND,
            text,
            instead,
            rules.the_pod_for_work_by_hand_has_what_the_services_have_and_is_reached_by_nobody,
        )
        for text, instead in (
            ("        - name: HASH_SALT_SECRET\n", "        - name: SERVICE_API_KEY\n"),
            ("claimName: store-dpdau-0", "claimName: store"),
            ("mountPath: /data", "mountPath: /volume"),
            ("fsGroup: 10001", "fsGroup: 10002"),
            ("app.kubernetes.io/name: dpdau-by-hand", "app.kubernetes.io/name: dpdau"),
            ("  egress:\n", "  ingress:\n"),
            ("  ingress:\n", "  egress:\n"),
        )
    ),
    Fault(
        COMPOSE,
        "pull_policy: missing",
        "pull_policy: build",
        rules.an_image_that_is_there_is_taken_and_another_base_can_be_named,
    ),
    Fault(
        COMPOSE, "${BASE:-python", "${BASE:-pypy", rules.an_image_that_is_there_is_taken_and_another_base_can_be_named
    ),
    Fault(EXAMPLE, "BASE=python", "BASE=pypy", rules.an_image_that_is_there_is_taken_and_another_base_can_be_named),
    Fault(DPDAU, "replicas: 1", "replicas: 2", rules.a_store_has_one_of_each),
    Fault(COMPOSE, "    ports:\n", "    scale: 2\n    ports:\n", rules.a_store_has_one_of_each),
    Fault(COMPOSE, "image: dpdau:0.1.0", "image: dpdau:latest", rules.the_images_tag_is_the_version),
    Fault(DPDAU, "image: dpdau:0.1.0", "image: dpdau:0.0.9", rules.the_images_tag_is_the_version),
    Fault(KUSTOMIZATION, "newTag: 0.1.0", "newTag: 0.2.0", rules.the_images_tag_is_the_version),
    Fault(POSTGRES, "image: postgres:17-bookworm", "image: postgres:16", rules.the_images_tag_is_the_version),
    Fault(DOCKERFILE, "ARG VERSION=0.1.0", "ARG VERSION=0.0.1", rules.the_images_tag_is_the_version),
    Fault(COMPOSE, "  GRACE_DAYS:", "  GRACEDAYS:", rules.every_variable_is_a_setting),
    Fault(SETTINGS, "  TIMEZONE:", "  TIME_ZONE:", rules.every_variable_is_a_setting),
    Fault(EXAMPLE, "GRACE_DAYS=", "GRACE=", rules.every_variable_is_a_setting),
    Fault(SETTINGS, "  MART_DIR: /data/mart\n", "", rules.compose_and_kubernetes_give_the_same_variables),
    Fault(COMPOSE, "  MART_DIR: /data/mart\n", "", rules.compose_and_kubernetes_give_the_same_variables),
    Fault(
        COMPOSE,
        "x-settings: &settings\n",
        "x-settings: &settings\n  SERVICE_API_KEY: x\n",
        rules.compose_and_kubernetes_give_the_same_variables,
    ),
    Fault(EXAMPLE, "UI_PORT=3000\n", "", rules.the_example_names_what_compose_asks_for),
    Fault(
        EXAMPLE, "UI_PORT=3000\n", "UI_PORT=3000\nMAU_WINDOW_DAYS=30\n", rules.the_example_names_what_compose_asks_for
    ),
    Fault(COMPOSE, "${SERVICE_API_KEY:?", "${SERVICE_API_KEY:-", rules.secrets_have_no_default),
    Fault(COMPOSE, "${TIMEZONE:-UTC}", "${TIMEZONE}", rules.secrets_have_no_default),
    Fault(EXAMPLE, "POSTGRES_PASSWORD=\n", "POSTGRES_PASSWORD=dpdau\n", rules.secrets_have_no_default),
    Fault(SECRET, 'HASH_SALT_SECRET: ""', "HASH_SALT_SECRET: secret", rules.secrets_have_no_default),
    Fault(SETTINGS, "  TIMEZONE: UTC", "  SERVICE_API_KEY: x", rules.secrets_have_no_default),
    Fault(".dockerignore", "!eval\n", "!eval\n!data\n", rules.the_builder_is_sent_what_is_copied_and_no_more),
    Fault(".dockerignore", "**/.env\n", "", rules.the_builder_is_sent_what_is_copied_and_no_more),
    Fault(".dockerignore", "*\n!py", "!py", rules.the_builder_is_sent_what_is_copied_and_no_more),
)


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
def test_the_files_keep_every_rule(rule: Rule) -> None:
    assert list(rule(PROJECT)) == []


@pytest.mark.slow(weight=0.1)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.rule.__name__}: {fault.instead.strip()[:40]}")
def test_each_planted_fault_is_seen_by_its_rule(fault: Fault, tmp_path: Path) -> None:
    copied = copy_of_the_files(tmp_path)
    text = (copied / fault.file).read_text()
    assert fault.text in text, "the fault is where the file has it"
    (copied / fault.file).write_text(text.replace(fault.text, fault.instead, 1))
    assert list(fault.rule(copied)) != []


def test_every_rule_has_a_fault_that_it_sees() -> None:
    assert {fault.rule for fault in FAULTS} == set(rules.RULES)


EVENT_FILES = re.compile(r"^(\s*)# - (.*/?landing.*)$", re.MULTILINE)


@pytest.mark.slow(weight=0.1)
def test_the_mounts_of_event_files_hold_where_their_comments_are_taken_off(tmp_path: Path) -> None:
    copied = copy_of_the_files(tmp_path)
    for file in (COMPOSE, DPDAU):
        text, changed = EVENT_FILES.subn(r"\1- \2", (copied / file).read_text())
        assert changed == (2 if file == COMPOSE else 3)
        (copied / file).write_text(text)
    assert [said for rule in rules.RULES for said in rule(copied)] == []
    services = rules.compose(copied)["services"]
    having = {name for name, service in services.items() if "/srv/dpdau-events:/landing:ro" in service["volumes"]}
    assert having == {"prepare", "daemon"}
    for name in ("prepare", "daemon"):
        assert {"name": "landing", "mountPath": "/landing", "readOnly": True} in (
            rules.containers(copied)[name]["volumeMounts"]
        )
    assert "landing" in [volume["name"] for volume in rules.pods(copied)["dpdau"]["volumes"]]


@pytest.mark.slow(weight=0.1)
def test_the_port_of_redis_is_open_where_its_comment_is_taken_off(tmp_path: Path) -> None:
    copied = copy_of_the_files(tmp_path)
    text, changed = re.subn(
        r"^(    )# (- ports: # Redis|    - \{.*6379)", r"\1\2", (copied / NETWORK).read_text(), flags=re.M
    )
    assert changed == 2
    (copied / NETWORK).write_text(text)
    assert [said for rule in rules.RULES for said in rule(copied)] == []
    policies = {
        found["metadata"]["name"]: found for found in rules.manifests(copied) if "egress" in found.get("spec", {})
    }
    assert {"protocol": "TCP", "port": 6379} in policies["dpdau"]["spec"]["egress"][-1]["ports"]


def copy_of_the_files(folder: Path) -> Path:
    shutil.copytree(PROJECT / "docker", folder / "docker", ignore=shutil.ignore_patterns("__pycache__", ".env*"))
    postgres = Path("dpdau_tests") / "deploy" / "postgres"
    shutil.copytree(PROJECT / postgres, folder / postgres)
    shutil.copy(PROJECT / ".dockerignore", folder)
    return folder
