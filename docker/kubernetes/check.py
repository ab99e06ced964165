"""Checks the manifests beside this file without a cluster: `just check-kubernetes`.

It validates each resource against the Kubernetes schemas, where an unknown field is an error too, and all of them against
each other: whatever a selector, a reference or a port names must exist. Then it breaks copies in several ways and checks
that each error is found. It needs kubernetes-validate, which includes the schemas.
"""

import copy
import pathlib
import sys

import kubernetes_validate
import yaml

HERE = pathlib.Path(__file__).parent
# The oldest version with every field that is used here, and a newer one.
VERSIONS = ["1.30", "1.36"]


def resources():
    """Returns the resources that kustomization.yaml lists, and the names of the ConfigMaps that it generates."""
    kustomization = yaml.safe_load((HERE / "kustomization.yaml").read_text())
    listed = set(kustomization["resources"])
    there = {path.name for path in HERE.glob("*.yaml")} - {"kustomization.yaml"}
    if listed != there:
        sys.exit(f"kustomization.yaml lists {sorted(listed)}, and the folder has {sorted(there)}")
    found = [doc for name in sorted(listed) for doc in yaml.safe_load_all((HERE / name).read_text())]
    return found, {each["name"] for each in kustomization["configMapGenerator"]}


def within(labels, selector):
    return bool(selector) and selector.items() <= labels.items()


def references(docs, settings):
    """Yields each reference to something that no resource defines."""
    pods = [doc["spec"]["template"] for doc in docs if doc["kind"] in ("Deployment", "Job")]
    names = [(doc["kind"], doc["metadata"]["name"]) for doc in docs]
    for twice in {name for name in names if names.count(name) > 1}:
        yield f"{twice} is defined twice"
    for doc in docs:
        kind, spec, where = doc["kind"], doc["spec"], f"{doc['kind']} {doc['metadata']['name']}"
        selector = spec.get("podSelector", spec.get("selector", {}))
        if kind != "Service":
            selector = selector.get("matchLabels", {})
        chosen = [pod for pod in pods if within(pod["metadata"]["labels"], selector)]
        if kind in ("Service", "PodDisruptionBudget", "NetworkPolicy") and not chosen:
            yield f"{where} selects no pod"
        if kind in ("Service", "PodDisruptionBudget", "Deployment") and len(chosen) != 1:
            yield f"{where} selects the pods of {len(chosen)} resources instead of one"
        if kind == "Deployment" and chosen != [spec["template"]]:
            yield f"{where} does not select its own pods"
        target = spec.get("scaleTargetRef")
        if target and (target["kind"], target["name"]) not in names:
            yield f"{where} scales {target['kind']} {target['name']}, which does not exist"
        wanted = [port.get("targetPort") for port in spec.get("ports", [])] if kind == "Service" else []
        wanted += [port["port"] for rule in spec.get("ingress", []) for port in rule.get("ports", [])]
        for pod in chosen:
            for container in pod["spec"]["containers"]:
                ports = {port["name"] for port in container.get("ports", [])}
                probes = [probe for name, probe in container.items() if name.endswith("Probe")]
                for port in wanted + [probe["httpGet"]["port"] for probe in probes]:
                    if port not in ports:
                        yield f"{where} refers to port {port}, which container {container['name']} does not have"
    for pod in pods:
        yield from hardening(pod["spec"])
        for container in pod["spec"]["containers"]:
            for source in container.get("envFrom", []):
                if source.get("configMapRef", {}).get("name") not in settings:
                    yield f"{container['name']} uses {source}, which kustomization.yaml does not generate"
            for variable in container.get("env", []):
                if "secretKeyRef" not in variable.get("valueFrom", {}):
                    yield f"{container['name']} has {variable['name']} in plain text"


def hardening(pod):
    """Yields each permission that a pod has and does not need."""
    security = pod.get("securityContext", {})
    if not security.get("runAsNonRoot") or security.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "a pod may run as root, or without seccomp"
    if pod.get("automountServiceAccountToken") is not False or pod.get("enableServiceLinks") is not False:
        yield "a pod gets a service account token or service variables"
    for container in pod["containers"]:
        own = container.get("securityContext", {})
        if own.get("allowPrivilegeEscalation") is not False or own.get("capabilities") != {"drop": ["ALL"]}:
            yield f"{container['name']} may gain privileges"
        if own.get("readOnlyRootFilesystem") is not True:
            yield f"{container['name']} may write to its root file system"
        if not all("memory" in container.get("resources", {}).get(part, {}) for part in ("requests", "limits")):
            yield f"{container['name']} has no memory request or limit"


def problems(docs, settings):
    found = list(references(docs, settings))
    for version in VERSIONS:
        for doc in docs:
            try:
                kubernetes_validate.validate(doc, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                found.append(f"{doc['kind']} {doc['metadata'].get('name')} under {version}: {error.message}")
    return found


def self_test(docs, settings):
    """Breaks a copy in each of these ways, and expects the message beside it. Returns their number."""
    deployment = next(n for n, doc in enumerate(docs) if doc["kind"] == "Deployment")
    service = next(n for n, doc in enumerate(docs) if doc["kind"] == "Service")
    scaler = next(n for n, doc in enumerate(docs) if doc["kind"] == "HorizontalPodAutoscaler")

    def container(docs):
        return docs[deployment]["spec"]["template"]["spec"]["containers"][0]

    breaks = [
        ("was unexpected", lambda d: container(d).update(readynessProbe={"httpGet": {"port": "http"}})),
        ("is not of type", lambda d: container(d)["livenessProbe"].update(periodSeconds="10")),
        ("'port' is a required property", lambda d: d[service]["spec"]["ports"][0].pop("port")),
        ("refers to port https", lambda d: container(d)["livenessProbe"]["httpGet"].update(port="https")),
        ("selects no pod", lambda d: d[service]["spec"]["selector"].update({"app.kubernetes.io/name": "x"})),
        ("which does not exist", lambda d: d[scaler]["spec"]["scaleTargetRef"].update(name="x")),
        ("in plain text", lambda d: container(d)["env"].append({"name": "JWT_PRIVATE_KEY", "value": "x"})),
        ("may write to its root file system", lambda d: container(d)["securityContext"].update(readOnlyRootFilesystem=False)),
        ("may gain privileges", lambda d: container(d)["securityContext"].pop("capabilities")),
        ("kustomization.yaml does not generate", lambda d: container(d)["envFrom"][0]["configMapRef"].update(name="x")),
    ]
    for words, make in breaks:
        broken = copy.deepcopy(docs)
        make(broken)
        found = problems(broken, settings)
        if not any(words in problem for problem in found):
            sys.exit(f"a broken copy was expected to report `{words}`, but reported {found}")
    return len(breaks)


def main():
    docs, settings = resources()
    found = problems(docs, settings)
    if found:
        sys.exit("\n".join(found))
    detected = self_test(docs, settings)
    versions = " and ".join(VERSIONS)
    print(f"{len(docs)} resources are valid for Kubernetes {versions}; all {detected} injected errors were detected")


main()
