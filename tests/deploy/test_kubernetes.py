"""The manifests without a cluster: their schemas, their images and versions, and that they agree with each other."""

import json
import re

import jsonschema
import pytest
import yaml

from tests.deploy.conftest import DEPLOY, documents
from tests.deploy.schemas import MANIFESTS, VALUES

FOLDER = DEPLOY / "kubernetes"
FILES = sorted(path.name for path in FOLDER.glob("*.yaml") if path.name != "dagster-values.yaml")
EVERY = [(name, number) for name in FILES for number in range(len(documents(f"kubernetes/{name}")))]


def named(kind: str, name: str | None = None) -> dict:
    """The manifest of this kind (and name)."""
    found = [one for file, number in EVERY if (one := documents(f"kubernetes/{file}")[number])["kind"] == kind]
    return next(one for one in found if name in (None, one["metadata"].get("name")))


def clusters() -> dict[str, dict]:
    return {"standing": named("RayCluster")["spec"], "job": named("RayJob")["spec"]["rayClusterSpec"]}


def pods(cluster: dict) -> dict[str, dict]:
    """Pod specifications by group; the head's is `head`."""
    found = {"head": cluster["headGroupSpec"]["template"]["spec"]}
    return found | {group["groupName"]: group["template"]["spec"] for group in cluster["workerGroupSpecs"]}


@pytest.fixture(scope="module")
def values() -> dict:
    return documents("kubernetes/dagster-values.yaml")[0]


@pytest.mark.parametrize(("file", "number"), EVERY)
def test_a_manifest_has_the_shape_of_its_kind(file, number):
    manifest = documents(f"kubernetes/{file}")[number]
    jsonschema.validate(manifest, MANIFESTS[manifest["kind"]], cls=jsonschema.Draft202012Validator)


@pytest.mark.parametrize("slip", ["minReplica", "rayStartParam", "Template"])
def test_a_slip_of_the_hand_is_refused(slip):
    manifest = named("RayCluster")
    manifest["spec"]["workerGroupSpecs"][0][slip] = 1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(manifest, MANIFESTS["RayCluster"], cls=jsonschema.Draft202012Validator)


def test_numbers_of_ray_start_are_text():
    manifest = named("RayCluster")
    manifest["spec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(manifest, MANIFESTS["RayCluster"], cls=jsonschema.Draft202012Validator)


def test_everything_standing_is_applied_and_the_job_is_not():
    listed = named_file("kustomization.yaml")["resources"]
    assert sorted(listed) == sorted(set(FILES) - {"kustomization.yaml", "rayjob.yaml"})
    spaces = {one["metadata"].get("namespace") for file in listed for one in documents(f"kubernetes/{file}")[0:]}
    assert spaces == {None, "opd"}


def named_file(name: str) -> dict:
    return documents(f"kubernetes/{name}")[0]


@pytest.mark.parametrize("which", ["standing", "job"])
def test_a_cluster_is_of_the_pinned_ray_and_of_our_images(which, pins):
    cluster = clusters()[which]
    assert cluster["rayVersion"] == pins["ray"]
    images = {group: pod["containers"][0]["image"] for group, pod in pods(cluster).items()}
    tags = {"head": "cpu", "cpu": "cpu", "gpu": "gpu", "vllm": "vllm"}
    assert images == {group: f"opd-geometry:{pins['opd-geometry']}-{tag}" for group, tag in tags.items()}


@pytest.mark.parametrize("which", ["standing", "job"])
def test_a_cluster_scales_to_no_gpus_and_its_head_runs_nothing(which):
    cluster = clusters()[which]
    groups = {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
    assert cluster["enableInTreeAutoscaling"] and cluster["autoscalerOptions"]["version"] == "v2"
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for name, group in groups.items():
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"], name
        asks = pods(cluster)[name]["containers"][0]["resources"]
        assert ("nvidia.com/gpu" in asks["limits"]) == (name in ("gpu", "vllm")), name
        assert asks["limits"].get("nvidia.com/gpu") == asks["requests"].get("nvidia.com/gpu")
        assert asks["limits"]["memory"] == asks["requests"]["memory"]
    assert groups["gpu"]["minReplicas"] == groups["vllm"]["minReplicas"] == 0
    assert all(any(t["key"] == "nvidia.com/gpu" for t in pods(cluster)[n]["tolerations"]) for n in ("gpu", "vllm"))


@pytest.mark.parametrize("which", ["standing", "job"])
def test_runs_find_their_place_on_the_nodes_without_gpus(which):
    launched = documents("dagster.yaml")[0]["run_launcher"]["config"]["ray"]["resources"]
    places = {}
    for group in clusters()[which]["workerGroupSpecs"]:
        given = group["rayStartParams"].get("resources")
        # The value is pasted into a shell command: quotes for the shell around JSON.
        places[group["groupName"]] = json.loads(re.fullmatch('"(.*)"', given)[1].replace('\\"', '"')) if given else {}
    assert list(launched) == ["run_worker"]
    assert [name for name, given in places.items() if "run_worker" in given] == ["cpu"]
    asked = json.loads(named("RayJob")["spec"]["entrypointResources"])
    assert set(asked) == {"run_worker"}


def test_as_many_runs_are_launched_as_the_standing_cluster_can_hold():
    group = next(g for g in clusters()["standing"]["workerGroupSpecs"] if g["groupName"] == "cpu")
    each = int(re.search(r"run_worker\D+(\d+)", group["rayStartParams"]["resources"])[1])
    assert int(named("ConfigMap")["data"]["OPD_CONCURRENT_RUNS"]) == each * group["maxReplicas"]


@pytest.mark.parametrize("which", ["standing", "job"])
def test_pods_run_as_nobody_special_and_take_their_secrets_by_reference(which):
    for name, pod in pods(clusters()[which]).items():
        (container,) = pod["containers"]
        assert pod["securityContext"]["runAsNonRoot"] is True and pod["securityContext"]["runAsUser"] > 0, name
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        sources = [source for given in container["envFrom"] for source in given.items()]
        assert sources == [("configMapRef", {"name": "opd-settings"}), ("secretRef", {"name": "opd-secrets"})]
        assert pod["serviceAccountName"] == ("opd-ray-head" if name == "head" else "opd-worker")


def test_no_file_holds_a_secret():
    assert not [one for file, number in EVERY if (one := documents(f"kubernetes/{file}")[number])["kind"] == "Secret"]
    settings = named("ConfigMap")["data"]
    assert not [name for name in settings if re.search("PASSWORD|SECRET|TOKEN|ACCESS_KEY", name)]
    text = (FOLDER / "dagster-values.yaml").read_text()
    assert not re.search(r"^\s*(postgresqlPassword|password)\s*:", text, re.M)


def test_rights_are_those_of_the_autoscaler_in_one_namespace():
    role, binding = named("Role"), named("RoleBinding")
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert [subject["name"] for subject in binding["subjects"]] == ["opd-ray-head"]
    verbs = {
        (group, what): set(rule["verbs"])
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for what in rule["resources"]
    }
    assert set(verbs) == {("", "pods"), ("ray.io", "rayclusters")}
    assert not any("*" in given or "create" in given for given in verbs.values())
    assert named("ServiceAccount", "opd-worker")["automountServiceAccountToken"] is False
    assert {"ClusterRole", "ClusterRoleBinding"}.isdisjoint(documents("kubernetes/rbac.yaml")[0])


def test_settings_say_what_dagster_and_the_store_ask_for(values):
    settings, text = named("ConfigMap")["data"], (DEPLOY / "dagster.yaml").read_text()
    # The chart has an instance of its own, which ours must not hide.
    assert "DAGSTER_HOME" not in settings
    secret = {"DAGSTER_PG_PASSWORD"}
    assert set(re.findall(r"\{env: (\w+)\}", text)) - set(settings) == secret
    head = f"{named('RayCluster')['metadata']['name']}-head-svc"
    assert settings["OPD_RAY_JOBS"] == f"http://{head}:8265"
    (code,) = values["dagster-user-deployments"]["deployments"]
    assert (settings["OPD_CODE_HOST"], settings["OPD_CODE_PORT"]) == (code["name"], str(code["port"]))
    assert settings["DAGSTER_PG_DB"] == values["postgresql"]["postgresqlDatabase"]
    assert settings["DAGSTER_PG_USERNAME"] == values["postgresql"]["postgresqlUsername"]
    assert settings["DAGSTER_PG_PORT"] == str(values["postgresql"]["service"]["port"])


def test_helm_values_have_the_shape_of_the_chart_and_its_version(values, pins):
    jsonschema.validate(values, VALUES, cls=jsonschema.Draft202012Validator)
    text = (FOLDER / "dagster-values.yaml").read_text()
    assert f"--version {pins['dagster']} " in text and f"version {pins['dagster']}:" in text
    image = {"repository": "opd-geometry", "tag": f"{pins['opd-geometry']}-cpu", "pullPolicy": "IfNotPresent"}
    (code,) = values["dagster-user-deployments"]["deployments"]
    assert values["dagsterWebserver"]["image"] == values["dagsterDaemon"]["image"] == code["image"] == image


def test_helm_values_are_the_instance_of_dagster_yaml_in_other_words(values):
    instance = documents("dagster.yaml")[0]
    assert values["runLauncher"]["config"]["customRunLauncher"] == instance["run_launcher"]
    logs = values["computeLogManager"]["config"]["s3ComputeLogManager"]
    assert {"bucket": logs["bucket"], "prefix": logs["prefix"], "upload_interval": logs["uploadInterval"]} == (
        instance["compute_logs"]["config"]
    )
    daemon = values["dagsterDaemon"]
    queue = daemon["runCoordinator"]["config"]["queuedRunCoordinator"]
    assert {"max_concurrent_runs": queue["maxConcurrentRuns"]} == instance["run_coordinator"]["config"]
    watch = daemon["runMonitoring"]
    assert watch["startTimeoutSeconds"] == instance["run_monitoring"]["start_timeout_seconds"]
    assert watch["pollIntervalSeconds"] == instance["run_monitoring"]["poll_interval_seconds"]
    assert daemon["runRetries"]["maxRetries"] == instance["run_retries"]["max_retries"]
    assert values["telemetry"] == instance["telemetry"] and values["additionalInstanceConfig"]["nux"] == instance["nux"]


def test_the_jobs_environment_is_yaml_and_leaves_the_database_alone():
    environment = yaml.safe_load(named("RayJob")["spec"]["runtimeEnvYAML"])
    # The image's own DAGSTER_HOME asks for Postgres, which a study without Dagster's services does not have.
    assert environment == {"env_vars": {"DAGSTER_HOME": "/tmp/dagster"}}
    assert named("RayJob")["spec"]["entrypoint"].startswith("opd study run ")
