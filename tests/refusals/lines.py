"""The line that each kind of bad input is answered with.

STORE and HERE stand for the store's address and the working folder, * for what differs from one machine to the next.

The file is longer than 350 lines because it is a table with a line for each kind.
"""

LINES = {
    "command line: an unknown command": (
        "error: argument COMMAND: invalid choice: 'stduy' (choose from *); see `opd --help`"
    ),
    "command line: a control character in a name": (
        "error: unknown table 'ro\\x1b[2Jt'; known: training, positions, sync, timing, evaluation, "
        "update_support, rotation, singular_shift, spectral_drift, localization, update_norm, "
        "update_spectrum, hill, locking, nulls, monitor, verdicts, means, scaling, bench, regime, "
        "transfer, predictions"
    ),
    "command line: an unknown table": (
        "error: unknown table 'rotations'; known: training, positions, sync, timing, evaluation, "
        "update_support, rotation, singular_shift, spectral_drift, localization, update_norm, "
        "update_spectrum, hill, locking, nulls, monitor, verdicts, means, scaling, bench, regime, "
        "transfer, predictions; did you mean 'rotation'?"
    ),
    "command line: no base": "error: no base; give --base REF, or a --trajectory PREFIX that holds step 0",
    "command line: no snapshot": (
        "error: no snapshots to measure; give at least one --snapshot STEP=REF, or --trajectory PREFIX"
    ),
    "command line: a snapshot without its step": (
        "error: --snapshot 'HERE/one' is not STEP=REF, such as 100=./step-100"
    ),
    "command line: an empty address": (
        "error: argument --trajectory: the address '' is empty; name a folder or a URI, or leave it out; see "
        "`opd measure --help`"
    ),
    "command line: a snapshot with an empty address": (
        "error: --snapshot '5=' is not STEP=REF (its address is empty), such as 100=./step-100"
    ),
    "command line: the base as a snapshot": (
        "error: step 0 is not a whole number from 1 up; step 0 is the base itself"
    ),
    "command line: a step given twice": "error: step 1 is given 2 times; give each step one checkpoint",
    "command line: two ways to name snapshots": (
        "error: argument --trajectory: not allowed with argument --snapshot; see `opd measure --help`"
    ),
    "command line: a rank of 0": "error: --k '0' is not a list of positive ranks, such as 16,64",
    "command line: an unknown role": (
        "error: --roles names 'K'; known: q, k, v, o, gate, up, down, embed, head, norm, bias, other"
    ),
    "command line: an unknown diagnostic": (
        "error: --diagnostics names 'rotations'; known: update_support, rotation, singular_shift, "
        "spectral_drift, localization, update_norm, update_spectrum, hill, locking, nulls"
    ),
    "command line: a name that leaves its folder": (
        "error: name '../x' does not fit: use up to 100 of a-z, 0-9, dot, underscore and hyphen"
    ),
    "command line: a negative number of workers": (
        "error: --workers -1 is negative; give a number of processes, or 0 for this one alone"
    ),
    "command line: an option without the one it goes with": (
        "error: --until goes with --watch; add --watch, or leave it out"
    ),
    "command line: an interval that is NaN": "error: --interval nan is not a number of seconds above 0",
    "study: an unknown study": "error: unknown study 'tyni'; a file of your own is ./FILE.py, or in OPD_STUDIES; "
    "known: tiny, smollm, qwen3-8b; did you mean 'tiny'?",
    "study: an unknown suite": (
        "error: study tiny has no suite 'extra'; it has: core, objectives, interventions, controls, steering, scaling"
    ),
    "study: an unknown recipe": (
        "error: suite core of study tiny has no recipe 'tiny.odp'; it has: tiny.sft, tiny.opd, tiny.rlvr, "
        "tiny.sft-matched; did you mean 'tiny.opd'?"
    ),
    "study: a seed that the study has not": "error: study tiny has no seed 7; it has: 0, 1, 2",
    "study: a seed that is no number": "error: argument --seed: invalid int value: 'one'; see `opd study run --help`",
    "study: a report of nothing": "error: STORE holds no measured run of study smollm: run `opd study run smollm`",
    "store: nothing is there": "error: memory://nothing holds nothing; check its address, or OPD_STORE",
    "store: an unknown scheme": (
        "error: zzz://bucket is no address of a store (Protocol not known: zzz); use file://, memory:// or s3://"
    ),
    "store: credentials in the address": (
        "error: an s3:// address with credentials in it is not taken: give s3://BUCKET/PREFIX, and the "
        "keys in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or in the AWS credentials file"
    ),
    "store: an address with one slash": (
        "error: the address s3:/bucket/run has one slash after s3:, and would be a folder here; write two"
    ),
    "store: a control character in the address": (
        "error: the address 'memory://a\\x00b' has control characters; write it without"
    ),
    "store: a chain of file systems": (
        "error: simplecache::memory://x is no address of a store (*); use file://, memory:// or s3://"
    ),
    "store: a protocol that is not installed": (
        "error: abfs://x is no address of a store (*); use file://, memory:// or s3://"
    ),
    "store: a store that cannot be written": (
        "error: store file://HERE/one/config.json/store cannot be written (Not a directory); set OPD_STORE, "
        "or --out where it was given, to one that can"
    ),
    "monitor: no such run": "error: STORE holds no run 'tiny.nobody'; it has: external.mine, tiny.opd, tiny.rlvr",
    "monitor: no such reference": (
        "error: STORE holds no reference run 'tiny.nobody'; it has: external.mine, tiny.opd, tiny.rlvr"
    ),
    "monitor: too few references": (
        "error: a band needs two complete reference runs or more of tiny.opd, and there are: tiny.opd seed 0; "
        "train more seeds, or name more references"
    ),
    "monitor: a reference that leaves the store": (
        "error: STORE holds no reference run '../../x'; it has: external.mine, tiny.opd, tiny.rlvr"
    ),
    "monitor: an unknown quantity": (
        "error: --quantity names 'rank'; known: stable_rank, stable_rank_ratio, similarity_previous, "
        "relative_norm, similarity_projected"
    ),
    "monitor: an option without the one it goes with": (
        "error: --base goes with --trajectory; add --trajectory, or leave --base out"
    ),
    "regime: a run that is not measured": "error: STORE holds no run 'tiny.nobody'; it has: external.mine",
    "export: a folder that holds something": (
        "error: HERE/one is there and no empty folder; name one that is absent or empty"
    ),
    "export: a folder that is an address": (
        "error: 's3://bucket/x' is no local folder; export there, and copy the folder where it is wanted"
    ),
    "export: a step that is no step": "error: STEP 'seven' is no step; write a number, or last",
    "export: a step that has no snapshot": (
        "error: runs/tiny.opd/seed-0 has no snapshot of step 5; it has those of steps 0, 1, 3, 7"
    ),
    "export: a run that leaves the store": (
        "error: recipe '..' is no name: leave out /, \\, .., and control characters"
    ),
    "export: a run that is not there": (
        "error: STORE holds no run 'tiny.nobody'; it has: external.mine, tiny.opd, tiny.rlvr"
    ),
    "export: two things at once": (
        "error: --to copies a whole run; leave STEP, DIR and --dtype out, or leave --to out"
    ),
    "export: a store to itself": "error: STORE is both source and target; name another store",
    "gc: an age in words": "error: --age 5days is no duration; write 30m, 24h or 7d",
    "gc: an unknown policy": "error: resume policy 'everything' is unknown; use one of finished, all, keep",
    "verify: a sample of nothing": (
        "error: --sample 0 is neither a number of objects nor a share; write 50, 0.1 or 10%"
    ),
    "verify: a seed without a sample": "error: --sample-seed 3 goes with --sample; add --sample, or leave it out",
    "verify: a run without its seed": "error: --run tiny.opd names no seed; write RECIPE/SEED, as in tiny.opd/0",
    "recipe: a recipe's name that leaves its folder": (
        "recipe '../../x.opd' cannot name a folder: use up to 200 letters, digits, ., _, + and -, and "
        "begin with a letter or digit"
    ),
    "recipe: a start that leaves the store": (
        "start.recipe '../../x' names no recipe: use up to 200 letters, digits, ., _, + and -, and begin "
        "with a letter or digit"
    ),
    "recipe: a basis of a recipe with a control character": (
        "basis.recipe 'a\\nb' names no recipe: use up to 200 letters, digits, ., _, + and -, and begin "
        "with a letter or digit"
    ),
    "recipe: a learning rate that is NaN": "optimizer.learning_rate is a number above 0, got nan",
    "recipe: a run of no steps": "horizon.steps and resume_every are at least 1, got 0 and 25",
    "recipe: a snapshot after the end": "horizon.snapshots are steps from 1 to 5, got 9",
    "recipe: an evaluation of nothing": "evaluation.problems is at least 1, got 0",
    "recipe: a sampling temperature that is NaN": "the sampling temperature is not negative, got nan",
    "recipe: an estimator that has no gradient": (
        "estimator 'k1' is refused: back-propagating log s - log T has a zero expected gradient, the "
        "teacher cancels: use policy-gradient"
    ),
    "recipe: an unknown estimator": (
        "unknown estimator 'k4'; known: full, policy-gradient, k2, teacher-top-k, student-top-k"
    ),
    "recipe: a divergence without its parameter": "beta belongs to jsd and lies in (0, 1), got None with 'jsd'",
    "recipe: groups of one sample": (
        "recipe mini.rlvr is refused: a group of one sample has no advantage: draw rollout.samples >= 2"
    ),
    "recipe: a constraint of rank 0": "constraint.rank is at least 1, got 0",
    "recipe: a basis file that is not there": (
        "the constraint's file nowhere.safetensors does not exist; name one with orthonormal columns"
    ),
    "recipe: a basis of too large a rank": (
        "constraint.rank 21 is more than model.layers.0.self_attn.q_proj.weight of shape (24, 20) has; "
        "choose 20 at most"
    ),
    "recipe: no workers": "resources.workers is at least 1, got 0",
    "recipe: workers with half a GPU each": (
        "resources.gpus is of each of the 2 workers, and one works on one GPU or on none: got 0.5, set 1 or 0"
    ),
    "recipe: workers that sleep": (
        "resources.sleep is for a trainer that shares its one GPU, and there are 2 workers with one each: leave it "
        "out, or set workers=1"
    ),
    "recipe: workers and a constraint": (
        "recipe mini.opd is refused: a constraint projects whole matrices, and resources.workers=2 splits their rows: "
        "set workers=1"
    ),
    "recipe: workers and a reaction": (
        "recipe mini.opd is refused: a reaction watches whole matrices, and resources.workers=2 splits their rows: "
        "set workers=1"
    ),
    "recipe: workers in one process": (
        "mini.pre has resources.workers=2, which are processes on Ray, and is asked to train in this one: leave out "
        "serial, or set workers=1"
    ),
    "recipe: an unknown task": (
        "unknown task 'chainz'; known: chains, jsonl, reasoning, sums; OPD_TASKS=./FILE.py adds your own"
    ),
    "recipe: an unknown option of a task": "task chains has no option operation; it has operations, tag",
    "recipe: examples that are not JSON": (
        "HERE/bad/x.jsonl line 1 is not JSON: *; write one JSON object a line; it reads "
        "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[..."
    ),
    "recipe: a recipe that changed under its name": (
        'runs/tiny.opd/seed-0 holds a run of another recipe (start.kind: "fresh" -> "final"); restore '
        "the recipe, give the arm a new name, or move the stored run aside: opd rm tiny.opd/0"
    ),
    "recipe: an overtime that is neither": "task.overtime is wrong or fail, got 'skip'",
    "recipe: special tokens past the vocabulary": (
        "the task's eos token 2 is past the architecture's vocab_size of 2: raise start.architecture.vocab_size"
    ),
    "rm: nobody can answer": "error: move it aside? Nobody can answer here: add --yes",
    "rm: nobody can answer for a deletion": "error: delete for good? Nobody can answer here: add --yes",
    "rm: a run that is not there": (
        "error: STORE holds no run 'tiny.nobody'; it has: external.mine, tiny.opd, tiny.rlvr"
    ),
    "rm: a seed that is not there": "error: STORE holds no run tiny.opd seed 3; it has seed 0",
    "rm: a recipe of which nothing is there": (
        "error: STORE holds no run 'tiny.nobody'; it has: external.mine, tiny.opd, tiny.rlvr"
    ),
    "rm: a run that was not moved aside": (
        "error: STORE holds no run tiny.opd seed 0 that was moved aside; it has: none"
    ),
    "rm: an option without a run": ("error: --undo and --delete go with a run; write opd rm RECIPE/SEED --undo"),
    "rm: a number below 1": (
        "error: argument --undo: '0' is no number of a run that was moved aside; they start at 1; see `opd rm --help`"
    ),
    "rm: a number below 1 for a deletion": (
        "error: argument --delete: '-1' is no number of a run that was moved aside; they start at 1; see "
        "`opd rm --help`"
    ),
    "rm: a run that leaves the store": "error: recipe '..' is no name: leave out /, \\, .., and control characters",
    "rm: a name that is taken again": (
        "error: STORE holds another run tiny.opd seed 0 by now; move it aside first: opd rm tiny.opd/0, and then "
        "opd rm tiny.opd/0 --undo 1"
    ),
    "study: an arm to replace that the study has not": (
        "error: study smollm has no arm 'odp'; it has: sft, opd, rlvr, *"
    ),
    "manifest: a flipped bit": (
        "error: runs/tiny.opd/seed-0/step-00000007/manifest.json is not what was written there; bring it "
        "back from a copy (opd import), or make the run again in another OPD_STORE"
    ),
    "manifest: cut short": (
        "error: runs/tiny.opd/seed-0/step-00000007/manifest.json is not JSON (*); bring it back from a "
        "copy (opd import), or make the run again in another OPD_STORE"
    ),
    "manifest: a newer layout": (
        "error: runs/tiny.opd/seed-0/step-00000007/manifest.json has layout 4; this version reads layouts "
        "1 to 3: read it with the version of this project that wrote it, or with a later one"
    ),
    "manifest: an older layout": (
        "error: runs/tiny.opd/seed-0/step-00000007/manifest.json has layout 0; this version reads layouts "
        "1 to 3: read it with the version of this project that wrote it, or with a later one"
    ),
    "manifest: no layout": (
        "error: runs/tiny.opd/seed-0/step-00000007/manifest.json has layout None; this version reads "
        "layouts 1 to 3: read it with the version of this project that wrote it, or with a later one"
    ),
    "manifest: a file that leads away": (
        "error: runs/tiny.opd/seed-0/step-00000007/manifest.json has an impossible file "
        "'../../../../etc/x.safetensors'; bring it back from a copy (opd import), or make the run again in "
        "another OPD_STORE"
    ),
    "manifest: a field that is missing": (
        "error: runs/tiny.opd/seed-0/step-00000007/manifest.json has an unknown field or lacks one: "
        "'tensors'; bring it back from a copy (opd import), or make the run again in another OPD_STORE"
    ),
    "manifest: its own base": (
        "error: runs/tiny.opd/seed-0/step-00000007/manifest.json has an impossible base; bring it back "
        "from a copy (opd import), or make the run again in another OPD_STORE"
    ),
    "snapshot: weights with a flipped bit": (
        "error: runs/tiny.opd/seed-0/step-00000007/master.safetensors: tensor a.weight is a code whose "
        "plane 2 does not decompress (*); bring it back from a copy (opd import), or make the run again in "
        "another OPD_STORE"
    ),
    "snapshot: weights cut short": (
        "error: runs/tiny.opd/seed-0/step-00000007/master.safetensors is truncated: tensor a.weight has "
        "225 of 280 bytes; bring it back from a copy (opd import), or make the run again in another "
        "OPD_STORE"
    ),
    "snapshot: weights that are gone": (
        "error: STORE/runs/tiny.opd/seed-0/step-00000007/master.safetensors does not exist; bring it back "
        "from a copy (opd import), or make the run again in another OPD_STORE"
    ),
    "snapshot: weights of an older step": (
        "error: STORE/runs/tiny.opd/seed-0/step-00000007/master.safetensors is damaged, and the copy ends "
        "before it; see opd verify"
    ),
    "snapshot: its base is gone": (
        "error: runs/tiny.opd/seed-0/step-00000007 is kept beside runs/tiny.opd/seed-0/step-00000000 with "
        "weights *, and that holds nothing: bring it back"
    ),
    "snapshot: other weights of a committed step": (
        "runs/tiny.opd/seed-0/step-00000007 holds other weights (*, now *); the code or the machine "
        "changed: use another OPD_STORE"
    ),
    "run record: run.json with a flipped bit": (
        "error: STORE/runs/tiny.opd/seed-0/run.json is not JSON (*); bring it back from a copy (opd "
        "import), or make the run again in another OPD_STORE"
    ),
    "run record: run.json of a newer layout": (
        "error: runs/tiny.opd/seed-0/run.json has layout 2; this version reads layout 1: read it with the "
        "version of this project that wrote it, or with a later one"
    ),
    "run record: run.json is gone": (
        "error: STORE/runs/tiny.opd/seed-0 holds no run.json, so nothing says what it is; see opd verify"
    ),
    "run record: another run of that name at the target": (
        'error: STORE/runs/tiny.opd/seed-0 holds another run of that name (identity.arm: "tiny.opd" -> "another"; '
        'identity.start: {"kind": "fresh"} -> null); use another store, or move that run aside: opd rm tiny.opd/0 '
        "--out STORE"
    ),
    "run record: end.json nested 10,000 deep": (
        "runs/tiny.opd/seed-0/end.json is not JSON (nested too deep); bring it back from a copy "
        "(opd import), or make the run again in another OPD_STORE"
    ),
    "run record: end.json that names no step": (
        "runs/tiny.opd/seed-0/end.json lacks 'step'; bring it back from a copy (opd import), or make the "
        "run again in another OPD_STORE"
    ),
    "run record: import.json of an older layout": (
        "error: runs/external.mine/seed-0/import.json has layout 1 and this version reads 2; import under "
        "another --name"
    ),
    "run record: import.json that is not JSON": (
        "error: runs/external.mine/seed-0/import.json is not JSON (*); import under another --name"
    ),
    "run record: measured.json of another kind": (
        "runs/tiny.opd/seed-0/measured.json has problems 3, which is no list; delete it, and measure the run again"
    ),
    "run record: a run that starts from itself": (
        "runs/tiny.opd/seed-0/run.json says that it starts from itself; bring it back from a copy (opd "
        "import), or make the run again in another OPD_STORE"
    ),
    "resume state: facts with a flipped bit": (
        "runs/tiny.rlvr/seed-2/resume/step-00000007/facts.json is not what was written there; delete its "
        "folder: the run goes on from an earlier state, or from its start"
    ),
    "resume state: another state beside the facts": (
        "runs/tiny.rlvr/seed-2/resume/step-00000007/state.safetensors is not what was written there; "
        "delete its folder: the run goes on from an earlier state, or from its start"
    ),
    "resume state: moments that were not kept": (
        "runs/tiny.opd/seed-0 kept no optimizer state of step 3: train it with "
        "resources.keep_moments=(3,), from its start, or go on with start.moments='reset'"
    ),
    "table: cut short": (
        "error: STORE/lake/training/recipe=tiny.opd/seed=0/part-0.parquet cannot be read (*); measure the "
        "run again (`opd study run`, `opd measure`), or bring the table back from a copy"
    ),
    "table: other values": (
        "STORE/lake/training/recipe=tiny.opd/seed=0/part-0.parquet cannot be read (*); measure the run "
        "again (`opd study run`, `opd measure`), or bring the table back from a copy"
    ),
    "table: a column of another type": (
        "STORE/lake/training/recipe=tiny.opd/seed=0/part-0.parquet has a column seed of type String, and "
        "Int64 is declared: it is of another version; measure the run again (`opd study run`, `opd measure`), or "
        "bring the table back from a copy"
    ),
    "table: an unknown table": (
        "unknown table 'rotations'; known: training, positions, sync, timing, evaluation, update_support, "
        "rotation, singular_shift, spectral_drift, localization, update_norm, update_spectrum, hill, "
        "locking, nulls, monitor, verdicts, means, scaling, bench, regime, transfer, predictions"
    ),
    "table: an undeclared column": "rows of hill have undeclared columns ['x']",
    "table: rollouts with a flipped bit": (
        "STORE/runs/tiny.opd/seed-0/rollouts/steps-00000001-00000007.parquet cannot be read: *; bring it "
        "back from a copy (opd import), or make the run again in another OPD_STORE"
    ),
    "partition: a recipe that leaves the lake": (
        "recipe '../../x' is no name: leave out /, \\, .., and control characters"
    ),
    "partition: a table without its seed": "table hill is partitioned by ('recipe', 'seed'), got ('recipe',)",
    "name: an object outside the store": (
        "object name '../../etc/passwd' would leave the store STORE; leave out /, \\, . and .."
    ),
    "name: an absolute path": "object name '/etc/x' would leave the store STORE; leave out /, \\, . and ..",
    "name: a backslash": "object name 'a\\\\..\\\\b' would leave the store STORE; leave out /, \\, . and ..",
    "name: a line break": "object name 'a\\nb' has control characters, which no name in a store has",
    "name: NUL": "object name 'a\\x00b' has control characters, which no name in a store has",
    "environment: OPD_STORE with credentials": (
        "error: an s3:// address with credentials in it is not taken: give s3://BUCKET/PREFIX, and the "
        "keys in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or in the AWS credentials file"
    ),
    "environment: OPD_STORE of a server that does not answer": (
        'error: s3://bucket/x: Could not connect to the endpoint URL: "http://* check OPD_STORE '
        "(s3://bucket/x), its address and credentials"
    ),
    "environment: a trajectory of a server that does not answer": (
        'error: s3://other/run: Could not connect to the endpoint URL: "http://* check that address, and the right and '
        "the credentials to use it"
    ),
    "environment: OPD_STORE with two colons in its bucket": (
        "error: an s3:// address has :: in its bucket, which no bucket has in its name; give s3://BUCKET/PREFIX"
    ),
    "environment: OPD_STORE with one slash": (
        "error: the address s3:/bucket/x has one slash after s3:, and would be a folder here; write two"
    ),
    "environment: OPD_STORE with a control character": (
        "error: the address 'HERE/a\\x07b' has control characters; write it without"
    ),
    "environment: OPD_STORE under a file": (
        "error: store file://HERE/one/config.json/store cannot be written (Not a directory); set OPD_STORE, "
        "or --out where it was given, to one that can"
    ),
    "environment: OPD_HOSTS that names no host": (
        "OPD_HOSTS names 'https://a.example', which is no host; give names, as in OPD_HOSTS=a.example,b.example"
    ),
    "environment: HF_HUB_CACHE without the model": (
        "error: base: org/model is neither a folder here nor in the hub cache HERE; fetch it with `hf "
        "download org/model`, or name its folder"
    ),
    "checkpoint: an absent folder": (
        "error: snapshot 5: HERE/gone does not exist; name a Hugging Face folder, a .safetensors file, a "
        "URI of one (s3://...), or ORG/NAME in the local hub cache"
    ),
    "checkpoint: an empty folder": (
        "error: snapshot 5: HERE/bad holds no model.safetensors and no model.safetensors.index.json, and "
        "no other weights; name a folder with model.safetensors, or with shards and their index"
    ),
    "checkpoint: pickled weights": (
        "error: snapshot 5: HERE/bad holds no model.safetensors and no model.safetensors.index.json, but "
        "pickled ones, which are not read; convert them with save_pretrained(FOLDER)"
    ),
    "checkpoint: a pickled file": (
        "error: snapshot 5: HERE/bad/model.pt is pickled, which is not read; convert it with save_pretrained(FOLDER)"
    ),
    "checkpoint: an adapter": (
        "error: snapshot 5: HERE/bad holds no model.safetensors and no model.safetensors.index.json, but "
        "an adapter; merge it into its base and save the whole model"
    ),
    "checkpoint: an adapter under a model's name": (
        "error: snapshot 5: HERE/bad is an adapter; merge it into its base and save the whole model"
    ),
    "checkpoint: a shard that is missing": (
        "error: snapshot 5: HERE/bad/model.safetensors.index.json names the shard 'model-1.safetensors', "
        "which is not in the folder; copy it there"
    ),
    "checkpoint: a shard cut short": (
        "error: snapshot 5: file://HERE/bad/model-0.safetensors is truncated: tensor "
        "model.layers.0.self_attn.q_proj.weight ends at byte 2032 of 1016; copy or convert "
        "model-0.safetensors again"
    ),
    "checkpoint: an index that leads away": (
        "error: snapshot 5: HERE/bad/model.safetensors.index.json names the shard "
        "'../base/model-0.safetensors', which is not in the folder; copy it there"
    ),
    "checkpoint: an index with a line break in it": (
        "error: snapshot 5: HERE/bad/model.safetensors.index.json names the shard 'a\\nb', which is not in "
        "the folder; copy it there"
    ),
    "checkpoint: an index that places a tensor wrongly": (
        "error: snapshot 5: HERE/bad/model-0.safetensors lacks tensor a, which "
        "model.safetensors.index.json places there; copy both again"
    ),
    "checkpoint: an index nested 10,000 deep": (
        "error: snapshot 5: HERE/bad/model.safetensors.index.json is not JSON (nested too deep); copy it again"
    ),
    "checkpoint: an index that is no text": (
        "error: snapshot 5: HERE/bad/model.safetensors.index.json is not JSON ('utf-8' codec can't decode "
        "byte 0xff in position 16: invalid start byte); copy it again"
    ),
    "checkpoint: a header that claims 2^60 bytes": (
        "error: snapshot 5: file://HERE/bad/model.safetensors is not a safetensors file or is truncated: "
        "its header claims 1152921504606846976 of 73 bytes; copy or convert model.safetensors again"
    ),
    "checkpoint: a tensor of 2^63 entries": (
        "error: snapshot 5: file://HERE/bad/model.safetensors is not a safetensors file: tensor a has "
        "offsets 0..4 and shape (9223372036854775808,); copy or convert model.safetensors again"
    ),
    "checkpoint: a negative offset": (
        "error: snapshot 5: file://HERE/bad/model.safetensors is not a safetensors file: tensor a has "
        "offsets -4..0 and shape (1,); copy or convert model.safetensors again"
    ),
    "checkpoint: tensors that overlap": (
        "error: snapshot 5: file://HERE/bad/model.safetensors is not a safetensors file: tensors a and b "
        "overlap; copy or convert model.safetensors again"
    ),
    "checkpoint: a tensor of another length": (
        "error: snapshot 5: file://HERE/bad/model.safetensors is not a safetensors file: tensor a of shape "
        "(1,) and dtype F64 spans 4 bytes; copy or convert model.safetensors again"
    ),
    "checkpoint: a key that stands twice": (
        "error: snapshot 5: file://HERE/bad/model.safetensors is not a safetensors file: the key 'a' "
        "stands twice; copy or convert model.safetensors again"
    ),
    "checkpoint: a tensor's name with a line break": (
        "error: snapshot 5: file://HERE/bad/model.safetensors is not a safetensors file: the tensor name "
        "'a\\nb' is empty, too long or has control characters; copy or convert model.safetensors again"
    ),
    "checkpoint: quantized weights": (
        "error: snapshot 5: tensor model.layers.0.self_attn.q_proj.weight of HERE/bad/model.safetensors is "
        "quantized; save the model in bf16 or fp32"
    ),
    "checkpoint: whole numbers alone": (
        "error: snapshot 5: the files of HERE/bad hold no bf16, fp16, fp32 or fp64 tensor; save the model whole"
    ),
    "checkpoint: a model of another size": (
        "error: tensor model.layers.0.self_attn.q_proj.weight has shape (12, 20) in snapshot 5 (HERE/bad) "
        "and (24, 20) in base (HERE/base); give the base these snapshots were trained from"
    ),
    "checkpoint: a model of another family": (
        "error: nothing is comparable: base (HERE/base) has tensor model.layers.0.self_attn.q_proj.weight "
        "(24, 20) and snapshot 5 (HERE/bad) has h.0.attn.c_attn.weight (4, 4); give the base these "
        "snapshots were trained from"
    ),
    "checkpoint: fused weights without their configuration": (
        "error: fused tensor model.layers.0.self_attn.qkv_proj.weight of snapshot 5 (HERE/bad) cannot be "
        "split: its config has num_attention_heads None; bring the config.json it was saved with"
    ),
    "checkpoint: a weight that stands twice": (
        "error: tensors model.layers.0.mlp.gate_up_proj.weight and model.layers.0.mlp.up_proj.weight of "
        "snapshot 5 (HERE/bad) are both model.layers.0.mlp.up_proj; save the model with one of them"
    ),
    "checkpoint: tokens in another order": (
        "error: tokenizers differ: token 'c' has id 2 in base (HERE/base) and id 1 in snapshot 5 "
        "(HERE/bad); give the base these snapshots were trained from"
    ),
    "checkpoint: a configuration that is not JSON": (
        "error: snapshot 5: HERE/bad/config.json is not JSON (*); copy it again"
    ),
    "checkpoint: a hub name that is not cached": (
        "error: base: org/model is neither a folder here nor in the hub cache HERE/hub; fetch it with `hf "
        "download org/model`, or name its folder"
    ),
    "checkpoint: a folder without steps in its names": (
        "error: HERE holds no checkpoint with its step in its name; understood are step-100, step_100, "
        "checkpoint-100, iter_0000100, global_step100 and 100"
    ),
    "checkpoint: two checkpoints of one step": (
        "error: checkpoint-1 and step-1 under HERE are both of step 1; move one of them away"
    ),
    "checkpoint: another base under a name that is taken": (
        "error: external.mine was imported with the base STORE/ckpt/0 (*), not with file://HERE/one (*), "
        "or that was written again; choose another --name"
    ),
    "checkpoint: a weight that is NaN": "error: model.layers.0.self_attn.q_proj: step 5: 480 non-finite weights",
    "checkpoint: a weight that is infinite": "error: model.layers.0.self_attn.q_proj: step 5: 480 non-finite weights",
    "checkpoint: a configuration of 10^9 layers": (
        "no model could be loaded from HERE/bad: the configuration has num_hidden_layers 1000000000, and "
        "the weights allow 2 at most; bring the config.json they were saved with"
    ),
    "checkpoint: a configuration of a size that no weight has": (
        "no model could be loaded from HERE/bad: the configuration has hidden_size 1000000000, and the "
        "weights allow 24 at most; bring the config.json they were saved with"
    ),
    "checkpoint: code of its own (trust_remote_code)": (
        "no model could be loaded from HERE/bad: its config.json names code of its own (auto_map), which "
        "is never run; save the model in an architecture of transformers"
    ),
    "checkpoint: an unknown architecture": (
        "no model could be loaded from HERE/bad: The checkpoint you are trying to load has model type `nonesuch` *"
    ),
}
