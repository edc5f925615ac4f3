"""Values that are wrong are refused where they stand, with what would be right."""

from typing import Any

import pytest
from helm_chart import Helm

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown key": ({"replicaCount": 3}, "additional properties 'replicaCount' not allowed"),
    "an unknown key within": ({"image": {"name": "x"}}, "at '/image': additional properties 'name' not allowed"),
    "a misspelt threshold": (
        {"alerts": {"thresholds": {"heldFour": "1h"}}},
        "at '/alerts/thresholds': additional properties 'heldFour' not allowed",
    ),
    "an unknown rule of the policy": (
        {"policy": {"maxTolerence": 0.1}},
        "at '/policy': additional properties 'maxTolerence' not allowed",
    ),
    "a text for a number": ({"replicas": "two"}, "at '/replicas': got string, want integer"),
    "a number for a text": ({"image": {"tag": 1.0}}, "at '/image/tag': got number, want string"),
    "a digest that is none": ({"image": {"digest": "latest"}}, "at '/image/digest': 'latest' does not match pattern"),
    "a monitor of another kind": (
        {"monitor": {"kind": "Probe"}},
        "at '/monitor/kind': value must be one of 'ServiceMonitor', 'PodMonitor', 'None'",
    ),
    "a privileged port": ({"service": {"metricsPort": 80}}, "at '/service/metricsPort': minimum: got 80, want 1,024"),
    "a share above one": ({"alerts": {"thresholds": {"budgetShare": 90}}}, "at '/alerts/thresholds/budgetShare'"),
    "a duration without a unit": ({"monitor": {"interval": "30"}}, "at '/monitor/interval': '30' does not match"),
    "a namespace that cannot be": ({"watch": {"namespaces": ["Research"]}}, "at '/watch/namespaces/0'"),
    "a queue without a quota": (
        {"kueue": {"clusterQueues": [{"name": "q"}]}},
        "at '/kueue/clusterQueues/0': missing property 'spec'",
    ),
    "a launch that is none": ({"policy": {"launch": ["Sometimes"]}}, "at '/policy/launch/0': value must be one of"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_value_is_refused_where_it_stands(helm: Helm, case: str) -> None:
    values, said = REFUSED[case]
    assert said in helm.refusal(values=values)


def test_a_parent_chart_may_set_its_globals(helm: Helm) -> None:
    helm.documents(values={"global": {"anything": True}})
