"""The values of docs/air-gapped.md, as they stand there."""

import re

import yaml
from helm_chart import ROOT, Helm


def test_the_inner_registry_is_the_only_one_that_is_asked(helm: Helm) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "air-gapped.md").read_text(), re.DOTALL)
    documents = helm.documents(values=yaml.safe_load(text))
    pods = [
        d["spec"]["template"]["spec"] if d["kind"] == "Deployment" else d["spec"]
        for d in documents
        if d["kind"] in ("Deployment", "Pod")
    ]
    containers = [container for pod in pods for container in (*pod["containers"], *pod.get("initContainers", ()))]
    named = {container["image"] for container in containers}
    named |= {
        a.split("=", 1)[1] for c in containers for a in c.get("args", ()) if re.match(r"--(trainer|reporter)-image=", a)
    }
    assert {image.split("@")[0] for image in named} == {
        "registry.inner.example/scalingsweep/operator",
        "registry.inner.example/scalingsweep/trainer",
    }
    assert all(re.search(r"@sha256:[0-9a-f]{64}$", image) for image in named)
    assert all(pod["imagePullSecrets"] == [{"name": "inner-registry"}] for pod in pods)
