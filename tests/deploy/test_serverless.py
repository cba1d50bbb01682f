"""What osls generates from serverless.yml and its variant, without a cloud account."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from shutil import copytree, rmtree
from typing import Any

import pytest

from deploy.secret import MEMBERS, REQUIRED
from tests.programs import ROOT, program

STREAMING, MANGUM = "serverless.yml", "deploy/serverless-mangum.yml"
FUNCTIONS = {
    "Health": "health",
    "Models": "models",
    "Chat": "chat",
    "ChatUnderscorestream": "chat_stream",
}
RELAYED = {
    "V1UnderscorechatUnderscorecompletions": "v1_chat_completions",
    "V1Underscorecompletions": "v1_completions",
    "V1Underscoreembeddings": "v1_embeddings",
    "V1Underscoreresponses": "v1_responses",
    "V1Underscoremessages": "v1_messages",
}
ALL = {**FUNCTIONS, "V1Underscoremodels": "v1_models", **RELAYED}
STREAMED = {"chat", "chat_stream", *RELAYED.values()}
IDLE_LIMIT_S = 300
"""A Regional REST API cuts a stream after 5 minutes without a byte."""
STREAM_LIMIT_S, HTTP_API_LIMIT_S, LAMBDA_LIMIT_S = 900, 30, 900
TUNNEL_FILES = {
    "OLLAMA_CA_FILE": "ca.crt",
    "OLLAMA_CLIENT_CERT": "client.crt",
    "OLLAMA_CLIENT_KEY": "client.key",
}
SECRETS = {"API_KEYS", "OLLAMA_HEADERS"}
RESOLVED = re.compile(r"\{\{resolve:secretsmanager:[\w-]+:SecretString:\w+(::[\w-]+)?\}\}")

ORIGINS = ["https://chat.example.com", "https://other.example.com"]
EVERYTHING = {
    "corsOrigins": ", ".join(ORIGINS),
    "concurrency": "2",
    "keys": "secretsmanager:ollama-web-api",
    "extensionArn": "arn:aws:lambda:us-east-1:123456789012:layer:Extension-Arm64:24",
    "requestsPerSecond": "3",
    "requestBurst": "7",
    "alarmEmail": "operator@example.com",
    "budget": "12",
    "logRetentionDays": "30",
    "tracing": "on",
    "domain": "api.example.com",
    "certificateArn": "arn:aws:acm:us-east-1:123456789012:certificate/0123abcd",
    "basePath": "ai",
    "subnets": "subnet-0123456789abcdef0, subnet-0123456789abcdef1",
    "securityGroups": "sg-0123456789abcdef0",
    "storage": "{{resolve:secretsmanager:ollama-web-api:SecretString:STORAGE}}",
    "maxConcurrent": "6",
    "secretKmsKey": "arn:aws:kms:us-east-1:123456789012:key/0123abcd-0000-0000-0000-000000000000",
}
"""A value for every parameter that enables something."""

Template = dict[str, Any]
Make = Callable[..., Template]
"""(config, parameter=value ...) -> the template that osls makes."""


def package(osls: list[str], config: Path, **parameters: str) -> subprocess.CompletedProcess[str]:
    return run(osls, config, "package", **parameters)


def run(
    osls: list[str], config: Path, *words: str, **parameters: str
) -> subprocess.CompletedProcess[str]:
    command = [*osls, *words, "--config", config.name]
    for parameter in parameters.items():
        command += ["--param", "=".join(parameter)]
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(config.parent)}
    environ["AWS_EC2_METADATA_DISABLED"] = "true"  # nothing else may know an account
    return subprocess.run(
        command, cwd=config.parent, env=environ, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="session")
def make(osls: list[str], service: Path) -> Make:
    def template(config: str, **parameters: str) -> Template:
        path = service / config
        ended = package(osls, path, **parameters)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        made = path.parent / ".serverless/cloudformation-template-update-stack.json"
        result: Template = json.loads(made.read_text("utf-8"))
        return result

    return template


@pytest.fixture(scope="session")
def templates(make: Make) -> dict[str, Template]:
    """Both configurations without any parameter."""
    return {config: make(config) for config in (STREAMING, MANGUM)}


@pytest.fixture(scope="session")
def full(make: Make) -> dict[str, Template]:
    """Both with everything that a parameter can enable."""
    return {config: make(config, **EVERYTHING) for config in (STREAMING, MANGUM)}


@pytest.fixture
def own_service(service: Path, tmp_path: Path) -> Path:
    """A copy, to change something in it."""
    copy = tmp_path / "service"
    copytree(service, copy)
    return copy


def test_everything_is_every_parameter() -> None:
    text = (ROOT / "deploy/params.yml").read_text("utf-8")
    always = {"region", "ollamaBaseUrl", "defaultModel", "secret", "secretVersion", "tunnelVersion"}
    assert set(re.findall(r"(?m)^(\w+):", text)) == {
        *EVERYTHING,
        *always,
        "adapterVersion",
        "accessLog",
    }


@pytest.mark.parametrize("config", [STREAMING, MANGUM])
def test_own_parameters_are_kept_from_one_command_to_the_next(
    osls: list[str], own_service: Path, config: str
) -> None:
    path = own_service / config
    own = own_service / "deploy/params.own.yml"
    own.write_text("ollamaBaseUrl: https://own.example.com\nregion: eu-central-1\n", "utf-8")
    for parameters, model in (({}, "llama3.1:70b"), ({"defaultModel": "qwen3:4b"}, "qwen3:4b")):
        assert package(osls, path, **parameters).returncode == 0
        made = path.parent / ".serverless/cloudformation-template-update-stack.json"
        for function in functions(json.loads(made.read_text("utf-8"))).values():
            variables = function["Environment"]["Variables"]
            assert variables["OLLAMA_BASE_URL"] == "https://own.example.com"
            assert variables["DEFAULT_MODEL"] == model
    state = json.loads((path.parent / ".serverless/serverless-state.json").read_text("utf-8"))
    assert state["service"]["provider"]["region"] == "eu-central-1"
    own.write_text("ollamaBaseURL: https://own.example.com\n", "utf-8")
    ended = package(osls, path)
    assert ended.returncode != 0
    assert "params.yml has no parameter ollamaBaseURL" in ended.stdout + ended.stderr


@pytest.mark.parametrize("config", [STREAMING, MANGUM])
def test_a_way_without_certificates_needs_no_layer(
    templates: dict[str, Template], make: Make, config: str
) -> None:
    without = make(config, tunnelVersion="off")
    for template, prefix, count in ((templates[config], "/opt/tunnel/", 1), (without, "", 0)):
        for function in functions(template).values():
            variables = function["Environment"]["Variables"]
            for variable, file in TUNNEL_FILES.items():
                assert variables[variable] == (f"{prefix}{file}" if prefix else "")
            tunnels = [
                layer for layer in function.get("Layers", []) if "ollama-tunnel" in str(layer)
            ]
            assert len(tunnels) == count


@pytest.mark.parametrize("config", [STREAMING, MANGUM])
def test_a_store_needs_zips_that_can_speak_to_it(
    osls: list[str], own_service: Path, zips: Path, config: str
) -> None:
    rmtree(own_service / "build")
    copytree(zips, own_service / "build")
    assert package(osls, own_service / config).returncode == 0
    ended = package(osls, own_service / config, storage=EVERYTHING["storage"])
    assert ended.returncode != 0
    assert "deploy/package.py --redis" in ended.stdout + ended.stderr
    for words in (("remove",), ("rollback",), ("deploy", "list"), ("info",)):
        ended = run(osls, own_service / config, *words, storage=EVERYTHING["storage"])
        assert "credentials" in ended.stdout + ended.stderr, "it has got as far as to AWS"


@pytest.mark.parametrize("config", [STREAMING, MANGUM])
def test_a_store_and_its_slots(
    templates: dict[str, Template], full: dict[str, Template], config: str
) -> None:
    for template, storage, slots in (
        (templates, "memory://", 4),
        (full, EVERYTHING["storage"], 6),
    ):
        for function in functions(template[config]).values():
            variables = function["Environment"]["Variables"]
            assert variables["RATE_LIMIT_STORAGE"] == storage
            assert int(variables["MAX_CONCURRENT"]) == slots


def resources(template: Template, type_: str) -> dict[str, Any]:
    return {
        name: resource.get("Properties", {})
        for name, resource in template["Resources"].items()
        if resource["Type"] == type_
    }


def resources_of(template: Template, type_: str, name: str = "") -> list[Any]:
    """Return the full resources of a type, not only their properties."""
    return [
        resource
        for key, resource in template["Resources"].items()
        if resource["Type"] == type_ and key.startswith(name)
    ]


def functions(template: Template) -> dict[str, Any]:
    found = resources(template, "AWS::Lambda::Function")
    assert len(found) == len(ALL)
    return {name: found[f"{key}LambdaFunction"] for key, name in ALL.items()}


@pytest.mark.parametrize("which", ["templates", "full"])
@pytest.mark.parametrize("config", [STREAMING, MANGUM])
def test_cloudformation_would_take_the_template(
    request: pytest.FixtureRequest, tmp_path: Path, config: str, which: str
) -> None:
    path = tmp_path / "template.json"
    path.write_text(json.dumps(request.getfixturevalue(which)[config]), "utf-8")
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


def test_the_chat_functions_stream_and_the_others_do_not(templates: dict[str, Template]) -> None:
    for name, function in functions(templates[STREAMING]).items():
        variables = function["Environment"]["Variables"]
        layers = [layer for layer in function["Layers"] if isinstance(layer, str)]
        if name in STREAMED:
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
        *("ApiHealthGet", "ApiModelsGet", "ApiChatPost", "ApiChatStreamPost"),
        *("V1ModelsGet", "V1ModelsModelVarGet", "V1ChatCompletionsPost", "V1CompletionsPost"),
        *("V1EmbeddingsPost", "V1ResponsesPost", "V1MessagesPost"),
    }
    for name, method in methods.items():
        streams = method["Integration"].get("ResponseTransferMode") == "STREAM"
        assert streams == ("Chat" in name or name.endswith("Post"))
        # OpenAI's SDKs send their key as Authorization, which the gateway does not know.
        assert method["ApiKeyRequired"] == ("MethodApi" in name and not name.endswith("HealthGet"))


def test_each_part_gives_up_before_its_caller(templates: dict[str, Template]) -> None:
    own = functions(templates[STREAMING])
    methods = resources(templates[STREAMING], "AWS::ApiGateway::Method")
    for name, method in (
        ("chat", "ApiChatPost"),
        ("chat_stream", "ApiChatStreamPost"),
        ("v1_chat_completions", "V1ChatCompletionsPost"),
        ("v1_messages", "V1MessagesPost"),
    ):
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
    role = resources(templates[config], "AWS::IAM::Role")["IamRoleLambdaExecution"]
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
def test_a_new_account_has_no_concurrency_to_reserve(
    templates: dict[str, Template], full: dict[str, Template], config: str
) -> None:
    for function in functions(templates[config]).values():
        assert "ReservedConcurrentExecutions" not in function
    for name, function in functions(full[config]).items():
        reserved = function.get("ReservedConcurrentExecutions")
        assert reserved == (2 if name in STREAMED else None)


def test_a_preflight_runs_no_function(full: dict[str, Template]) -> None:
    methods = resources(full[STREAMING], "AWS::ApiGateway::Method")
    preflights = {name: method for name, method in methods.items() if "Options" in name}
    assert {name.removeprefix("ApiGatewayMethod") for name in preflights} == {
        *("ApiHealthOptions", "ApiModelsOptions", "ApiChatOptions", "ApiChatStreamOptions"),
        *("V1ModelsOptions", "V1ModelsModelVarOptions", "V1ChatCompletionsOptions"),
        *("V1CompletionsOptions", "V1EmbeddingsOptions", "V1ResponsesOptions"),
        "V1MessagesOptions",
    }
    (deployment,) = resources_of(full[STREAMING], "AWS::ApiGateway::Deployment")
    for name, method in preflights.items():
        assert method["Integration"]["Type"] == "MOCK"
        assert name in deployment["DependsOn"]
        (answer,) = method["Integration"]["IntegrationResponses"]
        headers = answer["ResponseParameters"]
        allowed = headers["method.response.header.Access-Control-Allow-Headers"].lower()
        assert {"content-type", "x-api-key"} <= set(allowed.strip("'").split(","))
        for origin in ORIGINS:
            assert origin.replace(".", "[.]") in answer["ResponseTemplates"]["application/json"]


def test_an_http_api_answers_preflights_itself(
    templates: dict[str, Template], full: dict[str, Template]
) -> None:
    (api,) = resources(templates[MANGUM], "AWS::ApiGatewayV2::Api").values()
    assert "CorsConfiguration" not in api
    (api,) = resources(full[MANGUM], "AWS::ApiGatewayV2::Api").values()
    assert api["CorsConfiguration"]["AllowOrigins"] == ORIGINS
    assert "Retry-After" in api["CorsConfiguration"]["ExposeHeaders"]
    for template in (templates[MANGUM], full[MANGUM]):
        routes = resources(template, "AWS::ApiGatewayV2::Route").values()
        assert not [route for route in routes if route["RouteKey"].startswith("OPTIONS")]


def stage(template: Template) -> Any:
    """Return the stage's settings, for either kind of gateway."""
    if stages := resources(template, "AWS::ApiGateway::Stage"):
        (rest_stage,) = stages.values()
        (settings,) = rest_stage["MethodSettings"]
        assert (settings["ResourcePath"], settings["HttpMethod"]) == ("/*", "*")
        return {**rest_stage, **settings}
    (http_stage,) = resources(template, "AWS::ApiGatewayV2::Stage").values()
    return {**http_stage, **http_stage["DefaultRouteSettings"]}


@pytest.mark.parametrize("config", [STREAMING, MANGUM])
def test_every_method_is_throttled_with_or_without_a_key(
    templates: dict[str, Template], full: dict[str, Template], config: str
) -> None:
    for template, rate, burst in ((templates, 10, 20), (full, 3, 7)):
        assert stage(template[config])["ThrottlingRateLimit"] == rate
        assert stage(template[config])["ThrottlingBurstLimit"] == burst


def test_a_second_deployment_changes_the_stage_of_the_first(
    templates: dict[str, Template], full: dict[str, Template]
) -> None:
    """CloudFormation refuses a deployment that describes an existing stage."""
    for template in (templates[STREAMING], full[STREAMING]):
        ((name, deployment),) = resources(template, "AWS::ApiGateway::Deployment").items()
        assert not {"StageName", "StageDescription"} & set(deployment)
        (rest_stage,) = resources(template, "AWS::ApiGateway::Stage").values()
        assert rest_stage["StageName"] == "prod"
        assert rest_stage["DeploymentId"] == {"Ref": name}
        (plan,) = resources_of(template, "AWS::ApiGateway::UsagePlan")
        assert "RestStage" in plan["DependsOn"]
        assert plan["Properties"]["ApiStages"][0]["Stage"] == rest_stage["StageName"]
        (key,) = resources_of(template, "AWS::ApiGateway::ApiKey")
        assert "RestStage" in key["DependsOn"]
    stages = "AWS::ApiGateway::Stage"
    first, second = (set(resources(made[STREAMING], stages)) for made in (templates, full))
    assert first == second, "its name in the template stays"


@pytest.mark.parametrize("config", [STREAMING, MANGUM])
def test_alarms_and_a_budget_where_there_is_an_address(
    templates: dict[str, Template], full: dict[str, Template], config: str
) -> None:
    kinds = ("AWS::CloudWatch::Alarm", "AWS::Budgets::Budget", "AWS::SNS::Topic")
    assert not any(resources(templates[config], kind) for kind in kinds)
    alarms = resources(full[config], "AWS::CloudWatch::Alarm").values()
    assert len(alarms) <= 10, "more are not free"
    watched = {
        (alarm["MetricName"], alarm["Dimensions"][0]["Value"]["Ref"]): alarm["Threshold"]
        for alarm in alarms
        if alarm["Namespace"] == "AWS/Lambda"
    }
    names = {f"{key}LambdaFunction": name for key, name in FUNCTIONS.items()}
    assert {(metric, names[function]) for metric, function in watched} == {
        *(("Throttles", name) for name in names.values()),
        *(("Errors", name) for name in names.values() if name.startswith("chat")),
        *(("Duration", name) for name in names.values() if name.startswith("chat")),
    }
    (seen,) = (alarm for alarm in alarms if alarm["Namespace"] == "AWS/ApiGateway")
    dimensions = {dimension["Name"]: dimension["Value"] for dimension in seen["Dimensions"]}
    if config == STREAMING:
        (api,) = resources(full[config], "AWS::ApiGateway::RestApi").values()
        assert seen["MetricName"] == "5XXError"
        assert dimensions == {"ApiName": api["Name"], "Stage": "prod"}
    else:
        assert (seen["MetricName"], dimensions) == ("5xx", {"ApiId": {"Ref": "HttpApi"}})
    assert (seen["Statistic"], seen["Threshold"]) == ("Sum", 1)
    for (metric, function), threshold in watched.items():
        if metric == "Duration":
            assert threshold == 900 * functions(full[config])[names[function]]["Timeout"]
    (topic,) = resources(full[config], "AWS::SNS::Topic").values()
    assert topic["Subscription"] == [{"Protocol": "email", "Endpoint": EVERYTHING["alarmEmail"]}]
    assert all(
        full[config]["Resources"][alarm["AlarmActions"][0]["Ref"]]["Type"] == "AWS::SNS::Topic"
        for alarm in alarms
    )
    (budget,) = resources(full[config], "AWS::Budgets::Budget").values()
    assert budget["Budget"]["BudgetLimit"] == {"Amount": 12, "Unit": "USD"}
    for notification in budget["NotificationsWithSubscribers"]:
        assert notification["Subscribers"][0]["Address"] == EVERYTHING["alarmEmail"]


@pytest.mark.parametrize("config", [STREAMING, MANGUM])
def test_the_access_log_is_json_without_query_strings(
    templates: dict[str, Template], make: Make, config: str
) -> None:
    settings = stage(templates[config])
    setting = settings.get("AccessLogSetting") or settings["AccessLogSettings"]
    line = json.loads(setting["Format"])
    assert {"$context.path", "$context.status", "$context.identity.sourceIp"} <= set(line.values())
    assert not any(word in setting["Format"] for word in ("query", "resourcePath", "header"))
    group = templates[config]["Resources"][setting["DestinationArn"]["Fn::GetAtt"][0]]
    assert group["Type"] == "AWS::Logs::LogGroup"

    silent = make(config, accessLog="off")
    assert not {"AccessLogSetting", "AccessLogSettings"} & set(stage(silent))
    assert not resources(silent, "AWS::ApiGateway::Account")
    own = make(config, accessLog="keep-role")
    assert {"AccessLogSetting", "AccessLogSettings"} & set(stage(own))
    assert not resources(own, "AWS::ApiGateway::Account")


def test_the_account_keeps_its_role_for_logs_when_the_stack_goes(
    templates: dict[str, Template],
) -> None:
    template = templates[STREAMING]["Resources"]
    for name in ("GatewayLogAccount", "GatewayLogRole"):
        assert template[name]["DeletionPolicy"] == "Retain"
    (rest_stage,) = resources_of(templates[STREAMING], "AWS::ApiGateway::Stage")
    assert rest_stage["DependsOn"] == ["GatewayLogAccount"]


@pytest.mark.parametrize("config", [STREAMING, MANGUM])
def test_logs_are_kept_as_long_as_the_parameter_says(
    templates: dict[str, Template], full: dict[str, Template], config: str
) -> None:
    for template, days in ((templates, 14), (full, 30)):
        groups = resources(template[config], "AWS::Logs::LogGroup").values()
        assert [group["RetentionInDays"] for group in groups] == [days] * (len(ALL) + 1)


@pytest.mark.parametrize("config", [STREAMING, MANGUM])
def test_x_ray_is_off_by_default(
    templates: dict[str, Template], full: dict[str, Template], config: str
) -> None:
    for function in functions(templates[config]).values():
        assert "TracingConfig" not in function
    for function in functions(full[config]).values():
        assert function["TracingConfig"] == {"Mode": "Active"}
    if config == STREAMING:
        assert stage(templates[config])["TracingEnabled"] is False
        assert stage(full[config])["TracingEnabled"] is True


@pytest.mark.parametrize("config", [STREAMING, MANGUM])
def test_the_bucket_is_not_public(templates: dict[str, Template], config: str) -> None:
    (bucket,) = resources(templates[config], "AWS::S3::Bucket").values()
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}


@pytest.mark.parametrize("config", [STREAMING, MANGUM])
def test_a_domain_of_one_s_own_with_a_base_path(
    templates: dict[str, Template], full: dict[str, Template], config: str
) -> None:
    assert not resources(templates[config], "AWS::ApiGatewayV2::DomainName")
    template = full[config]
    (domain,) = resources(template, "AWS::ApiGatewayV2::DomainName").values()
    assert domain["DomainName"] == EVERYTHING["domain"]
    (mapping,) = resources(template, "AWS::ApiGatewayV2::ApiMapping").values()
    assert mapping["ApiMappingKey"] == "ai"
    assert template["Resources"][mapping["ApiId"]["Ref"]]["Type"] in {
        "AWS::ApiGateway::RestApi",
        "AWS::ApiGatewayV2::Api",
    }
    (mapping,) = resources_of(template, "AWS::ApiGatewayV2::ApiMapping")
    needed = template["Resources"][mapping["DependsOn"][0]]["Type"]
    assert needed in {"AWS::ApiGateway::Stage", "AWS::ApiGatewayV2::Stage"}
    assert "DomainTarget" in template["Outputs"]
    for function in functions(template).values():
        assert function["Environment"]["Variables"]["API_GATEWAY_BASE_PATH"] == "ai"


@pytest.mark.parametrize("config", [STREAMING, MANGUM])
def test_functions_in_a_vpc(
    templates: dict[str, Template], full: dict[str, Template], config: str
) -> None:
    for function in functions(templates[config]).values():
        assert "VpcConfig" not in function
    for function in functions(full[config]).values():
        assert function["VpcConfig"] == {
            "SubnetIds": EVERYTHING["subnets"].split(", "),
            "SecurityGroupIds": [EVERYTHING["securityGroups"]],
        }
    (role,) = resources_of(full[config], "AWS::IAM::Role", "IamRoleLambdaExecution")
    assert "AWSLambdaVPCAccessExecutionRole" in json.dumps(role["Properties"]["ManagedPolicyArns"])


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


@pytest.mark.parametrize("config", [STREAMING, MANGUM])
def test_another_version_of_the_secret_changes_the_functions_and_keeps_the_gateway_s_key(
    make: Make, templates: dict[str, Template], config: str
) -> None:
    """CloudFormation would replace the key, and the gateway refuses a second one of that value."""
    version = "0123abcd-0000-4000-8000-000000000000"
    template = make(config, secretVersion=version)
    for function in functions(template).values():
        for name in SECRETS:
            reference = function["Environment"]["Variables"][name]
            assert RESOLVED.fullmatch(reference)
            assert reference.endswith(f":{name}::{version}}}}}")
    kind = "AWS::ApiGateway::ApiKey"
    assert resources(template, kind) == resources(templates[config], kind)


def test_another_key_may_replace_the_gateway_s(templates: dict[str, Template]) -> None:
    """CloudFormation replaces no key that has a name, and osls prints the value of one."""
    (key,) = resources(templates[STREAMING], "AWS::ApiGateway::ApiKey").values()
    assert "Name" not in key


@pytest.mark.parametrize("config", [STREAMING, MANGUM])
@pytest.mark.parametrize(
    ("keys", "action", "resource"),
    [
        (
            "secretsmanager:ollama-web-api",
            "secretsmanager:GetSecretValue",
            "secret:ollama-web-api-",
        ),
        ("ssm:/ollama/keys", "ssm:GetParameter", "parameter/ollama/keys"),
    ],
)
def test_keys_may_be_read_while_running(
    full: dict[str, Template], make: Make, config: str, keys: str, action: str, resource: str
) -> None:
    template = full[config]
    if keys != EVERYTHING["keys"]:
        template = make(config, **{**EVERYTHING, "keys": keys})
    for function in functions(template).values():
        variables = function["Environment"]["Variables"]
        assert variables["API_KEYS_SECRET"] == keys
        assert variables["API_KEYS"] == ""
        assert EVERYTHING["extensionArn"] in function["Layers"]
    role = resources(template, "AWS::IAM::Role")["IamRoleLambdaExecution"]
    statements = [
        statement
        for policy in role["Policies"]
        for statement in policy["PolicyDocument"]["Statement"]
        if "logs:" not in json.dumps(statement) and "xray:" not in json.dumps(statement)
    ]
    assert [statement["Action"] for statement in statements] == [[action], ["kms:Decrypt"]]
    assert statements[1]["Resource"] == EVERYTHING["secretKmsKey"]
    arn = statements[0]["Resource"]["Fn::Sub"]
    assert f":{resource}" in arn
    assert "*" not in arn


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
    assert not {"500", "502"} & {answer.get("StatusCode") for answer in answers.values()}
    later = {"THROTTLED", "QUOTA_EXCEEDED", "DEFAULT_5XX", "INTEGRATION_FAILURE"}
    statuses = {answer["ResponseType"]: answer.get("StatusCode") for answer in answers.values()}
    assert statuses["DEFAULT_5XX"] == statuses["INTEGRATION_FAILURE"] == "503"
    assert statuses["INTEGRATION_TIMEOUT"] == "504"
    assert later <= set(statuses)
    exposed = "gatewayresponse.header.Access-Control-Expose-Headers"
    for answer in answers.values():
        if answer["ResponseType"] in later:
            header = answer["ResponseParameters"]["gatewayresponse.header.Retry-After"]
            assert int(header.strip("'")) > 0
            assert "Try again in" in answer["ResponseTemplates"]["application/json"]
            assert answer["ResponseParameters"][exposed] == "'Retry-After'"
        if answer["ResponseType"] == "INTEGRATION_TIMEOUT":  # the model may have run
            assert (
                answer["ResponseParameters"]["gatewayresponse.header.X-Should-Retry"] == "'false'"
            )
            assert answer["ResponseParameters"][exposed] == "'X-Should-Retry'"
    # A deployment contains only what exists when it is created, and waits for the methods.
    assert set(answers) == set(template["Resources"]["ApiGatewayResourceApi"]["DependsOn"])


def test_the_guide_makes_the_secret_that_is_looked_up(templates: dict[str, Template]) -> None:
    wanted = set(re.findall(r"SecretString:(\w+)", json.dumps(templates[STREAMING])))
    guide = (ROOT / "deploy/README.md").read_text("utf-8")
    commands = re.findall(r"```sh\n(.*?)```", guide, re.DOTALL)
    assert any("-m deploy.secret | aws secretsmanager create-secret" in code for code in commands)
    assert wanted == REQUIRED
    (stored,) = re.findall(r'storage: ".*SecretString:(\w+)', guide)
    assert stored in MEMBERS
    parameters = set(re.findall(r"(?m)^(\w+):", (ROOT / "deploy/params.yml").read_text("utf-8")))
    (written,) = re.findall(r"printf .*>deploy/params\.own\.yml", guide)
    assert set(re.findall(r"(\w+): ", written)) <= parameters
