"""Small JSON schemas of what deploy/ uses of Compose, Kubernetes, KubeRay and Dagster's chart.

They are narrower than the originals: a key that is not listed is refused, so a slip of the hand is seen. What is listed
is what these manifests need; whoever uses more, adds it here.
"""

from typing import Any

TEXT = {"type": "string", "minLength": 1}
NAME = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", "maxLength": 63}
WORDS = {"type": "array", "items": {"type": "string"}, "minItems": 1}
SECONDS = {"type": "integer", "minimum": 0}
PORT = {"type": "integer", "minimum": 1, "maximum": 65535}
SWITCH = {"type": "boolean"}
TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
QUANTITY = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(m|Ki|Mi|Gi|Ti)?$"}
DURATION = {"type": "string", "pattern": r"^[0-9]+(ms|s|m|h)$"}


def shape(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    """An object with these keys and no others."""
    properties = required | (optional or {})
    return {
        "type": "object",
        "properties": properties,
        "required": sorted(required),
        "additionalProperties": False,
    }


def listed(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": 1}


# Compose

HEALTH = shape(
    {
        "test": {
            "type": "array",
            "prefixItems": [{"enum": ["CMD", "CMD-SHELL"]}],
            "items": {"type": "string"},
            "minItems": 2,
        },
        "interval": DURATION,
        "timeout": DURATION,
        "retries": {"type": "integer", "minimum": 1},
    },
    {"start_period": DURATION},
)
DEVICE = shape({"driver": TEXT, "count": {"enum": ["all"]}, "capabilities": WORDS})
SERVICE = shape(
    {
        "image": TEXT,
        "environment": {"type": "object", "additionalProperties": {"type": "string"}},
        "healthcheck": HEALTH,
        "restart": {"enum": ["unless-stopped", "always", "on-failure", "no"]},
    },
    {
        "build": shape({"context": TEXT, "dockerfile": TEXT, "target": TEXT, "args": shape({"TORCH_INDEX": TEXT})}),
        "entrypoint": WORDS,
        "command": WORDS,
        "init": SWITCH,
        "shm_size": TEXT,
        "profiles": WORDS,
        "volumes": WORDS,
        "ports": WORDS,
        "depends_on": {
            "type": "object",
            "additionalProperties": shape({"condition": {"enum": ["service_healthy"]}}),
            "minProperties": 1,
        },
        "deploy": shape(
            {},
            {
                "replicas": {"type": ["integer", "string"]},
                "resources": shape({"reservations": shape({"devices": listed(DEVICE)})}),
            },
        ),
    },
)
COMPOSE = {
    "type": "object",
    "properties": {
        "name": NAME,
        "services": {"type": "object", "additionalProperties": SERVICE},
        "volumes": {"type": "object", "additionalProperties": {"type": ["null", "object"]}},
    },
    "patternProperties": {"^x-": {}},
    "required": ["name", "services", "volumes"],
    "additionalProperties": False,
}

# Kubernetes

REFERENCE = shape({"name": NAME})
KEY = shape({"name": NAME, "key": TEXT})
VARIABLE = shape(
    {"name": TEXT}, {"value": {"type": "string"}, "valueFrom": shape({}, {"secretKeyRef": KEY, "configMapKeyRef": KEY})}
)
RESOURCES = shape(
    {},
    {what: {"type": "object", "additionalProperties": QUANTITY} for what in ("requests", "limits")},
)
CONTAINER = shape(
    {"name": NAME, "image": TEXT, "resources": RESOURCES, "securityContext": {"type": "object"}},
    {
        "envFrom": listed(shape({}, {"configMapRef": REFERENCE, "secretRef": REFERENCE})),
        "env": listed(VARIABLE),
        "ports": listed(shape({"name": {"type": "string", "maxLength": 15}, "containerPort": PORT})),
        "volumeMounts": listed(shape({"name": NAME, "mountPath": {"type": "string", "pattern": "^/"}})),
    },
)
POD = shape(
    {"serviceAccountName": NAME, "containers": listed(CONTAINER), "securityContext": {"type": "object"}},
    {
        "volumes": listed(
            shape({"name": NAME, "emptyDir": shape({}, {"medium": {"enum": ["Memory", ""]}, "sizeLimit": QUANTITY})})
        ),
        "tolerations": listed(
            shape({"key": TEXT, "operator": {"enum": ["Exists", "Equal"]}, "effect": {"enum": ["NoSchedule"]}})
        ),
    },
)
META = shape({"name": NAME}, {"namespace": NAME, "labels": TEXTS})
RULE = shape({"apiGroups": {"type": "array", "items": {"type": "string"}}, "resources": WORDS, "verbs": WORDS})

# KubeRay 1.6: ray.io/v1

START = {"type": "object", "additionalProperties": {"type": "string"}}  # every value is text, numbers too
REPLICAS = {"type": "integer", "minimum": 0}
GROUP = shape(
    {
        "groupName": NAME,
        "replicas": REPLICAS,
        "minReplicas": REPLICAS,
        "maxReplicas": REPLICAS,
        "rayStartParams": START,
        "template": shape({"spec": POD}),
    },
    {"numOfHosts": {"type": "integer", "minimum": 1}},
)
CLUSTER = shape(
    {
        "rayVersion": TEXT,
        "headGroupSpec": shape(
            {"rayStartParams": START, "template": shape({"spec": POD})},
            {"serviceType": {"enum": ["ClusterIP", "NodePort", "LoadBalancer"]}},
        ),
        "workerGroupSpecs": listed(GROUP),
    },
    {
        "enableInTreeAutoscaling": SWITCH,
        "authOptions": shape({"mode": {"enum": ["token", "disabled"]}}),
        "autoscalerOptions": shape(
            {},
            {
                "version": {"enum": ["v1", "v2"]},
                "upscalingMode": {"enum": ["Default", "Aggressive", "Conservative"]},
                "idleTimeoutSeconds": SECONDS,
                "resources": RESOURCES,
            },
        ),
    },
)
JOB = shape(
    {"entrypoint": TEXT, "rayClusterSpec": CLUSTER},
    {
        "entrypointResources": TEXT,
        "runtimeEnvYAML": TEXT,
        "submissionMode": {"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
        "shutdownAfterJobFinishes": SWITCH,
        "ttlSecondsAfterFinished": SECONDS,
        "activeDeadlineSeconds": {"type": "integer", "minimum": 1},
        "preRunningDeadlineSeconds": {"type": "integer", "minimum": 1},
        "backoffLimit": {"type": "integer", "minimum": 0},
    },
)


def kind(api: str, name: str, body: dict[str, Any], metadata: dict[str, Any] = META) -> dict[str, Any]:
    return shape({"apiVersion": {"const": api}, "kind": {"const": name}, "metadata": metadata, **body})


PEER = shape(
    {},
    {"podSelector": {"type": "object"}, "namespaceSelector": shape({"matchLabels": TEXTS})},
)
MANIFESTS = {
    "Namespace": kind("v1", "Namespace", {}),
    "ConfigMap": kind("v1", "ConfigMap", {"data": TEXTS}),
    "ServiceAccount": shape(
        {"apiVersion": {"const": "v1"}, "kind": {"const": "ServiceAccount"}, "metadata": META},
        {"automountServiceAccountToken": SWITCH},
    ),
    "Role": kind("rbac.authorization.k8s.io/v1", "Role", {"rules": listed(RULE)}),
    "RoleBinding": kind(
        "rbac.authorization.k8s.io/v1",
        "RoleBinding",
        {
            "roleRef": shape({"apiGroup": TEXT, "kind": {"const": "Role"}, "name": NAME}),
            "subjects": listed(shape({"kind": {"const": "ServiceAccount"}, "name": NAME, "namespace": NAME})),
        },
    ),
    "NetworkPolicy": kind(
        "networking.k8s.io/v1",
        "NetworkPolicy",
        {
            "spec": shape(
                {
                    "podSelector": {"type": "object"},
                    "policyTypes": WORDS,
                    "ingress": listed(
                        shape(
                            {"from": listed(PEER)},
                            {"ports": listed(shape({"protocol": {"enum": ["TCP"]}, "port": PORT}))},
                        )
                    ),
                }
            )
        },
    ),
    "RayCluster": kind("ray.io/v1", "RayCluster", {"spec": CLUSTER}),
    "RayJob": kind("ray.io/v1", "RayJob", {"spec": JOB}, shape({"generateName": TEXT, "namespace": NAME})),
    "Kustomization": shape(
        {
            "apiVersion": {"const": "kustomize.config.k8s.io/v1beta1"},
            "kind": {"const": "Kustomization"},
            "resources": WORDS,
        }
    ),
}

# Dagster's Helm chart, 1.13

IMAGE = shape({"repository": TEXT, "tag": TEXT, "pullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]}})
SOURCE = {"anyOf": [{"type": "integer"}, TEXT, shape({"env": TEXT})]}
CLASS = shape({"module": TEXT, "class": TEXT, "config": {"type": "object"}})
ENVIRONMENT = {"envConfigMaps": listed(REFERENCE), "envSecrets": listed(REFERENCE), "env": listed(VARIABLE)}
DISABLED = shape({"enabled": {"const": False}}, {"internal": {"const": False}})
VALUES = shape(
    {
        "dagsterWebserver": shape(
            {"image": IMAGE, **ENVIRONMENT, "resources": RESOURCES},
            {"service": shape({"type": {"const": "ClusterIP"}, "port": PORT})},
        ),
        "dagsterDaemon": shape(
            {
                "enabled": {"const": True},
                "image": IMAGE,
                **ENVIRONMENT,
                "resources": RESOURCES,
                "runCoordinator": shape(
                    {
                        "enabled": {"const": True},
                        "type": {"const": "QueuedRunCoordinator"},
                        "config": shape({"queuedRunCoordinator": shape({"maxConcurrentRuns": SOURCE})}),
                    }
                ),
                "runMonitoring": shape(
                    {
                        "enabled": SWITCH,
                        "startTimeoutSeconds": SECONDS,
                        "pollIntervalSeconds": SECONDS,
                        "maxResumeRunAttempts": SECONDS,
                    }
                ),
                "runRetries": shape({"enabled": SWITCH, "maxRetries": SECONDS}),
            }
        ),
        "dagster-user-deployments": shape(
            {
                "enabled": {"const": True},
                "enableSubchart": {"const": True},
                "deployments": listed(
                    shape(
                        {"name": NAME, "image": IMAGE, "dagsterApiGrpcArgs": WORDS, "port": PORT, **ENVIRONMENT},
                        {"resources": RESOURCES},
                    )
                ),
            }
        ),
        "runLauncher": shape(
            {"type": {"const": "CustomRunLauncher"}, "config": shape({"customRunLauncher": CLASS})},
        ),
        "computeLogManager": shape(
            {
                "type": {"const": "S3ComputeLogManager"},
                "config": shape(
                    {"s3ComputeLogManager": shape({"bucket": SOURCE, "prefix": SOURCE, "uploadInterval": SECONDS})}
                ),
            }
        ),
        "global": shape({"postgresqlSecretName": NAME}),
        "generatePostgresqlPasswordSecret": SWITCH,
        "postgresql": shape(
            {
                "enabled": SWITCH,
                "postgresqlUsername": TEXT,
                "postgresqlDatabase": TEXT,
                "service": shape({"port": PORT}),
            },
            {"postgresqlHost": TEXT},
        ),
        "rabbitmq": DISABLED,
        "redis": DISABLED,
        "flower": DISABLED,
        "telemetry": shape({"enabled": SWITCH}),
        "additionalInstanceConfig": {"type": "object"},
    },
    {"nameOverride": NAME},
)
