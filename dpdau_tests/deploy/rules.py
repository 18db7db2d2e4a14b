"""What must hold of the files in docker/, each as a function that tells what is wrong in a copy of the project's files.

A linter sees one file; most of these see several beside one another, or the code.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

from dpdau_assets.core.version import VERSION
from resources.settings_env import Environment

KUBERNETES_VERSION = "1.35"
USER, POSTGRES_USER = 10001, 999
OF_DPDAU = ("prepare", "api", "daemon", "webserver")
SECRETS = ("HASH_SALT_SECRET", "SERVICE_API_KEY", "POSTGRES_PASSWORD")
BY_HAND = "by-hand"
"""The pod in which nothing runs by itself, and its container."""

NOT_APPLIED_WITH_THE_REST = {"kustomization.yaml", "secret.example.yaml", "by-hand.yaml"}
SETTINGS = frozenset(name.upper() for name in Environment.model_fields)
OF_CONTAINERS = frozenset({"TMPDIR", "POSTGRES_PASSWORD"})
"""What a container of dpdau has besides settings: where sockets are, and what Kubernetes makes LEDGER_URL of."""
OF_COMPOSE = frozenset({"POSTGRES_PASSWORD", "BASE", "API_WORKERS", "API_PORT", "UI_PORT"})
"""What is filled in besides settings: of the containers themselves."""

Found = Iterator[str]

_NAME_OF_POSTGRES = {"app.kubernetes.io/name": "postgres"}
_INTERPOLATED = re.compile(r"\$\{([A-Z_]+)(:[-?])")


# --- The files ------------------------------------------------------------------------------------------------------


def compose(root: Path) -> dict[str, Any]:
    """The compose file, with its anchors followed and its variables as they stand."""
    parsed: dict[str, Any] = yaml.safe_load((root / "docker" / "compose.yaml").read_text())
    return parsed


def manifests(root: Path) -> list[dict[str, Any]]:
    """Every object of Kubernetes, the example of a Secret among them."""
    folder = root / "docker" / "kubernetes"
    files = [path for path in sorted(folder.glob("*.yaml")) if path.name != "kustomization.yaml"]
    return [found for path in files for found in yaml.safe_load_all(path.read_text())]


def pods(root: Path) -> dict[str, dict[str, Any]]:
    """The specification of each StatefulSet's pod, and of each pod of its own, by name."""
    there = manifests(root)
    sets = {found["metadata"]["name"]: found["spec"]["template"] for found in there if found["kind"] == "StatefulSet"}
    alone = {found["metadata"]["name"]: found for found in there if found["kind"] == "Pod"}
    return {name: found["spec"] for name, found in (sets | alone).items()}


def containers(root: Path) -> dict[str, dict[str, Any]]:
    """Every container of every pod, those that run first among them, by name."""
    return {
        found["name"]: found
        for pod in pods(root).values()
        for found in (*pod.get("initContainers", ()), *pod["containers"])
    }


def instructions(root: Path) -> list[list[tuple[str, str]]]:
    """The Dockerfile's stages; each instruction is its word and the rest, on one line."""
    text = re.sub(r"^#.*\n", "", (root / "docker" / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    stages: list[list[tuple[str, str]]] = [[]]
    for line in filter(None, map(str.strip, lines)):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            stages.append([])
        stages[-1].append((word, rest))
    return stages[1:]


# --- Linters and schemas --------------------------------------------------------------------------------------------


def _tool(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def hadolint_is_content(root: Path) -> Found:
    files = [root / "docker" / "Dockerfile", root / "dpdau_tests" / "deploy" / "postgres" / "Dockerfile"]
    ran = subprocess.run([_tool("hadolint"), *map(str, files)], capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        yield ran.stdout + ran.stderr


def compose_keeps_its_schema(root: Path) -> Found:
    command = [_tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", root / "docker" / "compose.yaml"]
    ran = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        yield ran.stdout + ran.stderr


def manifests_keep_their_schemas(root: Path) -> Found:
    for found in manifests(root):
        try:
            kubernetes_validate.validate(found, KUBERNETES_VERSION, strict=True)
        except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
            yield f"{found.get('kind')}: {error}"


def kustomization_lists_what_is_applied_together_and_no_more(root: Path) -> Found:
    folder = root / "docker" / "kubernetes"
    listed = set(yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"])
    there = {path.name for path in folder.glob("*.yaml")} - NOT_APPLIED_WITH_THE_REST
    if listed != there:
        yield f"kustomization.yaml: {sorted(listed ^ there)}"


# --- Rights ---------------------------------------------------------------------------------------------------------


def the_image_is_small_in_rights(root: Path) -> Found:
    build, final = instructions(root)
    said = dict(final)
    wanted = {"USER": f"{USER}:{USER}", "STOPSIGNAL": "SIGTERM", "ENTRYPOINT": '["dpdau"]'}
    yield from (f"Dockerfile: {word} is not {text}" for word, text in wanted.items() if said.get(word) != text)
    for word in ("ENTRYPOINT", "CMD"):
        if not isinstance(json.loads(said[word]), list):
            yield f"Dockerfile: {word} is not in exec form"
    if "CMD [" not in said.get("HEALTHCHECK", ""):
        yield "Dockerfile: no HEALTHCHECK in exec form"
    if "DAGSTER_DISABLE_TELEMETRY=1" not in said["ENV"]:
        yield "Dockerfile: Dagster's telemetry is on"
    copied = [rest for word, rest in final if word in ("COPY", "ADD")]
    if copied != ["--from=build /opt/dpdau /opt/dpdau"]:
        yield f"Dockerfile: the final stage has more than the environment: {copied}"
    if any(re.search(r"apt-get|pip install|apk", rest) for word, rest in final if word == "RUN"):
        yield "Dockerfile: the final stage installs something"
    for rest in (rest for word, rest in build if word == "RUN"):
        unpinned = re.sub(r"pip \S*\s*\S*\s*install --no-deps /wheels/\*\.whl", "", rest)
        if re.search(r"pip\b[^&]*\binstall\b", unpinned) and "--require-hashes" not in unpinned:
            yield "Dockerfile: something is installed without its hash"


def services_are_small_in_rights(root: Path) -> Found:
    for name, service in compose(root)["services"].items():
        user = str(service.get("user", "")).partition(":")[0]
        limits = service.get("deploy", {}).get("resources", {}).get("limits", {})
        wanted = {
            "another user": user == str(POSTGRES_USER if name == "postgres" else USER),
            "a root that can be written": service.get("read_only") is True,
            "capabilities": service.get("cap_drop") == ["ALL"] and "cap_add" not in service,
            "new privileges": service.get("security_opt") == ["no-new-privileges:true"],
            "privileged": not service.get("privileged"),
            "no tmpfs at /tmp": any(str(each).startswith("/tmp:size=") for each in service.get("tmpfs", ())),
            "no limits": {"cpus", "memory", "pids"} <= set(limits),
            "not started again": service.get("restart") == ("no" if name == "prepare" else "unless-stopped"),
            "no health check": "healthcheck" in service,
        }
        yield from (f"compose, {name}: {what}" for what, holds in wanted.items() if not holds)
        for port in service.get("ports", ()):
            if not str(port).startswith("127.0.0.1:"):
                yield f"compose, {name}: port {port} is open to the network"


def pods_are_small_in_rights(root: Path) -> Found:
    for name, pod in pods(root).items():
        user = POSTGRES_USER if name == "postgres" else USER
        context = pod.get("securityContext", {})
        wanted = {
            "a token": pod.get("automountServiceAccountToken") is False,
            "root": context.get("runAsNonRoot") is True,
            "another user": (context.get("runAsUser"), context.get("runAsGroup")) == (user, user),
            "no seccomp": context.get("seccompProfile") == {"type": "RuntimeDefault"},
            "host namespaces": not {"hostNetwork", "hostPID", "hostIPC"} & set(pod),
        }
        yield from (f"pod {name}: {what}" for what, holds in wanted.items() if not holds)
    for name, container in containers(root).items():
        context, resources = container.get("securityContext", {}), container.get("resources", {})
        probes = {"startupProbe", "livenessProbe"} if name not in ("prepare", BY_HAND) else set()
        wanted = {
            "a root that can be written": context.get("readOnlyRootFilesystem") is True,
            "capabilities": context.get("capabilities") == {"drop": ["ALL"]},
            "privileges": context.get("allowPrivilegeEscalation") is False and not context.get("privileged"),
            "root": context.get("runAsNonRoot") is True,
            "no resources": "memory" in resources.get("limits", {}) and "cpu" in resources.get("requests", {}),
            "no probes": probes <= set(container),
            "no /tmp": "/tmp" in [mount["mountPath"] for mount in container["volumeMounts"]],
        }
        yield from (f"container {name}: {what}" for what, holds in wanted.items() if not holds)


def the_api_is_asked_what_it_answers(root: Path) -> Found:
    api = containers(root)["api"]
    paths = {name: api[name]["httpGet"]["path"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    if paths != {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}:
        yield f"container api: {paths}"


def every_pod_is_closed_to_strangers(root: Path) -> Found:
    policies = {
        found["metadata"]["name"]: found["spec"] for found in manifests(root) if found["kind"] == "NetworkPolicy"
    }
    everybody = policies.get("default-deny", {})
    if everybody.get("podSelector") != {} or set(everybody.get("policyTypes", ())) != {"Ingress", "Egress"}:
        yield "NetworkPolicy: pods are open unless one says otherwise"
    if {"ingress", "egress"} & set(everybody):
        yield "NetworkPolicy default-deny: lets something through"
    for name, policy in policies.items():
        for rule in policy.get("ingress", ()):
            if not rule.get("from") or not rule.get("ports"):
                yield f"NetworkPolicy {name}: everybody, or every port"
    if "ingress" not in policies.get("postgres", {}) or policies["postgres"].get("egress"):
        yield "NetworkPolicy postgres: the database is not shut off"


def the_pod_for_work_by_hand_has_what_the_services_have_and_is_reached_by_nobody(root: Path) -> Found:
    there = manifests(root)
    pod = next(found for found in there if found["kind"] == "Pod")
    store = next(found for found in there if found["kind"] == "StatefulSet" and found["metadata"]["name"] == "dpdau")
    ours, theirs = in_kubernetes(root, BY_HAND), in_kubernetes(root, "daemon") - {"TMPDIR"}
    yield from (f"by-hand: {each} is here or there alone" for each in sorted(ours ^ theirs))
    (template,) = store["spec"]["volumeClaimTemplates"]
    claim = f"{template['metadata']['name']}-{store['metadata']['name']}-0"
    (volume,) = [each for each in pod["spec"]["volumes"] if "persistentVolumeClaim" in each]
    mounts = {each["name"]: each["mountPath"] for each in containers(root)[BY_HAND]["volumeMounts"]}
    if volume["persistentVolumeClaim"] != {"claimName": claim} or mounts.get(volume["name"]) != "/data":
        yield f"by-hand: {claim} is not at /data"
    if pod["spec"].get("securityContext") != store["spec"]["template"]["spec"]["securityContext"]:
        yield "by-hand: another user, or other rights on the volume"
    labels = pod["metadata"]["labels"].items()
    selectors = [each["spec"]["selector"] for each in there if each["kind"] in ("Service", "StatefulSet")]
    if any(each.get("matchLabels", each).items() <= labels for each in selectors):
        yield "by-hand: a service leads to it, or a set takes it for its own"
    policies = [each["spec"] for each in there if each["kind"] == "NetworkPolicy"]
    mine = [each for each in policies if each["podSelector"].get("matchLabels", {"": ""}).items() <= labels]
    if any("ingress" in each for each in mine) or not any("egress" in each for each in mine):
        yield "by-hand: somebody reaches it, or it does not reach the database"
    name = dict(labels)["app.kubernetes.io/name"]
    to_postgres = [each for each in policies if each["podSelector"] == {"matchLabels": _NAME_OF_POSTGRES}]
    if not any(name in json.dumps(each.get("ingress")) for each in to_postgres):
        yield "by-hand: the database does not let it in"


# --- One store, one version, the same variables ---------------------------------------------------------------------


def a_store_has_one_of_each(root: Path) -> Found:
    for found in manifests(root):
        if found["kind"] == "StatefulSet" and found["spec"].get("replicas") != 1:
            yield f"StatefulSet {found['metadata']['name']}: not one replica"
        if found["kind"] in ("Deployment", "HorizontalPodAutoscaler"):
            yield f"{found['kind']}: a store is never scaled"
    for name, service in compose(root)["services"].items():
        if "scale" in service or "replicas" in service.get("deploy", {}):
            yield f"compose, {name}: a store is never scaled"


def the_images_tag_is_the_version(root: Path) -> Found:
    named = {f"compose, {name}": found["image"] for name, found in compose(root)["services"].items()}
    named |= {f"container {name}": found["image"] for name, found in containers(root).items()}
    postgres = {image for image in named.values() if image.startswith("postgres:")}
    if len(postgres) != 1:
        yield f"PostgreSQL has other tags here and there: {sorted(postgres)}"
    yield from (f"{where}: {image}" for where, image in named.items() if image not in {f"dpdau:{VERSION}", *postgres})
    kustomization = yaml.safe_load((root / "docker" / "kubernetes" / "kustomization.yaml").read_text())
    tags = {f"{image['name']}:{image['newTag']}" for image in kustomization["images"]}
    if tags != {f"dpdau:{VERSION}", *postgres}:
        yield f"kustomization.yaml: {sorted(tags)}"
    for found in manifests(root):
        labels = found["metadata"].get("labels", {})
        if labels.get("app.kubernetes.io/version", VERSION) != VERSION:
            yield f"{found['kind']} {found['metadata']['name']}: its label is of another version"
    if ("ARG", f"VERSION={VERSION}") not in instructions(root)[-1]:
        yield "Dockerfile: VERSION is another one"


def in_compose(root: Path, service: str) -> set[str]:
    """The variables that a service has by compose."""
    return set(compose(root)["services"][service].get("environment", {}))


def in_kubernetes(root: Path, container: str) -> set[str]:
    """The variables that a container has by Kubernetes, those of the ConfigMap among them."""
    found = containers(root)[container]
    maps = {each["metadata"]["name"]: set(each["data"]) for each in manifests(root) if each["kind"] == "ConfigMap"}
    named = [maps[each["configMapRef"]["name"]] for each in found.get("envFrom", ())]
    return {each["name"] for each in found.get("env", ())}.union(*named)


def every_variable_is_a_setting(root: Path) -> Found:
    for name in OF_DPDAU:
        for where, variables in (("compose", in_compose(root, name)), ("Kubernetes", in_kubernetes(root, name))):
            yield from (f"{where}, {name}: {each}" for each in sorted(variables - SETTINGS - OF_CONTAINERS))
    example = _example(root)
    yield from (f"env.example: {name}" for name in sorted(set(example) - SETTINGS - OF_COMPOSE))


def compose_and_kubernetes_give_the_same_variables(root: Path) -> Found:
    api = in_compose(root, "api") | in_compose(root, "daemon")
    for name in OF_DPDAU:
        ours, theirs = in_compose(root, name), in_kubernetes(root, name)
        yield from (f"Kubernetes, {name}: lacks {each}" for each in sorted(ours - theirs))
        yield from (f"compose, {name}: lacks {each}" for each in sorted(theirs - api - {"POSTGRES_PASSWORD"}))
    for name in ("daemon", "webserver"):
        if "SERVICE_API_KEY" in in_compose(root, name) | in_kubernetes(root, name):
            yield f"{name}: has a key of the API, and no use for it"


def _example(root: Path) -> dict[str, str]:
    lines = (root / "docker" / "env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def the_example_names_what_compose_asks_for(root: Path) -> Found:
    asked = {name for name, _ in _INTERPOLATED.findall((root / "docker" / "compose.yaml").read_text())}
    yield from (f"env.example: {name}" for name in sorted(asked ^ set(_example(root))))


def an_image_that_is_there_is_taken_and_another_base_can_be_named(root: Path) -> Found:
    for name in OF_DPDAU:
        service = compose(root)["services"][name]
        if service.get("pull_policy") != "missing":
            yield f"compose, {name}: what was pulled or built is not taken"
        if service["build"].get("args") != {"BASE": f"${{BASE:-{_base(root)}}}"}:
            yield f"compose, {name}: its base is not the Dockerfile's, or cannot be named"
    if _example(root)["BASE"] != _base(root):
        yield "env.example: another base"


def _base(root: Path) -> str:
    (base,) = re.findall(r"^ARG BASE=(\S+)$", (root / "docker" / "Dockerfile").read_text(), flags=re.MULTILINE)
    return base


def secrets_have_no_default(root: Path) -> Found:
    text = (root / "docker" / "compose.yaml").read_text()
    asked = _INTERPOLATED.findall(text)
    for name in (*SECRETS, "START_DATE"):
        if {how for each, how in asked if each == name} != {":?"}:
            yield f"compose: {name} can be left out"
        if _example(root)[name]:
            yield f"env.example: {name} has a value"
    if len(asked) != text.count("${"):
        yield "compose: a variable without a default and without what to do"
    for found in manifests(root):
        if found["kind"] == "Secret" and (
            "data" in found or set(found["stringData"].items()) != {(s, "") for s in SECRETS}
        ):
            yield "secret.example.yaml: has a value, or other names"
        if found["kind"] == "ConfigMap" and set(found["data"]) & set(SECRETS):
            yield "settings.yaml: holds a secret"
    for name, container in containers(root).items():
        for each in container.get("env", ()):
            if each["name"] in SECRETS and "secretKeyRef" not in each.get("valueFrom", {}):
                yield f"container {name}: {each['name']} is not from the Secret"


def the_builder_is_sent_what_is_copied_and_no_more(root: Path) -> Found:
    lines = [line for line in (root / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    if lines[0] != "*" or not {"**/.env", "**/.env.*"} <= set(lines):
        yield ".dockerignore: lets more through than it names"
    sent = {line[1:] for line in lines if line.startswith("!")}
    copies = [rest.split()[:-1] for word, rest in instructions(root)[0] if word == "COPY"]
    copied = {name for names in copies for name in names}
    if sent != copied:
        yield f".dockerignore: {sorted(sent ^ copied)}"


RULES = (
    hadolint_is_content,
    compose_keeps_its_schema,
    manifests_keep_their_schemas,
    kustomization_lists_what_is_applied_together_and_no_more,
    the_image_is_small_in_rights,
    services_are_small_in_rights,
    pods_are_small_in_rights,
    the_api_is_asked_what_it_answers,
    every_pod_is_closed_to_strangers,
    the_pod_for_work_by_hand_has_what_the_services_have_and_is_reached_by_nobody,
    a_store_has_one_of_each,
    the_images_tag_is_the_version,
    every_variable_is_a_setting,
    compose_and_kubernetes_give_the_same_variables,
    the_example_names_what_compose_asks_for,
    an_image_that_is_there_is_taken_and_another_base_can_be_named,
    secrets_have_no_default,
    the_builder_is_sent_what_is_copied_and_no_more,
)
