"""Simulated GPU nodes and the life of the pods on them, as Stages that kwok plays.

A pod runs as soon as it is scheduled, and stays. What else becomes of it is said by annotations, on the pod or by its
template, at the start or later:

    simulated/outcome    Succeeded | Failed: the pod ends so, `simulated/after` (such as 2s; at once) after it runs
    simulated/exit-code  of the containers of a failed pod (1)
    simulated/reason     such as OOMKilled (Error; Completed)
    simulated/message    the termination message
    simulated/waiting    such as ImagePullBackOff: the pod never runs, its containers wait with this reason
    simulated/grace      how long a deleted pod takes to end (at once); one that ran ends Failed, as the kubelet has it
    simulated/stopped    the exit code of such a pod (75: a trainer that has checkpointed)
"""

from typing import Any


def node(name: str, gpus: int) -> dict[str, Any]:
    """A Node that kwok keeps alive."""
    capacity = {"cpu": "64", "memory": "512Gi", "pods": "200"} | ({"nvidia.com/gpu": str(gpus)} if gpus else {})
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {"kwok.x-k8s.io/node": "fake"},
            "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "simulated": "true"},
        },
        "status": {"capacity": capacity, "allocatable": capacity},
    }


STAGES = """\
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: node-ready}
spec:
  resourceRef: {apiGroup: v1, kind: Node}
  selector:
    matchExpressions:
    - {key: '.status.conditions.[] | select(.type == "Ready") | .status', operator: NotIn, values: ["True"]}
  next:
    statusTemplate: |
      conditions:
      {{ range NodeConditions }}
      - type: {{ .type | Quote }}
        status: {{ .status | Quote }}
        reason: {{ .reason | Quote }}
        message: {{ .message | Quote }}
        lastHeartbeatTime: {{ Now | Quote }}
        lastTransitionTime: {{ Now | Quote }}
      {{ end }}
      addresses:
      - {type: InternalIP, address: {{ NodeIP | Quote }}}
      - {type: Hostname, address: {{ NodeName | Quote }}}
---
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: pod-runs}
spec:
  resourceRef: {apiGroup: v1, kind: Pod}
  selector:
    matchExpressions:
    - {key: .metadata.deletionTimestamp, operator: DoesNotExist}
    - {key: .status.podIP, operator: DoesNotExist}
    - {key: '.metadata.annotations["simulated/waiting"]', operator: DoesNotExist}
  next:
    statusTemplate: |
      {{ $now := Now }}
      phase: Running
      startTime: {{ $now | Quote }}
      hostIP: {{ NodeIPWith .spec.nodeName | Quote }}
      podIP: {{ PodIPWith .spec.nodeName false (or .metadata.uid "") .metadata.name .metadata.namespace | Quote }}
      conditions:
      {{ range $type := list "Initialized" "Ready" "ContainersReady" }}
      - {type: {{ $type }}, status: "True", lastTransitionTime: {{ $now | Quote }}}
      {{ end }}
      {{ if .spec.initContainers }}
      initContainerStatuses:
      {{ range .spec.initContainers }}
      - name: {{ .name | Quote }}
        image: {{ .image | Quote }}
        imageID: ""
        ready: true
        started: true
        restartCount: 0
        {{ if eq (or .restartPolicy "") "Always" }}
        state: {running: {startedAt: {{ $now | Quote }}}}
        {{ else }}
        state:
          terminated: {exitCode: 0, reason: Completed, startedAt: {{ $now | Quote }}, finishedAt: {{ $now | Quote }}}
        {{ end }}
      {{ end }}
      {{ end }}
      containerStatuses:
      {{ range .spec.containers }}
      - name: {{ .name | Quote }}
        image: {{ .image | Quote }}
        imageID: ""
        ready: true
        started: true
        restartCount: 0
        state: {running: {startedAt: {{ $now | Quote }}}}
      {{ end }}
---
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: pod-waits}
spec:
  resourceRef: {apiGroup: v1, kind: Pod}
  selector:
    matchExpressions:
    - {key: .metadata.deletionTimestamp, operator: DoesNotExist}
    - {key: .status.containerStatuses, operator: DoesNotExist}
    - {key: '.metadata.annotations["simulated/waiting"]', operator: Exists}
  next:
    statusTemplate: |
      {{ $waiting := index .metadata.annotations "simulated/waiting" }}
      {{ $message := or (index .metadata.annotations "simulated/message") "" }}
      phase: Pending
      startTime: {{ Now | Quote }}
      conditions:
      - {type: Ready, status: "False", reason: ContainersNotReady, lastTransitionTime: {{ Now | Quote }}}
      containerStatuses:
      {{ range .spec.containers }}
      - name: {{ .name | Quote }}
        image: {{ .image | Quote }}
        imageID: ""
        ready: false
        started: false
        restartCount: 0
        state: {waiting: {reason: {{ $waiting | Quote }}, message: {{ $message | Quote }}}}
      {{ end }}
---
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: pod-ends}
spec:
  resourceRef: {apiGroup: v1, kind: Pod}
  selector:
    matchExpressions:
    - {key: .metadata.deletionTimestamp, operator: DoesNotExist}
    - {key: .status.phase, operator: In, values: [Running]}
    - {key: '.metadata.annotations["simulated/outcome"]', operator: In, values: [Succeeded, Failed]}
  delay:
    durationMilliseconds: 0
    durationFrom: {expressionFrom: '.metadata.annotations["simulated/after"]'}
  next:
    statusTemplate: |
      {{ $now := Now }}
      {{ $said := .metadata.annotations }}
      {{ $outcome := index $said "simulated/outcome" }}
      {{ $good := eq $outcome "Succeeded" }}
      {{ $code := or (index $said "simulated/exit-code") "1" }}
      {{ $reason := or (index $said "simulated/reason") "Error" }}
      {{ $message := or (index $said "simulated/message") "" }}
      {{ $began := or .status.startTime $now }}
      phase: {{ $outcome }}
      conditions:
      {{ range $type := list "Ready" "ContainersReady" }}
      - {type: {{ $type }}, status: "False", lastTransitionTime: {{ $now | Quote }}}
      {{ end }}
      containerStatuses:
      {{ range .spec.containers }}
      - name: {{ .name | Quote }}
        image: {{ .image | Quote }}
        imageID: ""
        ready: false
        started: false
        restartCount: 0
        state:
          terminated:
            exitCode: {{ if $good }}0{{ else }}{{ $code }}{{ end }}
            reason: {{ if $good }}Completed{{ else }}{{ $reason | Quote }}{{ end }}
            message: {{ $message | Quote }}
            startedAt: {{ $began | Quote }}
            finishedAt: {{ $now | Quote }}
      {{ end }}
---
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: pod-is-stopped}
spec:
  resourceRef: {apiGroup: v1, kind: Pod}
  selector:
    matchExpressions:
    - {key: .metadata.deletionTimestamp, operator: Exists}
    - {key: .status.phase, operator: In, values: [Running]}
  delay:
    durationMilliseconds: 0
    durationFrom: {expressionFrom: '.metadata.annotations["simulated/grace"]'}
  next:
    statusTemplate: |
      {{ $now := Now }}
      {{ $said := or .metadata.annotations dict }}
      {{ $began := or .status.startTime $now }}
      phase: Failed
      containerStatuses:
      {{ range .spec.containers }}
      - name: {{ .name | Quote }}
        image: {{ .image | Quote }}
        imageID: ""
        ready: false
        started: false
        restartCount: 0
        state:
          terminated:
            exitCode: {{ or (index $said "simulated/stopped") "75" }}
            reason: Error
            startedAt: {{ $began | Quote }}
            finishedAt: {{ $now | Quote }}
      {{ end }}
---
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: pod-goes}
spec:
  resourceRef: {apiGroup: v1, kind: Pod}
  selector:
    matchExpressions:
    - {key: .metadata.deletionTimestamp, operator: Exists}
    - {key: .metadata.finalizers, operator: DoesNotExist}
    - {key: .status.phase, operator: NotIn, values: [Running]}
  next: {delete: true}
"""
