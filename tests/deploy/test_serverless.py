"""What osls makes of serverless.yml, and of its variant, without a cloud account."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.programs import ROOT, program

STREAMING, MANGUM = "serverless.yml", "deploy/serverless-mangum.yml"
FUNCTIONS = {
    "Health": "health",
    "Models": "models",
    "Chat": "chat",
    "ChatUnderscorestream": "chat_stream",
}
IDLE_LIMIT_S = 300
"""A Regional REST API cuts a stream after 5 minutes without a byte."""
STREAM_LIMIT_S, HTTP_API_LIMIT_S, LAMBDA_LIMIT_S = 900, 30, 900
SECRETS = {"API_KEYS", "OLLAMA_HEADERS"}
RESOLVED = re.compile(r"\{\{resolve:secretsmanager:[\w-]+:SecretString:\w+\}\}")

Template = dict[str, Any]


@pytest.fixture(scope="session")
def templates(osls: list[str], service: Path) -> dict[str, Template]:
    def template(config: str) -> Template:
        path = service / config
        command = [*osls, "package", "--config", path.name]
        environ = {"PATH": "/usr/bin:/bin", "HOME": str(service)}
        ended = subprocess.run(
            command, cwd=path.parent, env=environ, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        made = path.parent / ".serverless/cloudformation-template-update-stack.json"
        result: Template = json.loads(made.read_text("utf-8"))
        return result

    return {config: template(config) for config in (STREAMING, MANGUM)}


def resources(template: Template, type_: str) -> dict[str, Any]:
    return {
        name: resource.get("Properties", {})
        for name, resource in template["Resources"].items()
        if resource["Type"] == type_
    }


def functions(template: Template) -> dict[str, Any]:
    found = resources(template, "AWS::Lambda::Function")
    return {name: found[f"{key}LambdaFunction"] for key, name in FUNCTIONS.items()}


@pytest.mark.parametrize("config", [STREAMING, MANGUM])
def test_cloudformation_would_take_the_template(
    templates: dict[str, Template], tmp_path: Path, config: str
) -> None:
    path = tmp_path / "template.json"
    path.write_text(json.dumps(templates[config]), "utf-8")
    linter = [
        program("cfn-lint", "pip install cfn-lint"),
        "--non-zero-exit-code",
        "error",
        str(path),
    ]
    ended = subprocess.run(linter, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout


@pytest.mark.parametrize("config", [STREAMING, MANGUM])
def test_each_function_is_its_own_small_program(
    templates: dict[str, Template], service: Path, config: str
) -> None:
    for name, function in functions(templates[config]).items():
        assert function["Runtime"] == "python3.13"
        assert function["Architectures"] == ["arm64"]
        assert function["MemorySize"] == 512
        assert function["Code"]["S3Key"].endswith(f"/{name}.zip")
        assert (service / "build" / f"{name}.zip").is_file()
        assert function["Timeout"] <= LAMBDA_LIMIT_S
        reserved = function.get("ReservedConcurrentExecutions")
        assert reserved == (2 if name.startswith("chat") else None)


def test_the_chat_functions_stream_and_the_others_do_not(templates: dict[str, Template]) -> None:
    for name, function in functions(templates[STREAMING]).items():
        variables = function["Environment"]["Variables"]
        layers = [layer for layer in function["Layers"] if isinstance(layer, str)]
        if name.startswith("chat"):
            assert function["Handler"] == "run.sh"
            assert layers == [
                "arn:aws:lambda:us-east-1:753240598075:layer:LambdaAdapterLayerArm64:30"
            ]
            assert variables["AWS_LAMBDA_EXEC_WRAPPER"] == "/opt/bootstrap"
            assert variables["AWS_LWA_INVOKE_MODE"] == "response_stream"
            assert variables["UVICORN_APP"] == f"handlers.{name}:app"
        else:
            assert function["Handler"] == f"handlers.{name}.handler"
            assert not layers
            assert not any(variable.startswith("AWS_") for variable in variables)


def test_the_gateway_is_regional_and_streams(templates: dict[str, Template]) -> None:
    template = templates[STREAMING]
    (api,) = resources(template, "AWS::ApiGateway::RestApi").values()
    assert api["EndpointConfiguration"] == {"Types": ["REGIONAL"]}
    methods = resources(template, "AWS::ApiGateway::Method")
    assert {name.removeprefix("ApiGatewayMethod") for name in methods} == {
        *("ApiHealthGet", "ApiModelsGet", "ApiModelsOptions"),
        *("ApiChatPost", "ApiChatOptions", "ApiChatStreamPost", "ApiChatStreamOptions"),
    }
    for name, method in methods.items():
        streams = method["Integration"].get("ResponseTransferMode") == "STREAM"
        assert streams == ("Chat" in name)
        assert method["ApiKeyRequired"] == (not name.endswith(("Options", "HealthGet")))


def test_whoever_is_asked_gives_up_before_the_one_who_asks(templates: dict[str, Template]) -> None:
    own = functions(templates[STREAMING])
    methods = resources(templates[STREAMING], "AWS::ApiGateway::Method")
    for name, method in (("chat", "ApiChatPost"), ("chat_stream", "ApiChatStreamPost")):
        variables = own[name]["Environment"]["Variables"]
        application_s = float(variables["REQUEST_TIMEOUT_S"])
        gateway_s = methods[f"ApiGatewayMethod{method}"]["Integration"]["TimeoutInMillis"] / 1000
        assert application_s < own[name]["Timeout"] < gateway_s <= STREAM_LIMIT_S
        assert application_s < IDLE_LIMIT_S, "the plain answer is silent until then"
        assert 0 < float(variables["STREAM_HEARTBEAT_S"]) < 30
    for function in functions(templates[MANGUM]).values():
        assert function["Timeout"] < HTTP_API_LIMIT_S


@pytest.mark.parametrize("config", [STREAMING, MANGUM])
def test_the_functions_may_write_their_logs_and_nothing_else(
    templates: dict[str, Template], config: str
) -> None:
    (role,) = resources(templates[config], "AWS::IAM::Role").values()
    assert "ManagedPolicyArns" not in role
    (policy,) = role["Policies"]
    for statement in policy["PolicyDocument"]["Statement"]:
        assert all(action.startswith("logs:") for action in statement["Action"])
        for resource in statement["Resource"]:
            assert ":log-group:/aws/lambda/ollama-web-api" in resource["Fn::Sub"]
    for permission in resources(templates[config], "AWS::Lambda::Permission").values():
        assert permission["Principal"] == "apigateway.amazonaws.com"
        assert "execute-api" in json.dumps(permission["SourceArn"])


@pytest.mark.parametrize("config", [STREAMING, MANGUM])
def test_secrets_are_looked_up_by_cloudformation(
    templates: dict[str, Template], config: str
) -> None:
    for function in functions(templates[config]).values():
        variables = function["Environment"]["Variables"]
        for name in SECRETS:
            assert RESOLVED.fullmatch(variables[name])
    for key in resources(templates[config], "AWS::ApiGateway::ApiKey").values():
        assert RESOLVED.fullmatch(key["Value"])


def test_the_gateway_limits_each_key(templates: dict[str, Template]) -> None:
    (plan,) = resources(templates[STREAMING], "AWS::ApiGateway::UsagePlan").values()
    assert plan["Throttle"]["RateLimit"] > 0
    assert plan["Quota"]["Limit"] > 0
    assert resources(templates[STREAMING], "AWS::ApiGateway::UsagePlanKey")


def test_the_gateway_s_own_errors_have_the_one_shape(templates: dict[str, Template]) -> None:
    template = templates[STREAMING]
    answers = resources(template, "AWS::ApiGateway::GatewayResponse")
    for answer in answers.values():
        text = answer["ResponseTemplates"]["application/json"]
        body = json.loads(text.replace("$context.error.messageString", '"Forbidden"'))
        assert body["success"] is False
        assert body["error"]
    assert {answer["ResponseType"] for answer in answers.values()} >= {"DEFAULT_4XX", "DEFAULT_5XX"}
    limits = {"THROTTLED", "QUOTA_EXCEEDED"}
    for answer in answers.values():
        if answer["ResponseType"] in limits:
            header = answer["ResponseParameters"]["gatewayresponse.header.Retry-After"]
            assert int(header.strip("'")) > 0
    # A deployment has only what there is when it is made, and waits for the methods.
    assert set(answers) == set(template["Resources"]["ApiGatewayResourceApi"]["DependsOn"])


def test_the_guide_makes_the_secret_that_is_looked_up() -> None:
    wanted = set(re.findall(r"SecretString:(\w+)", (ROOT / "deploy/provider.yml").read_text()))
    guide = (ROOT / "deploy/README.md").read_text("utf-8")
    command = guide.partition("```sh\n")[2].partition("```")[0]
    assert wanted == set(re.findall(r'"([A-Z_]+)"', command)) - {"API_KEYS_FILE"}
