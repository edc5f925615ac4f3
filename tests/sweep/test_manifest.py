"""Every wrong manifest is answered with one sentence that says what is wrong, where, and what would be right."""

import json
import re

import pytest
from local_ladder import MANIFEST

from sweep_operator.manifest import ManifestError, read_documents, read_manifest, read_policy


@pytest.fixture
def refusal(tmp_path):
    """The sentence that a manifest is refused with."""

    def read(text):
        path = tmp_path / "sweep.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(ManifestError) as raised:
            read_manifest(path)
        sentence = str(raised.value)
        assert "\n" not in sentence
        return sentence.replace(f"{path}", "sweep.yaml")

    return read


def replaced(old, new):
    assert old in MANIFEST
    return MANIFEST.replace(old, new, 1)


FIRST = "spec.ladder.rungs[0].runs[0].parameters"
TABLE = {
    "a size with a blank": (replaced("27K", "30 K"), f"{FIRST}: '30 K' is not a size: did you mean 30K?"),
    "a size with a small letter": (replaced("27K", "30m"), f"{FIRST}: '30m' is not a size: did you mean 30M?"),
    "a size in G": (replaced("27K", "7G"), f"{FIRST}: '7G' is not a size: did you mean 7B?"),
    "a binary size": (replaced("27K", "7Gi"), f"{FIRST}: '7Gi' is not a size: did you mean 7B?"),
    "a size out of range": (replaced("27K", "'1e400'"), f"{FIRST}: '1e400' is not a size"),
    "an infinite size": (replaced("27K", "1e400"), f"{FIRST}: inf is not a size"),
    "a size that is no number": (replaced("27K", ".nan"), f"{FIRST}: nan is not a size"),
    "a negative size": (replaced("27K", "-5"), f"{FIRST}: -5 is not a size: it must be greater than zero"),
    "a size in words": (
        replaced("27K", "many"),
        f"{FIRST}: 'many' is not a size; write a whole number or a string like",
    ),
    "a size that is a list": (replaced("27K", "[1]"), f"{FIRST}: a size is a whole number or a string like"),
    "a broken size": (replaced("27K", "2.5"), f"{FIRST}: 2.5 is not a whole number"),
    "an unknown field": (
        replaced("gate: {", "gates: {"),
        "spec.gates: there is no such field; did you mean gate?",
    ),
    "an unknown field within": (
        replaced("warmupRungs", "warmUpRungs"),
        "spec.gate.warmUpRungs: there is no such field; did you mean warmupRungs?",
    ),
    "an unknown field in a list": (
        replaced("seeds: [0, 1]", "seed: [0, 1]"),
        "spec.ladder.rungs[0].runs[0].seed: there is no such field; did you mean seeds?",
    ),
    "a snake_case field": (
        replaced("warmupRungs", "warmup_rungs"),
        "spec.gate.warmup_rungs: there is no such field; did you mean warmupRungs?",
    ),
    "a missing field": (replaced("  target: {parameters: 170K, tokens: 3.4M}\n", ""), "spec.target: is missing"),
    "a text for a number": (
        replaced("tolerance: 0.03", "tolerance: high"),
        "spec.gate.tolerance: 'high' is not taken; it must be a number",
    ),
    "a number in quotes": (
        replaced("tolerance: 0.03", "tolerance: '0.03'"),
        "spec.gate.tolerance: '0.03' is not taken; it must be a number",
    ),
    "a number for a text": (replaced("name: tiny", "name: 7"), "metadata.name: 7 is not taken; it must be a text"),
    "a text for a truth": (
        replaced("spec:\n", "spec:\n  suspend: 'yes'\n"),
        "spec.suspend: 'yes' is not taken; it must be true or false",
    ),
    "a mapping for a list": (
        replaced("seeds: [0, 1]", "seeds: {a: 1}"),
        "spec.ladder.rungs[0].runs[0].seeds: a mapping is not taken; it must be a list",
    ),
    "a number out of bounds": (
        replaced("warmupRungs: 3", "warmupRungs: 9"),
        "spec.gate.warmupRungs: 9 is not taken; it must be at most 8",
    ),
    "an unknown word": (
        replaced("tokens: 3.4M", "tokens: 3.4M, launch: automatic"),
        "spec.target.launch: 'automatic' is not one of Never, Approval or Automatic; did you mean Automatic?",
    ),
    "an invalid name": (replaced("name: tiny", "name: My Sweep"), "metadata.name: 'My Sweep' is not taken; use lower"),
    "sizes that do not increase": (
        replaced("44K", "20K"),
        "spec.ladder: rung 'b' (20K) is not larger than the one before it (27K); sizes must increase",
    ),
    "two rungs of one name": (
        replaced("name: b", "name: a"),
        "spec.ladder: two rungs are named 'a'; every rung needs a name of its own",
    ),
    "ratios that do not increase": (
        replaced("[10, 20]", "[20, 10]"),
        "spec.ladder.rungs[0].runs[0].tokensPerParameter: the values must increase",
    ),
    "both forms of a ladder": (
        replaced("  ladder:\n", "  ladder:\n    generate: {from: 1M, to: 2M, rungs: 3, tokensPerParameter: [10]}\n"),
        "spec.ladder: name exactly one of rungs and generate",
    ),
    "no data": (replaced("files: [text.txt]", ""), "spec.training.data: name exactly one of corpus, files and sources"),
    "a key twice": (
        replaced("metadata: {name: tiny}", "metadata: {name: tiny}\nmetadata: {name: other}"),
        "line 4: the key 'metadata' stands there twice; keep one of them",
    ),
    "no YAML": ("a: [1\nb: }", "line 2: not YAML"),
    "a tab": ("a:\n\tb: 1", "line 2: not YAML"),
    "bytes": (b"\x00\xff\xfe", "is not a text file (UTF-8)"),
    "a control character": ("a: \x07", "not YAML"),
    "nothing": ("", "is empty; it should hold one ScalingSweep"),
    "a list": ("- 1\n", "document 1 is a list; a manifest is a mapping with apiVersion, kind and spec"),
    "a word": ("hello\n", "document 1 is a text; a manifest is a mapping"),
    "a number as a key": ("1: a\n", "the key 1 is a number; keys are texts, put it in quotes"),
    "another kind": (
        MANIFEST + "---\napiVersion: v1\nkind: ConfigMap\n",
        "document 2 is a ConfigMap; this command takes one ScalingSweep and nothing else",
    ),
    "two sweeps": (MANIFEST + "---\n" + MANIFEST, "holds 2 ScalingSweeps; one at a time, in a file of its own each"),
    "another version": (
        replaced("v1alpha1", "v2"),
        "apiVersion is 'scalingsweep.dev/v2'; this version reads scalingsweep.dev/v1alpha1",
    ),
    "no kind": ("a: 1", "has no kind; it should say apiVersion: scalingsweep.dev/v1alpha1 and kind: ScalingSweep"),
    "aliases that multiply": (
        "a: &a [1,1,1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"
        "d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e]\n",
        "more than 100,000 values; that is no manifest",
    ),
    "a loop": ("a: &a [*a]\n", "nested too deeply to be a manifest"),
}


@pytest.mark.parametrize("case", TABLE)
def test_a_wrong_manifest_is_answered_in_one_sentence(case, refusal):
    text, sentence = TABLE[case]
    assert sentence in refusal(text)


def test_the_other_faults_are_counted_and_listed(tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text(replaced("27K", "30 K").replace("warmupRungs: 3", "warmupRungs: 9"))
    with pytest.raises(ManifestError, match=re.escape("(and 1 more)")) as raised:
        read_manifest(path)
    assert len(raised.value.faults) == 2


@pytest.mark.parametrize("written", ["27000", "27K", "'27000'", "2.7e4", "'2.7e4'", "0.027M"])
def test_a_size_means_the_same_however_it_is_written(written, tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text(replaced("27K", written))
    assert read_manifest(path).sweep.spec.ladder.rungs[0].runs[0].parameters == 27_000


def test_an_exponent_without_a_point_is_a_number_as_in_yaml_1_2(tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text(MANIFEST.replace("  training:", "  budget: {flops: 1e21}\n  training:"))
    assert read_manifest(path).sweep.spec.budget.flops == 10**21


def test_json_is_read_as_well(tmp_path):
    yaml, path = tmp_path / "sweep.yaml", tmp_path / "sweep.json"
    yaml.write_text(MANIFEST)
    path.write_text(json.dumps(next(iter(read_documents(yaml)))))
    assert read_manifest(path).sweep == read_manifest(yaml).sweep


def test_what_a_server_sets_and_the_status_are_not_taken_from_the_file(tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text(
        replaced("{name: tiny}", "{name: tiny, uid: x, generation: 9, managedFields: [], labels: {a: b}}")
        + "status: {phase: Succeeded, unheard: of}\n"
    )
    manifest = read_manifest(path)
    assert manifest.sweep.metadata.uid == ""
    assert manifest.sweep.metadata.generation == 1
    assert manifest.sweep.metadata.labels == {"a": "b"}
    assert manifest.sweep.status.phase == "Pending"


def test_a_date_in_an_annotation_stays_a_text(tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text(replaced("{name: tiny}", "{name: tiny, annotations: {since: 2026-01-02}}"))
    assert read_manifest(path).sweep.metadata.annotations == {"since": "2026-01-02"}


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ManifestError, match="there is no such file"):
        read_manifest(tmp_path / "none.yaml")
    with pytest.raises(ManifestError, match="is a folder; name the manifest's file"):
        read_manifest(tmp_path)


def test_a_policy_is_read_with_the_same_sentences(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text("maxTolerance: 0.02\n")
    assert read_policy(path).max_tolerance == 0.02
    assert read_policy(None).max_tolerance is None
    path.write_text("maxTolerances: 0.02\n")
    with pytest.raises(ManifestError, match=r"maxTolerances: there is no such field; did you mean maxTolerance\?"):
        read_policy(path)
