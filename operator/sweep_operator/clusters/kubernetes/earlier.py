"""Records of earlier runs, on a cluster: ConfigMaps of the sweep's namespace.

Owns where they lie and the refusal of what only one machine has; what they must hold is `imports`'.
"""

from sweep_analysis.table import Text
from sweep_operator.api import Imports, RecordsSource, ScalingSweep
from sweep_operator.clusters import Unavailable
from sweep_operator.clusters.kubernetes.client import Api
from sweep_operator.clusters.kubernetes.errors import Forbidden, NotFound
from sweep_operator.clusters.kubernetes.resources import CONFIG_MAPS
from sweep_operator.imports import imports_of


def imported(api: Api, sweep: ScalingSweep) -> Imports:
    """What `spec.records` names. Raises Unavailable."""
    namespace = sweep.metadata.namespace
    sources = enumerate(sweep.spec.records)
    return imports_of([_read(api, namespace, source, f"spec.records[{number}]") for number, source in sources])


def _read(api: Api, namespace: str, source: RecordsSource, where: str) -> Text:
    name, key = source.config_map, source.key
    if name is None:
        raise Unavailable(
            f"{where} names the file {source.file}, which no cluster can see; put it into a ConfigMap and name that:"
            f" kubectl create configmap NAME -n {namespace} --from-file={key}={source.file}"
        )
    try:
        data = api.get(CONFIG_MAPS.path(namespace, name)).get("data") or {}
    except NotFound:
        raise Unavailable(f"{where}: there is no ConfigMap {name} in namespace {namespace}; create it") from None
    except Forbidden as error:
        raise Unavailable(f"{where}: the operator may not read ConfigMap {name}: {error.message}") from None
    if key not in data:
        keys = ", ".join(sorted(data)) or "no text at all"
        raise Unavailable(f"{where}: ConfigMap {name} has no key {key}: it has {keys}; name the right one as key")
    return Text(f"{name}/{key}", data[key])
