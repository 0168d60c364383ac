"""What the custom resources we write may hold: the API's keys as far as we use them, no others."""

TEXT, NUMBER, FLAG = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}
TEXTS = {"type": "object", "additionalProperties": TEXT}


def obj(required=(), **properties):
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def several(item):
    return {"type": "array", "items": item, "minItems": 1}


META = obj(["name"], name=TEXT, namespace=TEXT, labels=TEXTS, annotations=TEXTS)


def resource(spec):
    return obj(
        ["apiVersion", "kind", "metadata", "spec"],
        apiVersion=TEXT,
        kind=TEXT,
        metadata=META,
        spec=spec,
    )


REQUIREMENT = obj(
    ["key", "operator"],
    key=TEXT,
    operator={"enum": ["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]},
    values=several(TEXT),
    minValues=NUMBER,
)
SELECTOR = several(obj(tags=TEXTS, id=TEXT, name=TEXT, alias=TEXT))

SCHEMAS = {
    ("keda.sh/v1alpha1", "ScaledJob"): resource(
        obj(
            ["jobTargetRef", "triggers"],
            jobTargetRef={"type": "object"},  # a batch/v1 JobSpec: validated as one
            pollingInterval=NUMBER,
            minReplicaCount=NUMBER,
            maxReplicaCount=NUMBER,
            successfulJobsHistoryLimit=NUMBER,
            failedJobsHistoryLimit=NUMBER,
            rollout=obj(strategy={"enum": ["default", "gradual"]}),
            scalingStrategy=obj(strategy={"enum": ["default", "custom", "accurate", "eager"]}),
            triggers=several(
                obj(
                    ["type", "metadata"],
                    type={"const": "aws-sqs-queue"},
                    metadata=obj(
                        ["queueURL", "awsRegion"],
                        queueURL=TEXT,
                        queueLength=TEXT,
                        awsRegion=TEXT,
                        awsEndpoint=TEXT,
                        scaleOnInFlight=TEXT,
                        activationQueueLength=TEXT,
                    ),
                    authenticationRef=obj(["name"], name=TEXT, kind=TEXT),
                )
            ),
        )
    ),
    ("keda.sh/v1alpha1", "TriggerAuthentication"): resource(
        obj(podIdentity=obj(["provider"], provider={"const": "aws"}, roleArn=TEXT))
    ),
    ("monitoring.coreos.com/v1", "PodMonitor"): resource(
        obj(
            ["selector", "podMetricsEndpoints"],
            selector=obj(matchLabels=TEXTS),
            podMetricsEndpoints=several(
                obj(
                    port=TEXT,
                    interval={"type": "string", "pattern": r"^\d+s$"},
                    relabelings=several(obj(sourceLabels=several(TEXT), targetLabel=TEXT)),
                )
            ),
        )
    ),
    ("karpenter.sh/v1", "NodePool"): resource(
        obj(
            ["template"],
            weight={"type": "integer", "minimum": 1, "maximum": 100},
            limits={"type": "object"},
            disruption=obj(
                ["consolidateAfter"],
                consolidationPolicy={"enum": ["WhenEmpty", "WhenEmptyOrUnderutilized"]},
                consolidateAfter={"type": "string", "pattern": r"^(\d+[smh])+$|^Never$"},
            ),
            template=obj(
                ["spec"],
                metadata=obj(labels=TEXTS, annotations=TEXTS),
                spec=obj(
                    ["nodeClassRef", "requirements"],
                    nodeClassRef=obj(["group", "kind", "name"], group=TEXT, kind=TEXT, name=TEXT),
                    taints=several(
                        obj(
                            ["key", "effect"],
                            key=TEXT,
                            value=TEXT,
                            effect={"enum": ["NoSchedule", "NoExecute", "PreferNoSchedule"]},
                        )
                    ),
                    requirements=several(REQUIREMENT),
                    expireAfter=TEXT,
                    terminationGracePeriod=TEXT,
                ),
            ),
        )
    ),
    ("karpenter.k8s.aws/v1", "EC2NodeClass"): resource(
        obj(
            ["amiSelectorTerms", "subnetSelectorTerms", "securityGroupSelectorTerms", "role"],
            amiSelectorTerms=SELECTOR,
            subnetSelectorTerms=SELECTOR,
            securityGroupSelectorTerms=SELECTOR,
            role=TEXT,
            instanceStorePolicy={"const": "RAID0"},
            blockDeviceMappings=several(
                obj(
                    ["deviceName", "ebs"],
                    deviceName=TEXT,
                    ebs=obj(
                        volumeType=TEXT, volumeSize=TEXT, encrypted=FLAG, deleteOnTermination=FLAG
                    ),
                )
            ),
            metadataOptions=obj(
                httpTokens={"enum": ["required", "optional"]}, httpPutResponseHopLimit=NUMBER
            ),
            tags=TEXTS,
        )
    ),
}
