"""Options of every command that reads from S3."""

from __future__ import annotations

from typing import Annotated

import typer

Unsigned = Annotated[
    bool | None,
    typer.Option(
        "--aws-unsigned/--no-aws-unsigned",
        "--no-sign-request",
        help="Read from S3 without a signature, or always with one. Default: with one where there "
        "are credentials and the bucket takes them. Writes are always signed.",
    ),
]
RequesterPays = Annotated[
    bool | None,
    typer.Option(
        "--requester-pays/--no-requester-pays",
        "--request-payer",
        help="Pay for what is read from S3. Default AWS_REQUEST_PAYER.",
    ),
]
