"""Checks the manifests beside this file without a cluster: `just check-kubernetes`.

It validates each resource against the Kubernetes schemas, where an unknown field is an error too, and all of them against
each other: whatever a selector, a reference or a port names must exist. Then it breaks copies in several ways and checks
that each error is found. It needs kubernetes-validate, which includes the schemas. Where kubectl is installed, it also builds
the base and the example with kustomize, and checks the result in the same way.
"""

import copy
import pathlib
import shutil
import subprocess
import sys

import jsonschema
import kubernetes_validate
import yaml

HERE = pathlib.Path(__file__).parent
# What the example overlay consists of.
FOLDERS = ["base", "components/pod-monitor", "example"]
# The oldest version with every field that is used here, and a newer one.
VERSIONS = ["1.30", "1.36"]


def strict(required, **properties):
    return {"type": "object", "required": required, "properties": properties, "additionalProperties": False}


# The fields that we use of what the Prometheus Operator adds to a cluster. Source: its API reference, PodMonitor v1.
EXPRESSION = strict(
    ["key", "operator", "values"],
    key={"type": "string"},
    operator={"enum": ["In", "NotIn"]},
    values={"type": "array", "items": {"type": "string"}},
)
POD_MONITOR = strict(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "monitoring.coreos.com/v1"},
    kind={"const": "PodMonitor"},
    metadata={"type": "object"},
    spec=strict(
        ["selector", "podMetricsEndpoints"],
        jobLabel={"type": "string"},
        selector=strict(
            ["matchLabels"], matchLabels={"type": "object"}, matchExpressions={"type": "array", "items": EXPRESSION}
        ),
        podMetricsEndpoints={
            "type": "array",
            "minItems": 1,
            "items": strict(["port"], port={"type": "string"}, interval={"type": "string", "pattern": "^[0-9]+s$"}),
        },
    ),
)


def resources():
    """Returns the resources that the kustomizations list, and the names of the ConfigMaps that they generate."""
    found, settings = [], set()
    for folder in FOLDERS:
        kustomization = yaml.safe_load((HERE / folder / "kustomization.yaml").read_text())
        listed = {name for name in kustomization["resources"] if name.endswith(".yaml")}
        present = {path.name for path in (HERE / folder).glob("*.yaml")} - {"kustomization.yaml"}
        if listed != present:
            sys.exit(f"{folder}/kustomization.yaml lists {sorted(listed)}, and the folder has {sorted(present)}")
        found += [doc for name in sorted(listed) for doc in yaml.safe_load_all((HERE / folder / name).read_text())]
        settings |= {each["name"] for each in kustomization.get("configMapGenerator", [])}
    return found, settings


def within(labels, selector):
    """Whether a selector with `matchLabels` and `matchExpressions` selects these labels."""
    for expression in selector.get("matchExpressions", []):
        chosen = labels.get(expression["key"]) in expression["values"]
        if chosen != (expression["operator"] == "In"):
            return False
    wanted = selector.get("matchLabels", {})
    return bool(wanted) and wanted.items() <= labels.items()


def references(docs, settings):
    """Yields each reference to something that no resource defines."""
    pods = [doc["spec"]["template"] for doc in docs if doc["kind"] in ("Deployment", "Job")]
    names = [(doc["kind"], doc["metadata"]["name"]) for doc in docs]
    for twice in {name for name in names if names.count(name) > 1}:
        yield f"{twice} is defined twice"
    for doc in docs:
        kind, spec, where = doc["kind"], doc["spec"], f"{doc['kind']} {doc['metadata']['name']}"
        selector = spec.get("podSelector", spec.get("selector", {}))
        if kind == "Service":
            selector = {"matchLabels": selector}
        chosen = [pod for pod in pods if within(pod["metadata"]["labels"], selector)]
        if kind in ("Service", "PodDisruptionBudget", "NetworkPolicy", "PodMonitor") and not chosen:
            yield f"{where} selects no pod"
        if kind in ("Service", "PodDisruptionBudget", "Deployment") and len(chosen) != 1:
            yield f"{where} selects the pods of {len(chosen)} resources instead of one"
        if kind == "Deployment" and chosen != [spec["template"]]:
            yield f"{where} does not select its own pods"
        for host in spec.get("rules", []) if kind == "Ingress" else []:
            if not any(host["host"] in tls["hosts"] for tls in spec.get("tls", [])):
                yield f"{where} serves {host['host']} without TLS"
            for backend in [path["backend"]["service"] for path in host["http"]["paths"]]:
                services = [s for s in docs if s["kind"] == "Service" and s["metadata"]["name"] == backend["name"]]
                ports = {port["name"] for service in services for port in service["spec"]["ports"]}
                if backend["port"]["name"] not in ports:
                    yield f"{where} sends to {backend}, which no service has"
        target = spec.get("scaleTargetRef")
        if target and (target["kind"], target["name"]) not in names:
            yield f"{where} scales {target['kind']} {target['name']}, which does not exist"
        wanted = [port.get("targetPort") for port in spec.get("ports", [])] if kind == "Service" else []
        wanted += [port["port"] for rule in spec.get("ingress", []) for port in rule.get("ports", [])]
        wanted += [endpoint["port"] for endpoint in spec.get("podMetricsEndpoints", [])]
        for pod in chosen:
            for container in pod["spec"]["containers"]:
                ports = {port["name"] for port in container.get("ports", [])}
                probes = [probe for name, probe in container.items() if name.endswith("Probe")]
                for port in wanted + [probe["httpGet"]["port"] for probe in probes]:
                    if port not in ports:
                        yield f"{where} refers to port {port}, which container {container['name']} does not have"
    yield from reachable(docs, pods)
    for pod in pods:
        yield from hardening(pod["spec"])
        for container in pod["spec"]["containers"]:
            for source in container.get("envFrom", []):
                if source.get("configMapRef", {}).get("name") not in settings:
                    yield f"{container['name']} uses {source}, which kustomization.yaml does not generate"
            for variable in container.get("env", []):
                if "secretKeyRef" not in variable.get("valueFrom", {}):
                    yield f"{container['name']} has {variable['name']} in plain text"


def reachable(docs, pods):
    """Reports a pod that may reach more than it needs: the broker is for the roles, and a job has its database alone."""
    policies = [doc["spec"] for doc in docs if doc["kind"] == "NetworkPolicy"]
    for pod in pods:
        labels = pod["metadata"]["labels"]
        name, job = labels["app.kubernetes.io/component"], labels["app.kubernetes.io/component"].startswith("migrate-")
        own = [policy for policy in policies if within(labels, policy["podSelector"])]
        egress = [rule for policy in own if "Egress" in policy["policyTypes"] for rule in policy.get("egress", [])]
        ports = {port["port"] for rule in egress for port in rule.get("ports", [])}
        if ports != ({53, 5432} if job else {53, 5432, 5671, 5672}) or any("ports" not in rule for rule in egress):
            yield f"{name} may reach the ports {sorted(ports)}"
        names = {variable["name"] for container in pod["spec"]["containers"] for variable in container.get("env", [])}
        if job and not all(name.endswith("DATABASE_URL") for name in names):
            yield f"{name} gets {sorted(names)}, and needs its database alone"
        ingress = [rule for policy in own if "Ingress" in policy["policyTypes"] for rule in policy.get("ingress", [])]
        if job and ingress:
            yield f"{name} accepts connections"
        if not own or any("ports" not in rule for rule in ingress):
            yield f"{name} accepts connections to any port"
        monitored = [rule for rule in ingress if {"port": "metrics", "protocol": "TCP"} in rule["ports"]]
        if not all(rule.get("from") for rule in monitored):
            yield f"{name} shows its metrics to every pod"


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
    found = []
    for version in VERSIONS:
        for doc in docs:
            try:
                if doc["kind"] == "PodMonitor":
                    jsonschema.validate(doc, POD_MONITOR)
                else:
                    kubernetes_validate.validate(doc, version, strict=True)
            except (kubernetes_validate.ValidationError, jsonschema.ValidationError) as error:
                found.append(f"{doc['kind']} {doc['metadata'].get('name')} under {version}: {error.message}")
    # References are followed only in resources of the right form.
    return found or list(references(docs, settings))


def built(folder):
    """Returns what kustomize builds from a folder; nothing where kubectl is not installed."""
    if not shutil.which("kubectl"):
        return []
    output = subprocess.run(["kubectl", "kustomize", HERE / folder], check=True, capture_output=True, text=True).stdout
    return list(yaml.safe_load_all(output))


def check_built(folder):
    """Checks what kustomize builds from a folder; returns the number of resources."""
    docs = built(folder)
    settings = {doc["metadata"]["name"] for doc in docs if doc["kind"] == "ConfigMap"}
    plain = [doc for doc in docs if doc["kind"] != "ConfigMap"]
    if docs and (found := problems(plain, settings)):
        sys.exit("\n".join(f"{folder}, built: {problem}" for problem in found))
    images = {c["image"] for d in plain if d["kind"] in ("Deployment", "Job") for c in d["spec"]["template"]["spec"]["containers"]}
    if docs and len(images) != 1:
        sys.exit(f"{folder}, built: the images differ: {sorted(images)}")
    return len(docs)


def self_test(docs, settings):
    """Breaks a copy in each of these ways, and expects the message beside it. Returns their number."""
    deployment = next(n for n, doc in enumerate(docs) if doc["kind"] == "Deployment")
    service = next(n for n, doc in enumerate(docs) if doc["kind"] == "Service")
    scaler = next(n for n, doc in enumerate(docs) if doc["kind"] == "HorizontalPodAutoscaler")
    monitor = next(n for n, doc in enumerate(docs) if doc["kind"] == "PodMonitor")
    ingress = next(n for n, doc in enumerate(docs) if doc["kind"] == "Ingress")
    policy = next(n for n, doc in enumerate(docs) if doc["metadata"]["name"] == "purse")
    metrics = next(n for n, doc in enumerate(docs) if doc["metadata"]["name"] == "purse-metrics")
    job = next(n for n, doc in enumerate(docs) if doc["kind"] == "Job")

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
        ("Additional properties", lambda d: d[monitor]["spec"].update(podMetricsEndpoint=[])),
        ("refers to port metric,", lambda d: d[monitor]["spec"]["podMetricsEndpoints"][0].update(port="metric")),
        ("which no service has", lambda d: d[ingress]["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"].update(name="x")),
        ("without TLS", lambda d: d[ingress]["spec"]["tls"][0]["hosts"].pop()),
        ("may reach the ports", lambda d: d[policy]["spec"]["egress"].append({"ports": [{"protocol": "TCP", "port": 5672}]})),
        ("shows its metrics to every pod", lambda d: d[metrics]["spec"]["ingress"][0].pop("from")),
        ("needs its database alone", lambda d: d[job]["spec"]["template"]["spec"]["containers"][0]["env"].append(
            {"name": "JWT_PRIVATE_KEY", "valueFrom": {"secretKeyRef": {"name": "purse-keys", "key": "JWT_PRIVATE_KEY"}}})),
        ("accepts connections", lambda d: d[policy]["spec"]["ingress"].append({"ports": [{"protocol": "TCP", "port": 80}]})),
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
    for folder in ["base", "example"]:
        count = check_built(folder)
        print(f"{folder}: {count} resources built by kustomize are valid" if count else f"{folder}: not built, without kubectl")


main()
