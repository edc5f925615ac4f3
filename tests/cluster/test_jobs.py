"""The Job of an attempt: what is in it, what follows from the spec, and what a user's template may not change."""

import json

import pytest
from kubernetes import client
from live_operator import a_sweep
from local_ladder import a_run

from sweep_analysis.rung import RunOrder
from sweep_operator.clusters.kubernetes import storage
from sweep_operator.clusters.kubernetes.jobs import Images, job_document, job_name, merged

IMAGES = Images("our/trainer", "our/operator")


def job(**spec):
    """The Job of a run's second attempt, with parts of the sweep's spec replaced."""
    sweep = a_sweep(**spec)
    run = a_run(sweep)
    run = run.changed(
        metadata=run.metadata.changed(uid="r-1"), spec=run.spec.changed(placement=sweep.spec.placement_of("a"))
    )
    return job_document(sweep, run, 2, IMAGES)


def pod_of(document):
    return document["spec"]["template"]["spec"]


def trainer_of(document):
    return next(c for c in pod_of(document)["containers"] if c["name"] == "trainer")


def environment_of(container):
    return {variable["name"]: variable.get("value") for variable in container["env"]}


def test_it_is_tried_once_and_never_restarted():
    spec = job()["spec"]
    assert spec["backoffLimit"] == 0
    assert spec["podReplacementPolicy"] == "Failed"
    assert pod_of(job())["restartPolicy"] == "Never"


def test_its_name_and_labels_tell_the_attempt_and_its_owner_is_the_run():
    document = job()
    metadata = document["metadata"]
    assert metadata["name"].endswith("-2")
    assert len(metadata["name"]) <= 63
    assert metadata["labels"]["scalingsweep.dev/attempt"] == "2"
    assert document["spec"]["template"]["metadata"]["labels"] == metadata["labels"]
    (owner,) = metadata["ownerReferences"]
    assert (owner["kind"], owner["uid"], owner["controller"]) == ("ScalingRun", "r-1", True)


def test_every_kind_of_end_has_a_rule_so_that_the_job_remembers_it():
    rules = job()["spec"]["podFailurePolicy"]["rules"]
    assert {rule["action"] for rule in rules} == {"FailJob"}
    assert rules[0]["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    told = [rule["onExitCodes"]["values"] for rule in rules[1:]]
    assert told == [[2], [75], [137], [0, 2, 75, 137]]


def test_our_trainer_is_told_its_order_and_what_it_needs_to_report_by_itself():
    document = job()
    trainer = trainer_of(document)
    order = RunOrder.model_validate(json.loads(environment_of(trainer)["SCALINGSWEEP_ORDER"]))
    assert (order.attempt, order.uid, order.report) == (2, "r-1", "api")
    assert trainer["image"] == "our/trainer"
    assert "initContainers" not in pod_of(document)
    assert "account" in {mount["name"] for mount in trainer["volumeMounts"]}


@pytest.mark.parametrize(("gpus", "workers"), [(0, 1), (1, 1), (8, 8)])
def test_our_trainer_is_told_to_start_a_process_on_each_of_its_gpus(gpus, workers):
    told = environment_of(trainer_of(job(placement={"gpusPerNode": gpus})))
    assert RunOrder.model_validate(json.loads(told["SCALINGSWEEP_ORDER"])).workers == workers


def test_an_own_trainer_holds_no_token_and_a_reporter_beside_it_does():
    document = job(runtime={"image": "theirs", "command": ["train", "--seed", "$(SCALINGSWEEP_SEED)"]})
    trainer, (reporter,) = trainer_of(document), pod_of(document)["initContainers"]
    assert trainer["command"] == ["train", "--seed", "$(SCALINGSWEEP_SEED)"]
    assert "account" not in {mount["name"] for mount in trainer["volumeMounts"]}
    assert "account" in {mount["name"] for mount in reporter["volumeMounts"]}
    assert (reporter["image"], reporter["restartPolicy"]) == ("our/operator", "Always")
    told = environment_of(trainer)
    assert told["SCALINGSWEEP_TOKENS"] == "270336,540672"
    assert told["SCALINGSWEEP_REPORT"].startswith("/report/")
    assert "SCALINGSWEEP_ORDER" not in told


def test_without_a_sidecar_the_termination_message_carries_the_report_and_the_pod_holds_no_token():
    document = job(runtime={"command": ["train"], "report": "TerminationMessage"})
    assert environment_of(trainer_of(document))["SCALINGSWEEP_REPORT"] == "/dev/termination-log"
    assert "initContainers" not in pod_of(document)
    assert "account" not in {volume["name"] for volume in pod_of(document)["volumes"]}


def test_no_pod_is_given_a_token_that_nothing_in_it_asked_for():
    assert pod_of(job())["automountServiceAccountToken"] is False


def test_it_meets_pod_securitys_restricted_level():
    document = job(runtime={"command": ["train"]})
    pod = pod_of(document)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in (*pod["containers"], *pod["initContainers"]):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["readOnlyRootFilesystem"] is True


def test_placement_becomes_limits_and_where_the_pod_may_go():
    placement = {
        "gpusPerNode": 4,
        "cpu": "8",
        "memory": "64Gi",
        "nodeSelector": {"gpu": "h100"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "priorityClassName": "low",
    }
    pod = pod_of(job(placement=placement))
    limits = {"nvidia.com/gpu": 4, "cpu": "8", "memory": "64Gi"}
    assert pod["containers"][0]["resources"] == {"limits": limits, "requests": limits}
    assert pod["nodeSelector"] == {"gpu": "h100"}
    assert pod["tolerations"] == [{"key": "gpu", "operator": "Exists"}]
    assert pod["priorityClassName"] == "low"


def test_a_run_without_gpus_asks_for_none():
    assert trainer_of(job(placement={"gpusPerNode": 0}))["resources"]["limits"] == {}


@pytest.mark.parametrize(
    ("given", "source", "folder"),
    [
        (None, {"emptyDir": {}}, "/storage/"),
        ({"uri": "pvc://shared/teams/web"}, {"persistentVolumeClaim": {"claimName": "shared"}}, "/storage/teams/web/"),
        ({"uri": "s3://bucket/web"}, {"emptyDir": {}}, "s3://bucket/web/"),
        ({"claim": {"size": "1Ti"}}, {"persistentVolumeClaim": {"claimName": "climb-storage-u1"}}, "/storage/"),
    ],
)
def test_storage_is_a_folder_of_the_runs_own_wherever_it_lies(given, source, folder):
    document = job(storage=given) if given else job()
    volume = next(v for v in pod_of(document)["volumes"] if v["name"] == "storage")
    assert {k: v for k, v in volume.items() if k != "name"} == source
    told = environment_of(trainer_of(document))["SCALINGSWEEP_STORAGE"]
    assert told.startswith(folder)
    assert told.removeprefix(folder).startswith("climb-a-")


def test_a_claim_is_the_sweeps_own_only_where_it_shall_go_with_it():
    kept = storage.claim_document(a_sweep(storage={"claim": {"size": "1Ti"}}))
    gone = storage.claim_document(a_sweep(storage={"claim": {"size": "1Ti"}, "whenDeleted": "Delete"}))
    assert "ownerReferences" not in kept["metadata"]
    assert gone["metadata"]["ownerReferences"][0]["kind"] == "ScalingSweep"


def test_a_template_adds_below_what_the_operator_sets():
    template = {
        "metadata": {"annotations": {"team": "web"}, "labels": {"scalingsweep.dev/run": "forged", "own": "x"}},
        "spec": {
            "restartPolicy": "Always",
            "serviceAccountName": "admin",
            "hostname": "trainer",
            "securityContext": {"runAsUser": 1000, "runAsNonRoot": False},
            "containers": [
                {"name": "trainer", "image": "forged", "env": [{"name": "SCALINGSWEEP_SEED", "value": "9"}]},
                {"name": "exporter", "image": "exporter"},
            ],
            "volumes": [{"name": "extra", "emptyDir": {}}],
        },
    }
    document = job(runtime={"podTemplate": template})
    pod, metadata = pod_of(document), document["spec"]["template"]["metadata"]
    assert metadata["annotations"] == {"team": "web"}
    assert metadata["labels"]["own"] == "x"
    assert metadata["labels"]["scalingsweep.dev/run"] != "forged"
    assert pod["restartPolicy"] == "Never"
    assert pod["serviceAccountName"] != "admin"
    assert pod["hostname"] == "trainer"
    assert pod["securityContext"]["runAsUser"] == 1000
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert trainer_of(document)["image"] == "our/trainer"
    assert environment_of(trainer_of(document))["SCALINGSWEEP_SEED"] == "0"
    assert "exporter" in {container["name"] for container in pod["containers"]}
    assert "extra" in {volume["name"] for volume in pod["volumes"]}


def test_merging_keeps_both_sides_of_named_lists_and_lets_the_upper_one_win():
    below = {"a": [{"name": "x", "v": 1, "w": 1}, {"name": "y"}], "b": [1], "c": 1}
    above = {"a": [{"name": "x", "v": 2}], "b": [2]}
    assert merged(below, above) == {"a": [{"name": "x", "v": 2, "w": 1}, {"name": "y"}], "b": [2], "c": 1}


def test_names_of_children_fit_into_a_label_however_long_the_sweeps_is():
    sweep = a_sweep()
    long = sweep.changed(metadata=sweep.metadata.changed(name="a" * 63, uid="u-1"))
    run = a_run(long)
    document = job_document(long, run, 10_000, IMAGES)
    assert len(job_name(run, 10_000)) <= 63
    assert all(len(value) <= 63 for value in document["metadata"]["labels"].values())


def test_the_documents_fields_are_all_known_to_the_api():
    """Every key is one that the official client's model of a Job has, so that nothing is silently dropped."""
    document = job(
        runtime={
            "command": ["train"],
            "envFrom": [{"secret": "s"}, {"configMap": "c"}],
            "imagePullSecrets": ["p"],
            "imagePullPolicy": "Always",
            "sharedMemory": "8Gi",
            "volumes": [
                {"name": "a", "mountPath": "/a", "claimName": "c"},
                {"name": "b", "mountPath": "/b", "configMap": "c", "readOnly": True},
                {"name": "c", "mountPath": "/c", "secret": "c"},
                {"name": "d", "mountPath": "/d", "emptyDirSize": "1Gi"},
            ],
        }
    )
    _known(client.V1Job, document, "job")


def _known(kind, value, where):
    names = {attribute: key for key, attribute in ((k, v) for k, v in kind.attribute_map.items())}
    for key, inner in value.items():
        assert key in names, f"{where}.{key} is no field of {kind.__name__}"
        inner_kind = kind.openapi_types[names[key]]
        item = inner_kind.removeprefix("list[").removesuffix("]")
        model = getattr(client, item, None)
        if model is None:
            continue
        for one in inner if inner_kind.startswith("list[") else [inner]:
            _known(model, one, f"{where}.{key}")


def test_a_further_attempt_gets_what_was_added_meanwhile_on_the_devices_it_was_planned_for():
    sweep = a_sweep(placement={"gpusPerNode": 2, "memory": "64Gi"})
    run = a_run(sweep)
    run = run.changed(
        metadata=run.metadata.changed(uid="r-1"), spec=run.spec.changed(placement=sweep.spec.placement_of("a"))
    )
    more = a_sweep(placement={"gpusPerNode": 8, "memory": "128Gi"})
    limits = trainer_of(job_document(more, run, 2, IMAGES))["resources"]["limits"]
    assert limits == {"nvidia.com/gpu": 2, "memory": "128Gi"}
