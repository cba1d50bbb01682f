"""Prints the secret that the functions on AWS need, as JSON, for `aws secretsmanager`.

`python -m deploy.secret` builds a new one from the keys in API_KEYS_FILE and the variables API_KEY,
OLLAMA_HEADERS and, for a shared store, STORAGE. With `--update` it reads the current secret from
standard input, and replaces its keys and those variables that are set.
"""

import argparse
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import msgspec

from core.keys.records import parse_keys

MEMBERS = {
    "API_KEY": r"[A-Za-z0-9]{20,128}",
    "OLLAMA_HEADERS": r"\{.*\}",
    "STORAGE": r"rediss?://.+",
}
"""The secret's other members, and their patterns; a gateway's key is alphanumeric:
https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-api-usage-plans.html
"""
REQUIRED = {"API_KEYS", "API_KEY", "OLLAMA_HEADERS"}


def main() -> None:
    """Print the secret, or exit with one line that says what is missing."""
    parser = argparse.ArgumentParser(prog="python -m deploy.secret", description=__doc__)
    parser.add_argument("--update", action="store_true", help="change the secret on standard input")
    members = _present(sys.stdin.read()) if parser.parse_args().update else {}
    members["API_KEYS"] = _keys(os.environ.get("API_KEYS_FILE", ""))
    for name, pattern in MEMBERS.items():
        if value := os.environ.get(name):
            if not re.fullmatch(pattern, value, re.DOTALL):
                sys.exit(f"{name} is invalid: it must match {pattern}")
            members[name] = value
    if missing := sorted(REQUIRED - set(members)):
        sys.exit(f"Set and export {', '.join(missing)}, as deploy/README.md shows")
    sys.stdout.write(json.dumps(members) + "\n")


def _present(text: str) -> dict[str, Any]:
    try:
        members = json.loads(text)
    except ValueError:
        members = None
    if not isinstance(members, dict):
        sys.exit("No secret on standard input: aws secretsmanager get-secret-value prints it")
    return members


def _keys(path: str) -> str:
    if not path:
        sys.exit("Set and export API_KEYS_FILE, the file that python -m core.keys writes")
    try:
        text = Path(path).read_text("utf-8")
        parse_keys(text)
    except OSError as error:
        sys.exit(f"API_KEYS_FILE cannot be read: {error.strerror}")
    except (ValueError, msgspec.MsgspecError):
        sys.exit("API_KEYS_FILE is invalid: expected the JSON that python -m core.keys writes")
    return text


if __name__ == "__main__":
    main()
