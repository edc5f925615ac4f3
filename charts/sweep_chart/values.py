"""What can be set about an installation: the one source of values.yaml, values.schema.json and the README's table.

Owns names, types, defaults and their sentences. A key that is not here is refused by the schema. Where a value is
handed on to Kubernetes as it is, its type is only as strict as Helm needs it; the API server checks the rest.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from sweep_analysis.document import Document
from sweep_operator.policy import Policy

Name = Annotated[str, Field(max_length=253, pattern=r"^$|^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
Namespace = Annotated[str, Field(max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
Duration = Annotated[str, Field(pattern=r"^([0-9]+(ms|s|m|h|d))+$")]
"""As Prometheus writes one: 30s, 5m, 1h."""
ScrapeLabel = Annotated[str, Field(max_length=320, pattern=r"^[-A-Za-z0-9_./:]*$")]
"""The value of a label that a scrape adds, as it stands in a selector."""
Share = Annotated[float, Field(gt=0, le=1)]
Strings = dict[str, str]
Objects = tuple[dict[str, Any], ...]
"""Kubernetes objects or parts of them, handed on as they are."""


class Image(Document):
    """The operator's image."""

    repository: str = Field(default="scalingsweep/operator", min_length=1)
    """Registry and name, without a tag."""
    tag: str = ""
    """The chart's appVersion when empty."""
    digest: str = Field(default="", pattern=r"^$|^sha256:[0-9a-f]{64}$")
    """`sha256:…`; with it the tag is not used, and what runs cannot change under the same name."""
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """When a node fetches the image."""


class Trainers(Document):
    """Images that runs are trained with unless their sweep names another (`runtime.image`)."""

    image: str = ""
    """Of the project's own trainer; the operator's default, scalingsweep/trainer, when empty."""
    reporter_image: str = ""
    """Of the reporter beside trainers of other makes; the operator's own image when empty."""


class Reference(Document):
    """The name of an object in the release's namespace."""

    name: Annotated[str, Field(min_length=1, max_length=253)]


class Watch(Document):
    """Where the operator works."""

    namespaces: tuple[Namespace, ...] = ()
    """With any, the operator works in these alone and its rights are Roles there; with none it watches the whole
    cluster, by a ClusterRole. Namespaces must exist."""


class Operator(Document):
    """The program itself."""

    workers: int = Field(default=16, ge=1, le=64)
    """Passes that go on at once."""
    log_format: Literal["json", "text"] = "json"
    """One JSON object a line, or plain lines."""
    run_metrics: bool = False
    """Series of each unfinished run, eight at most; see docs/metrics.md for what that costs."""
    extra_args: tuple[str, ...] = ()
    """Further arguments of `scalingsweep operator`."""


class Tracing(Document):
    """OpenTelemetry traces of sweeps."""

    endpoint: str = Field(default="", pattern=r"^$|^https?://\S+$")
    """OTLP over HTTP, such as http://collector.observability:4318; no traces when empty."""


class ServiceAccount(Document):
    """The operator's account."""

    create: bool = True
    """False: the account named below exists already."""
    name: Name = ""
    """The release's full name when empty."""
    annotations: Strings = {}
    """For instance a cloud identity."""


class Rbac(Document):
    """Who may do what."""

    create: bool = True
    """The operator's roles and bindings; without them somebody else must grant what docs/security.md lists."""
    user_roles: bool = True
    """ClusterRoles for people, aggregated into view, edit and admin. One release of a cluster owns them."""


class Crds(Document):
    """The two resource definitions. One release of a cluster owns them."""

    enabled: bool = True
    """Install them, and upgrade them with the chart."""
    keep: bool = True
    """Leave them, and with them every sweep, when the release is uninstalled. False deletes all sweeps with it."""


class AdmissionPolicies(Document):
    """The two ValidatingAdmissionPolicies. One release of a cluster owns them."""

    trainers: bool = True
    """A trainer's account may write its own run's progress and records, and nothing else of a status."""
    approvals: bool = False
    """Only who has the RBAC verb `approve` on sweeps may change spec.approvals."""
    other_operators: tuple[Annotated[str, Field(pattern=r"^[^/\s]+/[^/\s]+$")], ...] = ()
    """`namespace/account` of the other releases' operators in this cluster, which write whole statuses too."""


class PriorityClass(Document):
    """How dear the operator's pods are."""

    create: bool = False
    """Make one for this release."""
    value: int = Field(default=1_000_000, le=1_000_000_000)
    """Its value."""


class PodDisruptionBudget(Document):
    """How many replicas a drain may take away."""

    enabled: bool = True
    """Only made with two replicas or more."""
    max_unavailable: int | str = 1
    """A number or a percentage."""


class Service(Document):
    """Where metrics and health are served."""

    annotations: Strings = {}
    """For discovery by annotation, where there is no Prometheus operator."""
    metrics_port: int = Field(default=8080, ge=1024, le=65535)
    """Also the container's; below 1024 a non-root process cannot listen."""
    health_port: int = Field(default=8081, ge=1024, le=65535)
    """/healthz and /readyz."""


class NetworkPolicy(Document):
    """What may reach the operator, and what it may reach."""

    enabled: bool = True
    """Health from anywhere, as kubelets need it; metrics from the peers below; out to names, the API server and the
    tracing endpoint's port."""
    metrics_from: Objects = ()
    """NetworkPolicyPeers that may scrape; everybody when empty."""
    api_server_ports: tuple[Annotated[int, Field(ge=1, le=65535)], ...] = (443, 6443)
    """Of the API server, behind its service."""
    extra_egress: Objects = ()
    """Further egress rules."""


WhenAbsent = Literal["Fail", "Skip"]


class Monitor(Document):
    """How the Prometheus operator finds the metrics."""

    kind: Literal["ServiceMonitor", "PodMonitor", "None"] = "ServiceMonitor"
    """Which object is made."""
    when_absent: WhenAbsent = "Skip"
    """What to do where the cluster lacks that kind."""
    labels: Strings = {}
    """Those by which your Prometheus selects monitors, such as release: kube-prometheus-stack."""
    interval: Duration = "30s"
    """Between two scrapes."""
    scrape_timeout: Duration = "10s"
    """Not longer than the interval."""
    relabelings: Objects = ()
    """Before the scrape."""
    metric_relabelings: Objects = ()
    """After the scrape, before storage."""


class Thresholds(Document):
    """From where on an alert fires; docs/runbooks.md tells each alert."""

    held_for: Duration = "15m"
    """A sweep has waited so long for a person."""
    no_progress_seconds: int = Field(default=7200, ge=60)
    """No running run of a rung has reported for so long."""
    pending_seconds: int = Field(default=21600, ge=60)
    """A rung's oldest attempt has waited so long for a place, and none of the rung runs."""
    restarts: int = Field(default=3, ge=1)
    """Within an hour, without one training step more."""
    forecast_window: Duration = "6h"
    """How far back the target's forecast is compared with its own intervals."""
    budget_share: Share = 0.9
    """Of a budget spent."""
    preemptions: int = Field(default=10, ge=1)
    """Of one sweep within an hour."""
    down_for: Duration = "5m"
    """No replica answers, or none leads."""
    reconcile_seconds: Annotated[float, Field(gt=0, lt=10)] = 5.0
    """p99 of one pass; the histogram ends at ten."""
    queue_seconds: Annotated[float, Field(gt=0)] = 300.0
    """Age of the oldest key that is due and not taken."""
    error_share: Share = 0.1
    """Of passes, or of API calls, that fail."""
    watch_silent_seconds: Annotated[float, Field(gt=0)] = 300.0
    """Since a watch was last known to be current."""
    series_late_seconds: Annotated[float, Field(gt=0)] = 600.0
    """Age of a sweep's series that were not computed anew although it has changed."""


class Durations(Document):
    """For how long an alert's condition must hold before it fires; `heldFor` and `downFor` are thresholds. The windows
    of rates are fixed, see docs/runbooks.md."""

    forecast_broken: Duration = "6h"
    """The other way round: for how long after its sweep has ended ForecastBroken still fires."""
    operator_lagging: Duration = "5m"
    """Of ScalingSweepOperatorLagging."""
    reconcile_slow: Duration = "15m"
    """Of ScalingSweepReconcileSlow."""
    reconcile_failing: Duration = "15m"
    """Of ScalingSweepReconcileFailing."""
    writes_failing: Duration = "10m"
    """Of ScalingSweepWritesFailing."""
    rejected: Duration = "10m"
    """Of ScalingSweepRejected."""
    watch_stale: Duration = "5m"
    """Of ScalingSweepWatchStale."""
    series_late: Duration = "15m"
    """Of ScalingSweepSeriesLate."""


class Alerts(Document):
    """The PrometheusRule."""

    enabled: bool = True
    """Make it."""
    when_absent: WhenAbsent = "Skip"
    """What to do where the cluster lacks the kind."""
    labels: Strings = {}
    """Those by which your Prometheus selects rules."""
    extra_labels: Strings = {}
    """Put on every alert, for routing."""
    runbook_url: str = "docs/runbooks.md"
    """The address under which the page of that name is read where you are; its headings are the alerts' names."""
    disabled: tuple[Annotated[str, Field(pattern="^ScalingSweep[A-Za-z]+$")], ...] = ()
    """Names of alerts to leave out."""
    job: ScrapeLabel = ""
    """The label `job` under which Prometheus scrapes this release: with a ServiceMonitor the service's name. When
    empty, ScalingSweepOperatorDown fires only once no release at all is scraped; set it where one Prometheus scrapes
    two."""
    namespace: ScrapeLabel = ""
    """The label `namespace` of the same scrape, where two releases have one name and thus one job."""
    thresholds: Thresholds = Thresholds()
    durations: Durations = Durations()


class Dashboards(Document):
    """ConfigMaps for Grafana's sidecar."""

    enabled: bool = True
    """Make them."""
    label: str = "grafana_dashboard"
    """The label that the sidecar looks for."""
    label_value: str = "1"
    """And its value."""
    namespace: str = Field(default="", max_length=63)
    """Where the sidecar looks; the release's namespace when empty."""
    annotations: Strings = {"grafana_folder": "Scaling sweeps"}
    """The folder, by the sidecar's folderAnnotation."""


class ResourceFlavor(Document):
    """One kind of node, for Kueue."""

    name: Name
    spec: dict[str, Any] = {}
    """nodeLabels, tolerations, topologyName…"""


class ClusterQueue(Document):
    """One quota, for Kueue."""

    name: Name
    spec: dict[str, Any]
    """resourceGroups, preemption, cohort… Cover cpu and memory too: a queue that counts only GPUs admits nothing
    that also asks for CPU."""


class LocalQueue(Document):
    """The name by which sweeps of a namespace ask for a quota."""

    name: Name
    namespace: Namespace
    cluster_queue: Name
    """The ClusterQueue behind it."""


class Kueue(Document):
    """Queues to make where Kueue is installed; sweeps name them in `placement.queueName`."""

    resource_flavors: tuple[ResourceFlavor, ...] = ()
    cluster_queues: tuple[ClusterQueue, ...] = ()
    local_queues: tuple[LocalQueue, ...] = ()
    when_absent: WhenAbsent = "Fail"
    """What to do where the cluster lacks Kueue and queues are asked for."""


class HelmTest(Document):
    """`helm test`."""

    enabled: bool = True
    """A pod of the operator's image that asks the service whether the operator is ready."""
    annotations: Strings = {}
    """Of its pod, such as one that keeps a service mesh's sidecar out: with a sidecar it would never end."""
    extra_volumes: Objects = ()
    """Volumes of its pod."""
    extra_volume_mounts: Objects = ()
    """Mounts of its container."""


def _resources() -> dict[str, Any]:
    return {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}}


class Values(Document):
    """Every value of the chart."""

    name_override: Name = ""
    """In place of the chart's name."""
    fullname_override: Name = ""
    """In place of release and chart name, in the names of all objects."""
    common_labels: Strings = {}
    """On every object."""
    common_annotations: Strings = {}
    """On every object."""
    image: Image = Image()
    image_pull_secrets: tuple[Reference, ...] = ()
    """Secrets for the operator's image."""
    trainers: Trainers = Trainers()
    replicas: int = Field(default=2, ge=0, le=10)
    """One leads, the others wait; 0 stops the operator and leaves everything else."""
    watch: Watch = Watch()
    operator: Operator = Operator()
    policy: Policy = Policy()
    tracing: Tracing = Tracing()
    service_account: ServiceAccount = ServiceAccount()
    rbac: Rbac = Rbac()
    crds: Crds = Crds()
    admission_policies: AdmissionPolicies = AdmissionPolicies()
    pod_labels: Strings = {}
    """On the operator's pods."""
    pod_annotations: Strings = {}
    """On the operator's pods."""
    deployment_annotations: Strings = {}
    """On the Deployment."""
    resources: dict[str, Any] = Field(default_factory=_resources)
    """Of the operator's container."""
    node_selector: Strings = {}
    """Nodes that the operator may run on."""
    tolerations: Objects = ()
    """Taints that it bears."""
    affinity: dict[str, Any] = {}
    """As in a pod."""
    topology_spread_constraints: Objects = ()
    """In place of the chart's own two, which keep replicas on different nodes and, where it can be done, zones."""
    priority_class_name: Name = ""
    """Of the operator's pods; the release's own when that is made."""
    priority_class: PriorityClass = PriorityClass()
    pod_security_context: dict[str, Any] = {}
    """Merged over the restricted one."""
    security_context: dict[str, Any] = {}
    """Merged over the restricted one."""
    extra_env: Objects = ()
    """Further variables of the container."""
    env_from: Objects = ()
    """Sources of further variables."""
    extra_volumes: Objects = ()
    """Further volumes of the pod."""
    extra_volume_mounts: Objects = ()
    """And where they are mounted."""
    extra_containers: Objects = ()
    """Beside the operator."""
    init_containers: Objects = ()
    """Before the operator."""
    termination_grace_period_seconds: int = Field(default=30, ge=10)
    """The operator gives up its Lease and ends within ten."""
    pod_disruption_budget: PodDisruptionBudget = PodDisruptionBudget()
    service: Service = Service()
    network_policy: NetworkPolicy = NetworkPolicy()
    monitor: Monitor = Monitor()
    alerts: Alerts = Alerts()
    dashboards: Dashboards = Dashboards()
    kueue: Kueue = Kueue()
    helm_test: HelmTest = HelmTest()
    extra_objects: Objects = ()
    """Further manifests of the release; strings in them may be templates."""
