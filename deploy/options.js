// The parts of serverless.yml and serverless-mangum.yml that depend on parameters, as `${file(options.js):NAME}`.
// CloudFormation has conditions, but osls derives methods and permissions from some of this while it packages.
"use strict";

const fs = require("fs");
const path = require("path");
const { alarms } = require("./alarms.js");

const OWN = "params.own.yml";
const OWN_PARAMS = path.join(__dirname, OWN);
const CHAT_FUNCTIONS = ["Chat", "ChatUnderscorestream"]; // as osls names them in the template
const FUNCTIONS = ["Health", "Models", ...CHAT_FUNCTIONS];
const REQUEST_HEADERS = [
    ...["Authorization", "Content-Type", "Prefer", "X-API-Key", "X-Request-ID"],
    ...["User-Agent", "OpenAI-Beta", "OpenAI-Organization", "OpenAI-Project"],
    ...["Anthropic-Beta", "Anthropic-Dangerous-Direct-Browser-Access", "Anthropic-Version"],
    ...["X-Stainless-Arch", "X-Stainless-Async", "X-Stainless-Helper", "X-Stainless-Helper-Method"],
    ...["X-Stainless-Lang", "X-Stainless-OS", "X-Stainless-Package-Version"],
    ...["X-Stainless-Retry-Count", "X-Stainless-Runtime", "X-Stainless-Runtime-Version"],
    "X-Stainless-Timeout",
];
const ANSWER_HEADERS = [
    ...["Preference-Applied", "RateLimit", "RateLimit-Policy", "Retry-After", "X-Request-ID"],
    "X-Should-Retry",
];
const STAGE = ["param:requestsPerSecond", "param:requestBurst", "param:accessLog", "param:logRetentionDays"];
const SECRET = ["param:secret", "param:secretVersion"];
const LAYERS = ["param:region", "param:adapterVersion", "param:tunnelVersion", "param:extensionArn"];
const PREFLIGHT_AGE_S = 600;

// Calls `make` with the values of the variables `names`.
const from = (names, make) => async ({ resolveVariable }) =>
    make(...(await Promise.all(names.map((name) => resolveVariable(name)))));

const list = (text) => text.split(",").map((item) => item.trim()).filter(Boolean);

// The defaults in params.yml, overridden by your own params.own.yml, which every command reads.
exports.params = async ({ resolveVariable }) => {
    const read = (name) => resolveVariable(`file(${path.relative(process.cwd(), path.join(__dirname, name))})`);
    const defaults = await read("params.yml");
    const own = (fs.existsSync(OWN_PARAMS) && (await read(OWN))) || {};
    const unknown = Object.keys(own).filter((name) => !(name in defaults));
    if (unknown.length > 0) throw `${OWN}: params.yml has no parameter ${unknown.join(", ")}`; // osls prints an Error's stack
    return { ...defaults, ...own };
};

// Whether zips are needed: "remove", "rollback" and "deploy list" do without.
const command = process.argv.slice(2);
const packs = command.includes("package") || (command.includes("deploy") && !command.includes("list"));

// Redis or Valkey needs packages that the zips contain only on request.
exports.storage = from(["param:storage", "self:custom.build"], (storage, build) => {
    const archive = path.resolve(build, "chat.zip");
    const isNeeded = packs && storage !== "memory://" && fs.existsSync(archive);
    if (isNeeded && !fs.readFileSync(archive).includes("core/chat/leases.py"))
        throw "The parameter storage needs zips with a client for it: python deploy/package.py --redis";
    return storage;
});

// The gateway answers a preflight request itself; a function would run for any stranger.
exports.cors = from(["param:corsOrigins"], (origins) =>
    origins !== "" && { origins: list(origins), headers: REQUEST_HEADERS, maxAge: PREFLIGHT_AGE_S },
);
exports.httpCors = from(["param:corsOrigins"], (origins) =>
    origins !== "" && {
        allowedOrigins: list(origins),
        allowedHeaders: REQUEST_HEADERS,
        allowedMethods: ["GET", "POST"],
        exposedResponseHeaders: ANSWER_HEADERS,
        maxAge: PREFLIGHT_AGE_S,
    },
);

exports.tracing = from(["param:tracing"], (tracing) => (tracing === "on" ? { lambda: true } : null));

// Keys: AWS' extension reads them while the functions run, or CloudFormation copies them into their environment.
exports.apiKeys = from(["param:keys", ...SECRET], (keys, ...secret) =>
    keys === "" ? resolved("API_KEYS", ...secret) : "",
);
exports.ollamaHeaders = from(SECRET, (...secret) => resolved("OLLAMA_HEADERS", ...secret));
const resolved = (member, secret, version) =>
    `{{resolve:secretsmanager:${secret}:SecretString:${member}${version === "" ? "" : `::${version}`}}}`;
exports.statements = from(["param:keys", "param:secretKmsKey"], (keys, kmsKey) => {
    const [service, name] = [keys.split(":")[0], keys.slice(keys.indexOf(":") + 1)];
    const arn = "arn:${AWS::Partition}:SERVICE:${AWS::Region}:${AWS::AccountId}:";
    const rights = {
        secretsmanager: ["secretsmanager:GetSecretValue", `secret:${name}-??????`],
        ssm: ["ssm:GetParameter", `parameter/${name.replace(/^\//, "")}`],
    }[service];
    if (!rights) return [];
    const resource = { "Fn::Sub": arn.replace("SERVICE", service) + rights[1] };
    return [
        { Effect: "Allow", Action: rights[0], Resource: resource },
        ...(kmsKey === "" ? [] : [{ Effect: "Allow", Action: ["kms:Decrypt"], Resource: kmsKey }]),
    ];
});

// The tunnel's certificates are in its layer.
const tunnelFile = (name) => from(["param:tunnelVersion"], (tunnel) => (tunnel === "off" ? "" : `/opt/tunnel/${name}`));
exports.tunnelAuthority = tunnelFile("ca.crt");
exports.tunnelCert = tunnelFile("client.crt");
exports.tunnelKey = tunnelFile("client.key");

const layers = (...before) =>
    from(LAYERS, (region, adapter, tunnel, extension) => [
        ...before.map((name) => `arn:aws:lambda:${region}:753240598075:layer:${name}:${adapter}`),
        ...(tunnel === "off"
            ? []
            : [{ "Fn::Sub": `arn:aws:lambda:\${AWS::Region}:\${AWS::AccountId}:layer:ollama-tunnel:${tunnel}` }]),
        ...(extension === "" ? [] : [extension]),
    ]);
exports.layers = layers();
exports.adapterLayers = layers("LambdaAdapterLayerArm64");

exports.concurrency = from(["param:concurrency"], (number) => (number === "" ? null : Number(number)));

exports.vpc = from(["param:subnets", "param:securityGroups"], (subnets, groups) =>
    subnets === "" ? null : { subnetIds: list(subnets), securityGroupIds: list(groups) },
);

// A REST API: osls lets the deployment create the stage, which CloudFormation cannot change afterwards ("StageDescription
// cannot be specified when stage referenced by StageName already exists"), so here the stage is a separate resource.
exports.restStage = from(
    ["sls:instanceId", "sls:stage", ...STAGE, "param:tracing"],
    (instance, stage, rate, burst, accessLog, days, tracing) => ({
        extensions: {
            [`ApiGatewayDeployment${instance}`]: { Properties: { StageName: null } },
            ApiGatewayApiKey1: { DependsOn: ["RestStage"] }, // or it is refused: "Invalid stage identifier specified"
            ApiGatewayUsagePlan: { DependsOn: ["RestStage"] },
        },
        Resources: {
            RestStage: {
                Type: "AWS::ApiGateway::Stage",
                ...(accessLog === "on" && { DependsOn: "GatewayLogAccount" }),
                Properties: {
                    RestApiId: { Ref: "ApiGatewayRestApi" },
                    DeploymentId: { Ref: `ApiGatewayDeployment${instance}` },
                    StageName: stage,
                    TracingEnabled: tracing === "on",
                    MethodSettings: [
                        {
                            ResourcePath: "/*",
                            HttpMethod: "*",
                            ThrottlingRateLimit: Number(rate),
                            ThrottlingBurstLimit: Number(burst),
                        },
                    ],
                    ...(accessLog === "off" ? {} : { AccessLogSetting: accessLogSetting() }),
                },
            },
            ...(accessLog === "off" ? {} : accessLogGroup(days)),
            ...(accessLog === "on" ? gatewayLogAccount() : {}),
        },
    }),
);

// An HTTP API; its log needs no role.
exports.httpStage = from(STAGE, (rate, burst, accessLog, days) => ({
    extensions: {
        HttpApiStage: {
            Properties: {
                DefaultRouteSettings: {
                    ThrottlingRateLimit: Number(rate),
                    ThrottlingBurstLimit: Number(burst),
                },
                ...(accessLog === "off" ? {} : { AccessLogSettings: accessLogSetting() }),
            },
        },
    },
    Resources: accessLog === "off" ? {} : accessLogGroup(days),
}));

// One line of JSON for a request. $context.path has no query string.
const accessLogSetting = () => ({
    DestinationArn: { "Fn::GetAtt": ["AccessLog", "Arn"] },
    Format: JSON.stringify({
        request_id: "$context.requestId",
        time_ms: "$context.requestTimeEpoch",
        client: "$context.identity.sourceIp",
        method: "$context.httpMethod",
        path: "$context.path",
        status: "$context.status",
        bytes: "$context.responseLength",
        duration_ms: "$context.responseLatency",
        error: "$context.error.responseType",
        integration_error: "$context.integrationErrorMessage",
    }),
});

const accessLogGroup = (days) => ({
    AccessLog: {
        Type: "AWS::Logs::LogGroup",
        Properties: {
            LogGroupName: "/aws/api-gateway/${self:service}-${sls:stage}",
            RetentionInDays: Number(days),
        },
    },
});

// REST APIs need a role to write logs, one per account and region:
// https://docs.aws.amazon.com/apigateway/latest/developerguide/set-up-logging.html
// It stays when the stack is removed, because the account's other APIs may use it.
const gatewayLogAccount = () => ({
    GatewayLogRole: {
        Type: "AWS::IAM::Role",
        DeletionPolicy: "Retain",
        UpdateReplacePolicy: "Retain",
        Properties: {
            AssumeRolePolicyDocument: {
                Version: "2012-10-17",
                Statement: [
                    { Effect: "Allow", Principal: { Service: "apigateway.amazonaws.com" }, Action: "sts:AssumeRole" },
                ],
            },
            ManagedPolicyArns: [
                { "Fn::Sub": "arn:${AWS::Partition}:iam::aws:policy/service-role/AmazonAPIGatewayPushToCloudWatchLogs" },
            ],
        },
    },
    GatewayLogAccount: {
        Type: "AWS::ApiGateway::Account",
        DeletionPolicy: "Retain",
        UpdateReplacePolicy: "Retain",
        Properties: { CloudWatchRoleArn: { "Fn::GetAtt": ["GatewayLogRole", "Arn"] } },
    },
});

// The first ten alarms of an account are free.
exports.alarms = from(
    ["param:alarmEmail", "param:budget", "self:custom.timeout", "self:custom.api", "self:service", "sls:stage"],
    (email, budget, timeout, api, service, stage) =>
        email === ""
            ? {}
            : { Resources: alarms({ email, budget, timeout, api, service, stage, all: FUNCTIONS, chat: CHAT_FUNCTIONS }) },
);

// API mappings of version 2 work for Regional REST APIs too:
// https://docs.aws.amazon.com/apigateway/latest/developerguide/rest-api-mappings.html
exports.domain = from(
    ["param:domain", "param:certificateArn", "param:basePath", "self:custom.api", "sls:stage"],
    (name, certificate, basePath, api, stage) => (name === "" ? {} : {
        Resources: {
            Domain: {
                Type: "AWS::ApiGatewayV2::DomainName",
                Properties: {
                    DomainName: name,
                    DomainNameConfigurations: [
                        { EndpointType: "REGIONAL", CertificateArn: certificate, SecurityPolicy: "TLS_1_2" },
                    ],
                },
            },
            ApiMapping: {
                Type: "AWS::ApiGatewayV2::ApiMapping",
                DependsOn: api === "HttpApi" ? "HttpApiStage" : "RestStage",
                Properties: {
                    DomainName: { Ref: "Domain" },
                    ApiId: { Ref: api },
                    Stage: api === "HttpApi" ? "$default" : stage,
                    ...(basePath !== "" && { ApiMappingKey: basePath }),
                },
            },
        },
        Outputs: {
            DomainTarget: {
                Description: `The name that a CNAME record of ${name} must point to`,
                Value: { "Fn::GetAtt": ["Domain", "RegionalDomainName"] },
            },
        },
    }),
);
