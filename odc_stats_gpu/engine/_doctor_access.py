"""What `doctor` finds of the services outside: AWS and the datacube's database."""

from __future__ import annotations

import importlib.util
import os
import warnings

from odc_stats_gpu.engine._finding import Finding, first_line, lack, look


def credentials(*, quick: bool) -> Finding:
    """Whether S3 and SQS can be asked at all; nobody is asked whether they would let us in."""
    if quick:
        os.environ.setdefault("AWS_EC2_METADATA_DISABLED", "true")  # no seconds lost outside AWS
    import boto3
    from botocore.exceptions import BotoCoreError

    endpoint = os.environ.get("AWS_ENDPOINT_URL", "")
    at = f", endpoint {endpoint}" if endpoint else ""
    try:
        session = boto3.Session()
        found, region = session.get_credentials(), session.region_name
    except BotoCoreError as exc:
        return lack("aws", first_line(exc), "correct ~/.aws/config, or unset AWS_PROFILE")
    if found is None:
        return lack(
            "aws", f"no credentials{at}", "needed for s3:// and SQS only: run aws configure"
        )
    text = f"credentials from {found.method}{at}"
    if not region:
        return lack("aws", f"{text}, no region", "needed for SQS only: set AWS_DEFAULT_REGION")
    return look("aws", f"{text}, region {region}")


def datacube(env: str | None) -> Finding:
    """Whether the index answers."""
    if importlib.util.find_spec("datacube") is None:
        return lack("datacube", "not installed",
            "needed to save tasks from an index: pip install 'odc-stats-gpu[datacube]'",
        )  # fmt: skip
    import logging

    logging.getLogger("datacube").setLevel(logging.CRITICAL)
    os.environ.setdefault("PGCONNECT_TIMEOUT", "5")  # a host that drops packets would take minutes
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about a configuration file that need not be there
            from datacube import Datacube

            dc = Datacube(env=env, app="odc-stats-gpu")
        with dc:
            count = len(list(dc.index.products.get_all()))
        return look("datacube", f"{count} products in {env or 'the default environment'}")
    except Exception as exc:  # noqa: BLE001 - configuration, driver and database have own families
        return lack("datacube", first_line(exc),
            "needed to save tasks from an index only: set DB_HOSTNAME, ... or use --eo3",
        )  # fmt: skip
