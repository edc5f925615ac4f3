"""Manifests, and what is said of each: by the API server through kubectl, and by `scalingsweep lint`.

Owns the table alone. `SAME` holds those where both say the same sentence; `APART` those where the API server has words
of its own; `FINE` those that both take; `JUDGED` those that only the operator can refuse, which the API server takes.
"""

from local_ladder import MANIFEST

A_RUN = "{parameters: 27K, tokensPerParameter: [10, 20], seeds: [0, 1]}"


def replaced(old: str, new: str, text: str = MANIFEST) -> str:
    assert old in text, old
    return text.replace(old, new, 1)


def size(written: str) -> str:
    """The target's parameters, written so."""
    return replaced("parameters: 170K", f"parameters: {written}")


def spec(lines: str) -> str:
    """Further lines of the spec."""
    return replaced("spec:\n", "spec:\n" + "".join(f"  {line}\n" for line in lines.splitlines()))


def named(name: str) -> str:
    return replaced("name: tiny", f"name: {name}")


def ladder(lines: str) -> str:
    """Another ladder."""
    start, end = MANIFEST.index("    rungs:\n"), MANIFEST.index("  gate:")
    return MANIFEST[:start] + "".join(f"    {line}\n" for line in lines.splitlines()) + MANIFEST[end:]


def rungs(count: int) -> str:
    """So many rungs, up to thirty-two of them far enough apart."""
    sizes = [round(40_000 * 1.3 ** min(i, 31)) + i for i in range(count)]
    runs = [f"runs: [{{parameters: {size}, tokensPerParameter: [10, 20]}}]" for size in sizes]
    return ladder("rungs:\n" + "\n".join(f"- {{name: r{i}, {each}}}" for i, each in enumerate(runs)))


FINE = {
    "the ladder of the examples": MANIFEST,
    "a size with a suffix": size("1.4M"),
    "a size with a suffix and three digits after the point": size("0.401M"),
    "a size that a double cannot hold exactly": size("1001.001K"),
    "a whole number": size("400000"),
    "a whole number with an exponent": size("4e5"),
    "a text with an exponent": size("'4e5'"),
    "a capital exponent": size("4E5"),
    "a hexadecimal number": size("0x61a80"),
    "a number with underscores": size("400_000"),
    "runs of another context length": replaced(f"[{A_RUN}]", f"[{A_RUN}, {A_RUN[:-1]}, sequenceLength: 64}}]"),
    "tokens to serve": replaced("tokens: 3.4M", "tokens: 3.4M, inferenceTokens: 2T"),
    "a budget beyond 64 bits, in quotes": spec("budget: {flops: '1e22'}"),
    "words of other scripts": spec("retryToken: 'もう一度 — ещё раз ✓'"),
    "a volume of each kind": spec(
        "runtime:\n"
        "  volumes:\n"
        "  - {name: a, mountPath: /a, claimName: corpus}\n"
        "  - {name: b, mountPath: /b, configMap: settings}\n"
        "  - {name: c, mountPath: /c, secret: key, readOnly: true}\n"
        "  - {name: d, mountPath: /d, emptyDirSize: 10Gi}"
    ),
    "a claim that goes with the sweep": spec("storage: {claim: {size: 1Gi}, whenDeleted: Delete}"),
    "storage in a folder of a claim": spec("storage: {uri: 'pvc://shared/teams/..web'}"),
    "storage in a bucket": spec("storage: {uri: 's3://bucket/web-7b'}"),
    "a pod template": spec("runtime: {podTemplate: {spec: {hostAliases: [{ip: 10.0.0.1, hostnames: [a]}]}}}"),
    "thirty-two rungs": replaced("parameters: 170K, tokens: 3.4M", "parameters: 200M, tokens: 4B", rungs(32)),
    "a ladder by rule": ladder("generate: {from: 20K, to: 80K, rungs: 5, tokensPerParameter: [10, 20]}"),
    "an approval": spec("approvals: [{rung: a, verdict: 'sha256:" + 64 * "0" + "'}]"),
}

_LADDER, _PARAMETERS = "spec.ladder", "spec.target.parameters"
SAME = {
    "a size with a small letter": (size("30m"), _PARAMETERS, "'30m' is not a size: did you mean 30M?"),
    "a size in k": (size("27k"), _PARAMETERS, "'27k' is not a size: did you mean 27K?"),
    "a size in G": (size("7G"), _PARAMETERS, "'7G' is not a size: did you mean 7B?"),
    "a binary size": (size("7Gi"), _PARAMETERS, "'7Gi' is not a size: did you mean 7B?"),
    "a size with a blank": (size("30 K"), _PARAMETERS, "'30 K' is not a size: did you mean 30K?"),
    "a size in words": (size("many"), _PARAMETERS, "'many' is not a size; write a whole number or a string like"),
    "a time of day": (size("1:30"), _PARAMETERS, "'1:30' is not a size; write a whole number or a string like"),
    "a negative size": (size("-5"), _PARAMETERS, "-5 is not a size: it must be greater than zero"),
    "a size of zero": (size("0"), _PARAMETERS, "0 is not a size: it must be greater than zero"),
    "a broken size in quotes": (size("'2.5'"), _PARAMETERS, "'2.5' is not a whole number"),
    "a broken size with a suffix": (size("0.0001K"), _PARAMETERS, "'0.0001K' is not a whole number"),
    "both forms of a ladder": (
        replaced("    rungs:", "    generate: {from: 1M, to: 2M, rungs: 3, tokensPerParameter: [10]}\n    rungs:"),
        _LADDER,
        "name exactly one of rungs and generate",
    ),
    "neither form of a ladder": (ladder("rungs: []"), _LADDER, "name exactly one of rungs and generate"),
    "a rung named target": (replaced("name: b", "name: target"), _LADDER, "'target' is the name of the target itself"),
    "two rungs of one name": (replaced("name: b", "name: a"), _LADDER, "every rung needs a name of its own"),
    "sizes that do not increase": (replaced("44K", "20K"), _LADDER, "sizes must increase"),
    "sizes that do not increase, written otherwise": (replaced("44K", "'2.7e4'"), _LADDER, "sizes must increase"),
    "a ladder that shrinks": (
        ladder("generate: {from: 1B, to: 200M, rungs: 3, tokensPerParameter: [10, 20]}"),
        "spec.ladder.generate",
        "the ladder must grow: to",
    ),
    "ratios that do not increase": (
        replaced("[10, 20]", "[20, 10]"),
        "spec.ladder.rungs[0].runs[0].tokensPerParameter",
        "the values must increase",
    ),
    "ratios that do not increase, by rule": (
        ladder("generate: {from: 1M, to: 2M, rungs: 3, tokensPerParameter: [10, 10]}"),
        "spec.ladder.generate.tokensPerParameter",
        "the values must increase",
    ),
    "a variable of the operator's": (
        spec("runtime: {env: [{name: SCALINGSWEEP_RUN, value: mine}]}"),
        "spec.runtime.env[0]",
        "variables that begin with SCALINGSWEEP_ are set by the operator; choose another name",
    ),
    "data from two places": (
        replaced("files: [text.txt]", "files: [text.txt], corpus: Classics"),
        "spec.training.data",
        "name exactly one of corpus, files and sources",
    ),
    "no data": (
        replaced("files: [text.txt]", ""),
        "spec.training.data",
        "name exactly one of corpus, files and sources",
    ),
    "a share of what is not mixed": (
        replaced("files: [text.txt]", "files: [text.txt], validationShare: 0.1"),
        "spec.training.data",
        "validationShare is for sources; of corpus and files, every 40th block is validation",
    ),
    "an environment from nowhere": (
        spec("runtime: {envFrom: [{}]}"),
        "spec.runtime.envFrom[0]",
        "name exactly one of configMap and secret",
    ),
    "an environment from two places": (
        spec("runtime: {envFrom: [{configMap: a, secret: b}]}"),
        "spec.runtime.envFrom[0]",
        "name exactly one of configMap and secret",
    ),
    "a volume of two kinds": (
        spec("runtime: {volumes: [{name: a, mountPath: /a, claimName: b, secret: c}]}"),
        "spec.runtime.volumes[0]",
        "name exactly one of claimName, configMap, secret and emptyDirSize",
    ),
    "two volumes of one name": (
        spec("runtime: {volumes: [{name: a, mountPath: /a, secret: c}, {name: a, mountPath: /b, secret: d}]}"),
        "spec.runtime",
        "two volumes have the same name; every volume needs a name of its own",
    ),
    "two places of storage": (
        spec("storage: {uri: 's3://bucket/a', claim: {size: 1Gi}}"),
        "spec.storage",
        "name exactly one of uri and claim",
    ),
    "a bucket that is to be deleted": (
        spec("storage: {uri: 's3://bucket/a', whenDeleted: Delete}"),
        "spec.storage",
        "whenDeleted: Delete is for the operator's own claim; what uri names is always kept",
    ),
}
"""Name: (manifest, where, sentence)."""

_LONG = "a" * 64
APART = {
    "an exponent beyond 64 bits without quotes": (
        size("1e21"),
        "spec.target.parameters in body must be of type integer",
        'spec.target.parameters: 1e+21 is too large for a bare number on a cluster; put it in quotes: "1e21"',
    ),
    "a whole number beyond 64 bits without quotes": (
        size("9223372036854775808"),
        "spec.target.parameters in body must be of type integer",
        "spec.target.parameters: 9.22337e+18 is too large for a bare number on a cluster",
    ),
    "a broken number": (size("2.5"), "must be of type integer", "2.5 is not a whole number of parameters"),
    "no number": (size(".nan"), "unsupported value: NaN", "nan is not a size"),
    "a size that is a list": (size("[1]"), "must be of type integer,string", "a size is a whole number or a string"),
    "a size that is missing": (size("~"), "spec.target.parameters: Required value", "a size is a whole number or"),
    "an unknown field": (
        replaced("gate: {", "gates: {"),
        'unknown field "spec.gates"',
        "spec.gates: there is no such field; did you mean gate?",
    ),
    "a snake_case field": (
        replaced("warmupRungs", "warmup_rungs"),
        'unknown field "spec.gate.warmup_rungs"',
        "spec.gate.warmup_rungs: there is no such field; did you mean warmupRungs?",
    ),
    "no target": (
        replaced("  target: {parameters: 170K, tokens: 3.4M}\n", ""),
        "spec.target: Required value",
        "spec.target: is missing",
    ),
    "an unknown word": (
        replaced("tokens: 3.4M", "tokens: 3.4M, launch: automatic"),
        'spec.target.launch: Unsupported value: "automatic"',
        "spec.target.launch: 'automatic' is not one of Never, Approval or Automatic; did you mean Automatic?",
    ),
    "a number out of bounds": (
        replaced("warmupRungs: 3", "warmupRungs: 9"),
        "spec.gate.warmupRungs in body should be less than or equal to 8",
        "spec.gate.warmupRungs: 9 is not taken; it must be at most 8",
    ),
    "a truth in quotes": (spec("suspend: 'yes'"), "must be of type boolean", "it must be true or false"),
    "five hundred rungs": (
        rungs(500),
        "spec.ladder.rungs: Too many: 500: must have at most 32 items",
        "spec.ladder.rungs: a list is not taken; it may have at most 32 entries",
    ),
    "sixty-five kinds of runs in a rung": (
        replaced(f"[{A_RUN}]", "[" + ", ".join([A_RUN] * 65) + "]"),
        "spec.ladder.rungs[0].runs: Too many: 65: must have at most 64 items",
        "spec.ladder.rungs[0].runs: a list is not taken; it may have at most 64 entries",
    ),
    "a token of ten kilobytes": (
        spec(f"retryToken: {'x' * 10_000}"),
        "spec.retryToken: Too long: may not be more than 64",
        "spec.retryToken: 'xxxx",
    ),
    "a name that makes no label": (
        named(_LONG),
        "metadata.name may have at most 63 characters: it becomes a label",
        f"metadata.name: '{_LONG[:50]}",
    ),
    "a name in capitals": (named("Tiny"), 'metadata.name: Invalid value: "Tiny"', "metadata.name: 'Tiny' is not taken"),
    "a name of another script": (named("лестница"), "metadata.name: Invalid value", "metadata.name: 'лестница' is not"),
    "a rung's name that overflows": (
        replaced("name: b", "name: thirteen-long"),
        "spec.ladder.rungs[1].name: Too long: may not be more than 12",
        "spec.ladder.rungs[1].name: 'thirteen-long' is not taken; it may have at most 12 characters",
    ),
    "a rung's name with a point": (
        replaced("name: b", "name: '1.4b'"),
        "spec.ladder.rungs[1].name in body should match",
        "spec.ladder.rungs[1].name: '1.4b' is not taken; use lower-case letters, digits and '-'",
    ),
    "a rung's name of another script": (
        replaced("name: b", "name: ступень"),
        "spec.ladder.rungs[1].name in body should match",
        "spec.ladder.rungs[1].name: 'ступень' is not taken",
    ),
    "the memory of a device in letters": (
        replaced("batchTokens: 2048", "batchTokens: 2048\n  placement: {gpuMemory: 80GiB}"),
        "spec.placement.gpuMemory in body should match",
        "spec.placement.gpuMemory: '80GiB' is not taken; write a quantity of memory such as 80Gi",
    ),
    "a seed beyond what a trainer takes": (
        replaced("seeds: [0, 1]", "seeds: [0, 2147483648]"),
        "spec.ladder.rungs[0].runs[0].seeds[1] in body should be less than or equal to 2147483647",
        "spec.ladder.rungs[0].runs[0].seeds[1]: 2147483648 is not taken; it must be at most 2147483647",
    ),
}
"""Name: (manifest, the API server's words, lint's)."""

JUDGED = {
    "a size that no shape comes near": (size("1K"), "InvalidSize: no decoder with a vocabulary of 256 comes near"),
    "a target below the ladder": (size("30K"), "TargetBelowLadder: the target (30K parameters on 3.4M tokens)"),
    "a design that cannot identify its law": (
        MANIFEST.replace("[10, 20]", "[20]").replace("3.4M", "6M"),
        "DesignCannotIdentify: ",
    ),
    "a warm-up too short": (replaced("warmupRungs: 3", "warmupRungs: 0"), "WarmupTooShort: rung 'a' cannot be"),
    "sixty-five runs of a rung by their seeds": (
        replaced(
            f"[{A_RUN}]",
            "["
            + ", ".join(
                f"{{parameters: 27K, tokensPerParameter: [10, 20], "
                f"seeds: [{', '.join(str(16 * k + i) for i in range(13))}]}}"
                for k in range(5)
            )
            + "]",
        ),
        "InvalidSize: rung 'a' has 65 runs; at most 64 are taken",
    ),
    "more records than one object holds": (
        replaced("parameters: 170K, tokens: 3.4M", "parameters: 200M, tokens: 40B", rungs(32)).replace(
            "[10, 20]}", f"[10, 11, 12, 13, 14, 15, 16, 20], seeds: {list(range(9))}}}"
        ),
        "LadderTooLarge: the ladder owes 2,304 records; at most 2,048 are taken",
    ),
    "the same record twice": (
        replaced(f"[{A_RUN}]", f"[{A_RUN}, {{parameters: 27K, tokensPerParameter: [10], learningRateFactor: 2}}]"),
        "DuplicateRuns: rung 'a' trains",
    ),
    "sizes that come out equal": (replaced("44K", "27.01K"), "SizesNotIncreasing: rungs 'a' and 'b' both come out at"),
    "tokens beyond what can be counted": (
        replaced("tokens: 3.4M", "tokens: '1e20'"),
        "InvalidSize: 1e20 tokens are more than can be counted exactly",
    ),
    "a rung with nothing at the target's context": (
        replaced(f"[{A_RUN}]", f"[{A_RUN[:-1]}, sequenceLength: 64}}]"),
        "NothingToJudge: rung 'a' has no run at the target's context of 128 tokens",
    ),
    "a run that its devices cannot hold": (
        replaced("batchTokens: 2048", "batchTokens: 2048\n  placement: {gpuMemory: 1M}"),
        "DoesNotFit: rung 'a': 27,048 parameters need",
    ),
    "storage without a claim": (
        spec("storage: {uri: 'pvc:///web'}"),
        "InvalidStorage: storage.uri pvc:///web names no",
    ),
    "storage in what cannot be a claim": (
        spec("storage: {uri: 'pvc://Our_Claim/web'}"),
        "InvalidStorage: storage.uri pvc://Our_Claim/web names no claim that can be; write pvc://CLAIM/PATH",
    ),
    "storage that leads out of its claim": (
        spec("storage: {uri: 'pvc://shared/../../etc'}"),
        "InvalidStorage: storage.uri pvc://shared/../../etc leads out of its claim",
    ),
    "a recipe that contradicts itself": (
        replaced("batchTokens: 2048", "batchTokens: 2048\n    learningRate: {rule: StepLaw, peak: 0.1}"),
        "spec.training.learningRate: learningRate.rule StepLaw has no use for peak; leave it out or change the rule",
    ),
}
"""Name: (manifest, what lint says: a reason of Accepted=False and its sentence)."""
