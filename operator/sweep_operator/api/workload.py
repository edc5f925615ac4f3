"""How a run becomes a workload on a cluster: where it is put, what runs in it, where its results are kept.

Owns `spec.placement`, `spec.runtime` and `spec.storage`. A ladder on one machine needs none of them: its runs are
processes there, and their folders are the storage.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from sweep_analysis.document import Document

_NAME = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
_CLAIM = "pvc://"
_QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"

Name = Annotated[str, Field(min_length=1, max_length=253, pattern=_NAME)]
"""Of another object in the sweep's own namespace."""
Quantity = Annotated[str, Field(max_length=20, pattern=_QUANTITY)]
"""A Kubernetes quantity, such as 500m, 8 or 64Gi."""
DeviceMemory = Annotated[str, Field(max_length=20, pattern=r"^[0-9]+(\.[0-9]+)?(M|G|T|Mi|Gi|Ti)$")]
"""A Kubernetes quantity of memory, such as 80Gi or 24576Mi."""
Text = Annotated[str, Field(max_length=4096)]

_BYTES = {"M": 1e6, "G": 1e9, "T": 1e12, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}


class Toleration(Document):
    """A taint that the run's pods may be scheduled onto, as in a pod."""

    key: str | None = Field(default=None, max_length=317)
    """Of the taint; every key when left out, with operator Exists."""
    operator: Literal["Exists", "Equal"] = "Equal"
    """Whether the taint's value must be equal, or any will do."""
    value: str | None = Field(default=None, max_length=63)
    """Of the taint, with operator Equal."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Of the taint; every effect when left out."""
    toleration_seconds: int | None = Field(default=None, ge=0)
    """How long a NoExecute taint is borne; for ever when left out."""


class Placement(Document):
    """Where runs are put and how much of a node each takes. A rung's own fields replace the sweep's, one by one."""

    gpus_per_node: int = Field(default=1, ge=0, le=64)
    """Devices that each run gets; 0 trains on the CPU, and then one slot counts as one device in a budget."""
    gpu_resource: str = Field(default="nvidia.com/gpu", max_length=253, pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$")
    """The extended resource by which the cluster counts devices."""
    gpu_memory: DeviceMemory | None = None
    """Memory of one device, such as 80Gi; with it, a run that cannot fit is refused before anything starts."""
    cpu: Quantity | None = None
    """CPU request and limit of the trainer."""
    memory: Quantity | None = None
    """Memory request and limit of the trainer."""
    node_selector: dict[str, Annotated[str, Field(max_length=63)]] = Field(default_factory=dict, max_length=16)
    """Labels that a node must have."""
    tolerations: tuple[Toleration, ...] = Field(default=(), max_length=16)
    """Taints that the pods may be scheduled onto."""
    priority_class_name: Name | None = None
    """Of the pods: who yields to whom."""

    @property
    def gpu_memory_bytes(self) -> float | None:
        """Bytes of one device; None where nothing is said of them, or where there is no device."""
        if self.gpu_memory is None or self.gpus_per_node == 0:
            return None
        number = self.gpu_memory.rstrip("MGTi")
        return float(number) * _BYTES[self.gpu_memory[len(number) :]]


class EnvironmentVariable(Document):
    """One variable of the trainer's environment; values that are secret come by `runtime.envFrom`."""

    name: str = Field(max_length=253, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Not one that begins with SCALINGSWEEP_."""
    value: Text = ""
    """As it is; `$(NAME)` is replaced as in any container."""

    @model_validator(mode="after")
    def _not_ours(self) -> "EnvironmentVariable":
        if self.name.startswith("SCALINGSWEEP_"):
            raise ValueError("variables that begin with SCALINGSWEEP_ are set by the operator; choose another name")
        return self


class EnvironmentSource(Document):
    """A ConfigMap or a Secret in the sweep's namespace whose every key becomes a variable. Exactly one."""

    config_map: Name | None = None
    """Name of a ConfigMap."""
    secret: Name | None = None
    """Name of a Secret."""

    @model_validator(mode="after")
    def _one(self) -> "EnvironmentSource":
        if (self.config_map is None) == (self.secret is None):
            raise ValueError("name exactly one of configMap and secret")
        return self


class Volume(Document):
    """A volume of the trainer. Exactly one of claimName, configMap, secret and emptyDirSize."""

    name: str = Field(max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    """Of its own among the volumes."""
    mount_path: str = Field(min_length=2, max_length=1024, pattern=r"^/[^:]*$")
    """Where the trainer finds it."""
    read_only: bool = False
    """Whether the trainer may only read it."""
    claim_name: Name | None = None
    """Name of a PersistentVolumeClaim."""
    config_map: Name | None = None
    """Name of a ConfigMap, a file for each key."""
    secret: Name | None = None
    """Name of a Secret, a file for each key."""
    empty_dir_size: Quantity | None = None
    """An empty folder of at most so much, gone with the pod."""

    @model_validator(mode="after")
    def _one(self) -> "Volume":
        if sum(v is not None for v in (self.claim_name, self.config_map, self.secret, self.empty_dir_size)) != 1:
            raise ValueError("name exactly one of claimName, configMap, secret and emptyDirSize")
        return self


class Runtime(Document):
    """What runs in a pod. With nothing given: the operator's own trainer image and command."""

    image: str | None = Field(default=None, min_length=1, max_length=512, pattern=r"^\S+$")
    """Of the trainer."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    """As in a container."""
    command: tuple[Text, ...] = Field(default=(), max_length=64)
    """An own trainer. Kubernetes replaces `$(SCALINGSWEEP_…)` by the run's values."""
    args: tuple[Text, ...] = Field(default=(), max_length=256)
    """Of the command, or of the image's own."""
    env: tuple[EnvironmentVariable, ...] = Field(default=(), max_length=256)
    """Variables of the trainer."""
    env_from: tuple[EnvironmentSource, ...] = Field(default=(), max_length=16)
    """ConfigMaps and Secrets whose keys become variables."""
    image_pull_secrets: tuple[Name, ...] = Field(default=(), max_length=8)
    """Names of Secrets with which images are pulled."""
    service_account_name: Name | None = None
    """An account of the user's own, which the platform's policy must allow; otherwise one is made for the sweep."""
    volumes: tuple[Volume, ...] = Field(default=(), max_length=32)
    """What else is mounted into the trainer."""
    shared_memory: Quantity | None = None
    """Size of /dev/shm."""
    report: Literal["Direct", "Sidecar", "TerminationMessage"] | None = None
    """How results leave the pod: by the trainer itself (ours, the default without a command), by a reporter beside it
    (the default with one), or by the termination message where no sidecar is wanted."""
    grace_seconds: int = Field(default=120, ge=1, le=3600)
    """From the request to checkpoint until the pod is killed."""
    pod_template: dict[str, Any] = Field(
        default_factory=dict, json_schema_extra={"x-kubernetes-preserve-unknown-fields": True}
    )
    """Further fields of the pod template, merged below what the operator sets; checked by the platform's policy."""

    @model_validator(mode="after")
    def _own_names(self) -> "Runtime":
        names = [volume.name for volume in self.volumes]
        if len(set(names)) < len(names):
            raise ValueError("two volumes have the same name; every volume needs a name of its own")
        return self


class Claim(Document):
    """A PersistentVolumeClaim that the operator makes for the sweep."""

    size: Quantity
    """Such as 500Gi."""
    storage_class_name: Name | None = None
    """The cluster's default when left out."""
    access_mode: Literal["ReadWriteOnce", "ReadWriteMany", "ReadWriteOncePod"] = "ReadWriteMany"
    """ReadWriteMany, unless all runs are to share one node."""


class Storage(Document):
    """Where checkpoints, curves and weights are kept. Exactly one of uri and claim."""

    uri: str | None = Field(default=None, max_length=1024, pattern=r"^(pvc|s3|gs|https?)://[^\s]+$")
    """`pvc://claim/path`, mounted into the trainer; any other form is handed to it as it is. Always kept."""
    claim: Claim | None = None
    """A claim that the operator makes for the sweep."""
    when_deleted: Literal["Retain", "Delete"] = "Retain"
    """What becomes of the operator's own claim when the sweep is deleted."""

    @model_validator(mode="after")
    def _one(self) -> "Storage":
        if (self.uri is None) == (self.claim is None):
            raise ValueError("name exactly one of uri and claim")
        if self.uri is not None and self.when_deleted == "Delete":
            raise ValueError("whenDeleted: Delete is for the operator's own claim; what uri names is always kept")
        return self

    @property
    def mounted(self) -> tuple[str, str] | None:
        """Claim and path within it of `pvc://claim/path`; None for storage of any other form."""
        if self.uri is None or not self.uri.startswith(_CLAIM):
            return None
        claim, _, path = self.uri.removeprefix(_CLAIM).partition("/")
        return claim, path.strip("/")
