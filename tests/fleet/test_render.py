"""`k8s render`: valid for the API, safe, and meaning what the job file says."""

from __future__ import annotations

import os
import re
import subprocess
import time

import pytest
import yaml

from odc_stats_gpu.cli import main
from odc_stats_gpu.errors import ConfigError
from odc_stats_gpu.fleet import as_yaml, parse_job, render

VARIANTS = {
    "plain": {},
    "keda": {"kind": "scaledjob", "replicas": 300, "tiles_per_worker": 3},
    "keda moto": {"kind": "scaledjob", "endpoint_url": "http://moto:5000"},
    "gpus": {"gpu": ["l4", "A10G"], "capacity": "spot-only"},
    "on demand": {"gpu": "t4", "capacity": "on-demand", "node_selector": {"zone": 1, "fast": True}},
    "cpu": {"gpu": None, "resources": {"cpu": 2, "memory": "4Gi"}},
    "irsa": {"role_arn": "arn:aws:iam::123456789012:role/stats", "service_account": "stats"},
    "bare ids": {"filedb": "s3://dbs/x.db", "idle_timeout": 0, "env": {"GDAL_NUM_THREADS": 1}},
    "queue url": {"queue": "https://sqs.ap-southeast-2.amazonaws.com/123456789012/q.fifo"},
    "no operator": {"pod_monitor": False},
}


def pod_of(manifests):
    if "job.yaml" in manifests:
        return manifests["job.yaml"]["spec"]["template"]["spec"]
    return manifests["scaledjob.yaml"]["spec"]["jobTargetRef"]["template"]["spec"]


@pytest.mark.parametrize("change", VARIANTS.values(), ids=VARIANTS)
def test_every_manifest_is_valid_strictly_also_after_yaml(job, change, validate):
    text = as_yaml(render(parse_job(job | change)).values())
    read = list(yaml.safe_load_all(text))
    assert read == list(render(parse_job(job | change)).values())
    for manifest in read:
        validate(manifest)


def test_a_misspelt_key_would_be_found(job, validate):
    manifest = render(parse_job(job))["job.yaml"]
    manifest["spec"]["ttlSecondsAfterFinish"] = 3
    with pytest.raises(Exception, match="ttlSecondsAfterFinish"):
        validate(manifest)


@pytest.mark.parametrize("change", VARIANTS.values(), ids=VARIANTS)
def test_pods_pass_the_restricted_standard(job, change):
    pod = pod_of(render(parse_job(job | change)))
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 1000
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {next(iter(set(v) - {"name"})) for v in pod["volumes"]} <= {"configMap", "emptyDir"}
    assert not pod.keys() & {"hostNetwork", "hostPID", "hostIPC"}


def test_everything_that_is_written_to_is_a_volume(job):
    pod = pod_of(render(parse_job(job)))
    (container,) = pod["containers"]
    writable = {m["mountPath"] for m in container["volumeMounts"] if not m.get("readOnly")}
    env = {e["name"]: e["value"] for e in container["env"]}
    folders = [env[k] for k in ("HOME", "TMPDIR", "NUMBA_CACHE_DIR", "CUPY_CACHE_DIR")]
    folders += ["/tmp"]  # of libraries that know no TMPDIR
    beat = next(a for a in container["args"] if "heartbeat" in a).partition("=")[2]
    for path in (*folders, beat):
        assert any(path == w or path.startswith(f"{w}/") for w in writable), path


def test_exit_codes_mean_the_same_to_kubernetes(job):
    spec = render(parse_job(job))["job.yaml"]["spec"]
    rules = spec["podFailurePolicy"]["rules"]
    by_code = {v: r["action"] for r in rules for v in r.get("onExitCodes", {}).get("values", ())}
    assert by_code == {2: "FailJob", 3: "Ignore"}
    (ours,) = {r["onExitCodes"]["containerName"] for r in rules if "onExitCodes" in r}
    assert ours == spec["template"]["spec"]["containers"][0]["name"]
    assert [r["action"] for r in rules if "onPodConditions" in r] == ["Ignore"]
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    assert spec["completions"] == spec["parallelism"] == 1


def test_one_gpu_per_worker_where_there_are_gpus(job):
    pod = pod_of(render(parse_job(job | {"gpu": ["l4", "a10g"]})))
    resources = pod["containers"][0]["resources"]
    assert resources["limits"]["nvidia.com/gpu"] == resources["requests"]["nvidia.com/gpu"] == "1"
    assert pod["tolerations"][0]["key"] == "nvidia.com/gpu"
    affinity = pod["affinity"]["nodeAffinity"]
    (term,) = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert term["matchExpressions"][0]["values"] == ["l4", "a10g"]
    preferred = affinity["preferredDuringSchedulingIgnoredDuringExecution"]
    values = [p["preference"]["matchExpressions"][0]["values"] for p in preferred]
    assert values == [["spot"], ["SPOT"]]
    cpu = pod_of(render(parse_job(job | {"gpu": "none"})))
    assert "nvidia.com/gpu" not in cpu["containers"][0]["resources"]["limits"]
    assert "affinity" not in cpu
    assert "tolerations" not in cpu


def test_every_alternative_of_on_demand_also_names_the_gpu(job):
    pod = pod_of(render(parse_job(job | {"gpu": "h100", "capacity": "on-demand"})))
    required = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    for term in required["nodeSelectorTerms"]:
        values = [e["values"] for e in term["matchExpressions"]]
        assert values in ([["on-demand"], ["h100"]], [["ON_DEMAND"], ["h100"]])


def test_liveness_is_the_age_of_the_heartbeat(job, tmp_path):
    probe = pod_of(render(parse_job(job)))["containers"][0]["livenessProbe"]["exec"]["command"]
    beat = tmp_path / "heartbeat"
    command = [probe[0], probe[1], probe[2].replace("/scratch/heartbeat", str(beat))]
    run = lambda: subprocess.run(command, capture_output=True, check=False).returncode  # noqa: E731
    assert run() != 0
    beat.touch()
    assert run() == 0
    os.utime(beat, (time.time() - 300,) * 2)
    assert run() != 0


def test_keda_starts_workers_by_the_queue_and_none_without_work(job):
    out = render(parse_job(job | VARIANTS["keda"]))
    spec = out["scaledjob.yaml"]["spec"]
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (0, 300)
    assert spec["jobTargetRef"]["parallelism"] == spec["jobTargetRef"]["completions"] == 1
    (trigger,) = spec["triggers"]
    assert trigger["metadata"]["queueLength"] == "3"
    authentication = out["triggerauthentication.yaml"]["metadata"]
    assert trigger["authenticationRef"]["name"] == authentication["name"]


def test_workers_get_the_configuration_that_run_accepts(job):
    from odc_stats_gpu.model import parse_config

    out = render(parse_job(job | {"filedb": "s3://dbs/x.db", "prefix": "/{product}/"}))
    config = parse_config(yaml.safe_load(out["config.yaml"]["data"]["config.yaml"]))
    assert config.filedb == "s3://dbs/x.db"
    assert config.output_location == "s3://dest/{product}"
    assert config.plugin == "gm-ls"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quue": "x"}, "unknown key 'quue'.*did you mean 'queue'"),
        ({"resources": {"memroy": "1Gi"}}, "'resources.memroy'.*did you mean 'memory'"),
        ({"gpu": "a10"}, "unknown GPU 'a10', did you mean 'a10g'"),
        ({"gpu": ["any", "l4"]}, "stand alone"),
        ({"name": "GM_LS"}, "name = 'GM_LS'"),
        ({"image": "Repo/Image"}, "image = 'Repo/Image'"),
        ({"image": "odc-stats-gpu:a:b"}, "image = 'odc-stats-gpu:a:b'"),
        ({"image": "odc stats"}, "image = 'odc stats'"),
        ({"image": ""}, "image = ''"),
        ({"queue": "no queue"}, "queue = 'no queue'"),
        ({"queue": "https://sqs.us-west-2.amazonaws.com/123456789012/q"}, "not in region"),
        ({"resources": {"memory": "26 GB"}}, "resources.memory"),
        ({"replicas": 0}, "replicas = 0"),
        ({"bucket": ""}, "give `bucket`"),
        ({"bucket": "s3://dest"}, "without s3://"),
        ({"workers": 3}, "unknown key 'workers'.*did you mean 'replicas'"),
        ({"memory": "8Gi"}, "did you mean 'resources.memory'"),
        ({"region": "sydney"}, "region = 'sydney': must be such as ap-southeast-2"),
        ({"replicas": True}, "replicas = True"),
        ({"resources": {"cpu": 0}}, "resources.cpu = 0: must be more than 0"),
        ({"resources": "8Gi"}, "keys cpu, memory, scratch, cache"),
        ({"env": {"A B": 1}}, "'A B' is no name"),
        ({"env": {"A": None}}, "A needs a text"),
        ({"endpoint_url": "moto:5000"}, "must be http://host:port"),
        ({"prefix": "{prodct}/x"}, "can't fill in the location"),
        ({"filedb": "x.db"}, "can't be seen by pods"),
        ({"config": {"plugin": "gm-ls", "product": {"name": "p"}, "thread": 3}}, "'threads'"),
        ({"config": {"product": {"name": "p"}}}, "no plugin"),
        ({"config": {"plugin": "gm-ls", "output_location": "file:///out"}}, "gone with the pod"),
        ({"config": {"plugin": "gm-ls", "output_location": "s3://other/x"}}, "not in bucket"),
    ],
    ids=str,
)
def test_a_wrong_job_file_is_told_in_one_line(job, change, message):
    with pytest.raises(ConfigError) as caught:
        parse_job(job | change, "job.yaml")
    text = str(caught.value)
    assert re.search(message, text)
    assert text.startswith(("job.yaml: ", "can't fill in"))
    assert "\n" not in text


def test_six_keys_make_a_job(job):
    """Name and region are in the queue's URL; the place for tiles is in the configuration."""
    config = job["config"] | {"output_location": "s3://dest/{product}"}
    url = "https://sqs.us-west-2.amazonaws.com/123456789012/GM_ls.fifo"
    small = {
        "queue": url, "db": "s3://dbs/x.db", "image": job["image"], "replicas": 3,
        "gpu_type": "NVIDIA L4", "config": config, "role_arn": None,
    }  # fmt: skip
    spec = parse_job(small)
    assert (spec.name, spec.region, spec.gpu) == ("gm-ls", "us-west-2", ("l4",))
    assert spec.run_config["filedb"] == "s3://dbs/x.db"
    assert parse_job(job | {"kind": "ScaledJob", "capacity": "Spot"}).kind == "scaledjob"


def test_an_unknown_key_is_told_before_what_it_may_have_been(job):
    raw = {("imag" if k == "image" else k): v for k, v in job.items()}
    with pytest.raises(ConfigError, match=r"unknown key 'imag'.*did you mean 'image'"):
        parse_job(raw)


def test_command_takes_the_region_of_the_environment(job, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("AWS_REGION", "")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-west-2")
    del job["region"]
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(job))
    assert main(["k8s", "render", "--config", str(file)]) == 0
    assert "us-west-2" in capsys.readouterr().out


def test_command_writes_to_stdout_and_to_a_folder(job, tmp_path, capsys, monkeypatch):
    (tmp_path / "gm.yaml").write_text(yaml.safe_dump(job.pop("config")))
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(job | {"config": "gm.yaml"}))
    monkeypatch.chdir("/")  # the configuration is looked for beside the job file
    assert main(["k8s", "render", "--config", str(file)]) == 0
    printed = list(yaml.safe_load_all(capsys.readouterr().out))
    assert [m["kind"] for m in printed] == ["ServiceAccount", "ConfigMap", "Job", "PodMonitor"]
    out = tmp_path / "out"
    assert main(["k8s", "render", "--config", str(file), "--output", str(out)]) == 0
    index = yaml.safe_load((out / "kustomization.yaml").read_text())
    assert [yaml.safe_load((out / n).read_text()) for n in index["resources"]] == printed


@pytest.mark.parametrize(
    "image",
    ["odc-stats-gpu", "odc-stats-gpu:1.0.0-gpu", "localhost:5000/a/b_c:x",
     "123456789012.dkr.ecr.ap-southeast-2.amazonaws.com/eo/odc-stats-gpu:v1@sha256:" + "0" * 64],
)  # fmt: skip
def test_images_of_any_registry_are_taken(job, image):
    assert pod_of(render(parse_job(job | {"image": image})))["containers"][0]["image"] == image


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quue": "x"}, "unknown key 'quue'"),
        ({"gpu": "rtx"}, "unknown GPU 'rtx'"),
        ({"image": "A B"}, "image = 'A B'"),
        ({"queue": None}, "queue"),
        (
            {
                "config": {
                    "plugin": "gm-ls",
                    "plugin_config": {"band": []},
                    "product": {"name": "p"},
                }
            },
            "unknown key 'band' (did you mean 'bands'?)",
        ),
        ({"config": {"plugin": "gm-lss", "product": {"name": "p"}}}, "gm-lss"),
    ],
    ids=str,
)
def test_command_says_what_is_wrong_in_one_line_and_exits_2(job, change, message, tmp_path, capsys):
    file = tmp_path / "job.yaml"
    raw = {k: v for k, v in (job | change).items() if v is not None}
    file.write_text(yaml.safe_dump(raw))
    assert main(["k8s", "render", "--config", str(file)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert message in shown.err
    assert shown.err.count("\n") == 1


def test_command_exits_2_for_a_wrong_file(tmp_path, capsys):
    assert main(["k8s", "render", "--config", str(tmp_path / "none.yaml")]) == 2
    assert "no such file" in capsys.readouterr().err
    assert main(["k8s", "render", "--config", "name: x"]) == 2
    assert capsys.readouterr().err.startswith("error: the job file: queue is missing")


def test_texts_that_look_like_numbers_stay_texts(job):
    env = {"A": "1e3", "B": "0x10", "C": "y", "D": "1_000", "E": "12:30", "F": "3.0.0", "G": "on"}
    text = as_yaml(render(parse_job(job | {"env": env})).values())
    for name, value in env.items():
        assert re.search(rf"name: {name}\n +value: '{re.escape(value)}'", text), name
