"""A store equals what the API server holds, whatever happens to the connection in between."""

import time

import pytest
from partition import Partition

from sweep_operator.clusters.kubernetes.cache import Store
from sweep_operator.clusters.kubernetes.client import Api
from sweep_operator.clusters.kubernetes.errors import NotFound
from sweep_operator.clusters.kubernetes.resources import CONFIG_MAPS, RUN_LABEL, Resource
from sweep_operator.clusters.kubernetes.views import job_view
from sweep_operator.clusters.kubernetes.watch import Watch, WatchTimes

QUICK = WatchTimes(
    server_seconds=(30.0, 40.0), silence_seconds=2.0, first_pause_seconds=0.05, longest_pause_seconds=0.5
)


def until(true, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.02)


@pytest.fixture
def api(control_plane):
    return Api.connect(control_plane.kubeconfig())


@pytest.fixture
def put(api, namespace):
    def create(name, **labels):
        labels = {RUN_LABEL: name} | {k: v for k, v in labels.items() if v}
        return api.create(CONFIG_MAPS.path(namespace), {"metadata": {"name": name, "labels": labels}})

    return create


@pytest.fixture
def watching(api, namespace):
    begun = []

    def watch(by=api, times=QUICK):
        store = Store(job_view)
        one = Watch(by, CONFIG_MAPS, store, namespace, RUN_LABEL, times)
        begun.append(one)
        one.start()
        return store, one

    yield watch
    for one in begun:
        one.stop()
        assert not one._thread.is_alive(), "a stopped watch leaves no thread behind"


def names(store):
    return {one.identity.name for one in store.all()}


def test_what_was_there_and_what_comes_and_goes_is_known(api, namespace, put, watching):
    put("before")
    store, watch = watching()
    assert watch.wait_synced(10)
    assert names(store) == {"before"}
    put("after")
    until(lambda: names(store) == {"before", "after"})
    api.delete(CONFIG_MAPS.path(namespace, "before"))
    until(lambda: names(store) == {"after"})
    assert watch.restarts == 0


def test_what_is_not_labelled_is_never_seen_and_what_loses_its_label_is_forgotten_until_it_has_it_again(
    api, namespace, put, watching
):
    store, _ = watching()
    api.create(CONFIG_MAPS.path(namespace), {"metadata": {"name": "foreign"}})
    put("ours")
    until(lambda: names(store) == {"ours"})
    path = CONFIG_MAPS.path(namespace, "ours")
    api.patch(path, {"metadata": {"labels": {RUN_LABEL: None}}})
    until(lambda: names(store) == set())
    api.patch(path, {"metadata": {"labels": {RUN_LABEL: "ours"}}})
    until(lambda: names(store) == {"ours"})


def test_a_list_of_many_pages_is_whole(api, namespace, put, watching, monkeypatch):
    for number in range(7):
        put(f"one-{number}")
    whole = api.pages
    monkeypatch.setattr(api, "pages", lambda path, selector: whole(path, selector, limit=2))
    store, watch = watching()
    assert watch.wait_synced(10)
    assert len(store) == 7
    assert api.calls["get", "configmaps", "200"] == 4


@pytest.mark.parametrize("trouble", ["hang", "drop"])
def test_a_broken_connection_is_noticed_shown_and_nothing_is_missed(
    control_plane, api, namespace, put, watching, trouble
):
    network = Partition(control_plane.url)
    store, watch = watching(Api.connect(control_plane.kubeconfig(server=network.url)))
    put("a")
    until(lambda: names(store) == {"a"})
    getattr(network, trouble)()
    put("b")
    api.delete(CONFIG_MAPS.path(namespace, "a"))
    until(lambda: watch.trouble != "")
    recovered = []
    watch._on_recovery = lambda: recovered.append(True)
    assert names(store) == {"a"}
    assert watch.stale_seconds > 0
    network.heal()
    until(lambda: names(store) == {"b"})
    assert watch.lists == 1, "the watch goes on where it was; nothing is listed anew"
    until(lambda: watch.trouble == "")
    assert recovered == [True], "what failed meanwhile is to be tried again"
    network.close()


def test_a_silent_server_is_given_up_while_a_quiet_one_is_not(watching, put):
    store, watch = watching(times=WatchTimes((2.0, 2.0), 30.0, 0.05, 0.5))
    assert watch.wait_synced(10)
    until(lambda: watch.restarts >= 2)
    assert (watch.trouble, watch.lists) == ("", 1)
    put("late")
    until(lambda: names(store) == {"late"})


WIDGET = {"apiVersion": "example.com/v1", "kind": "Widget"}
WIDGETS = Resource("example.com/v1", "widgets", "Widget")


def widget_kind():
    names = {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"}
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    version = {"name": "v1", "served": True, "storage": True, "schema": schema}
    spec = {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [version]}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": spec,
    }


def test_a_kind_is_waited_for_and_a_forgotten_version_leads_to_a_new_list(control_plane, api, namespace):
    store = Store(job_view)
    watch = Watch(api, WIDGETS, store, namespace, "", QUICK)
    watch.start()
    until(lambda: watch.restarts >= 2)
    assert not watch.synced
    assert "404" in watch.trouble
    control_plane.apply(widget_kind())
    until(lambda: watch.synced)

    def widget(name):
        return api.create(WIDGETS.path(namespace), {**WIDGET, "metadata": {"name": name}})

    widget("kept")
    until(lambda: names(store) == {"kept"})
    # the server answers 410 to a version older than the kind
    lists, watch._version = watch.lists, "1"
    watch._response.shutdown()
    until(lambda: watch.lists == lists + 1)
    until(lambda: watch.trouble == "")
    assert names(store) == {"kept"}
    # and may say so within the stream
    learn, told = watch._learn, []

    def expire_once(event):
        if not told:
            told.append(event)
            status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
            learn({"type": "ERROR", "object": status})
        learn(event)

    watch._learn = expire_once
    widget("second")
    until(lambda: watch.lists == lists + 2)
    until(lambda: names(store) == {"kept", "second"})
    # a kind that is removed takes its objects with it; applied again it is watched again
    control_plane.kubectl("delete", "crd", "widgets.example.com")
    until(lambda: names(store) == set())
    control_plane.apply(widget_kind())
    control_plane.kubectl("wait", "--for=condition=Established", "crd/widgets.example.com")
    until(lambda: watch.trouble == "")
    widget("third")
    until(lambda: names(store) == {"third"})
    watch.stop()


def test_answers_to_our_own_writes_are_known_at_once_and_never_take_a_store_back_in_time(api, namespace, put):
    store = Store(job_view)
    changes = []
    store.listen(lambda change: changes.append((change.old is not None, change.new is not None)))
    first = put("mine")
    store.put(first)
    second = api.patch(CONFIG_MAPS.path(namespace, "mine"), {"data": {"a": "b"}})
    store.put(second)
    store.put(first)
    assert store.get(namespace, "mine").identity.resource_version == int(second["metadata"]["resourceVersion"])
    assert changes == [(False, True), (True, True)]
    api.delete(CONFIG_MAPS.path(namespace, "mine"))
    with pytest.raises(NotFound):
        api.get(CONFIG_MAPS.path(namespace, "mine"))
    gone = {"metadata": {**second["metadata"], "resourceVersion": str(int(second["metadata"]["resourceVersion"]) + 1)}}
    store.remove(gone)
    store.put(second)
    assert len(store) == 0, "a late answer does not bring back what was deleted"
    again = put("mine")
    store.put(again)
    store.remove(gone)
    assert len(store) == 1, "the end of one object is not the end of its namesake"
    store.keep_only(set(), int(again["metadata"]["resourceVersion"]) - 1, None)
    assert len(store) == 1, "what was learnt of later than the list stays"
    store.keep_only(set(), int(again["metadata"]["resourceVersion"]), "elsewhere")
    assert len(store) == 1, "a list of one namespace says nothing of another"
    store.keep_only(set(), int(again["metadata"]["resourceVersion"]), namespace)
    assert len(store) == 0
