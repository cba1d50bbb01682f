// The alarms and the budget of options.js, which are mailed to an address.
"use strict";

exports.alarms = ({ email, budget, timeout, api, service, stage, all, chat }) => ({
    AlarmTopic: {
        Type: "AWS::SNS::Topic",
        Properties: { Subscription: [{ Protocol: "email", Endpoint: email }] },
    },
    Budget: {
        Type: "AWS::Budgets::Budget",
        Properties: {
            Budget: {
                BudgetType: "COST",
                TimeUnit: "MONTHLY",
                BudgetLimit: { Amount: Number(budget), Unit: "USD" },
            },
            NotificationsWithSubscribers: [["ACTUAL", 80], ["FORECASTED", 100]].map(([type, percent]) => ({
                Notification: {
                    NotificationType: type,
                    ComparisonOperator: "GREATER_THAN",
                    Threshold: percent,
                    ThresholdType: "PERCENTAGE",
                },
                Subscribers: [{ SubscriptionType: "EMAIL", Address: email }],
            })),
        },
    },
    ...Object.assign(
        {},
        gatewayAlarm(api, service, stage),
        ...chat.map((name) => functionAlarm(name, "Errors", "Sum", 1)),
        ...all.map((name) => functionAlarm(name, "Throttles", "Sum", 1)),
        ...chat.map((name) => functionAlarm(name, "Duration", "Maximum", 900 * timeout)), // 90 % of it, in ms
    ),
});

// Counts what callers get, because to Lambda an application's 500 is a success. A single 503 under load is not a failure.
// https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-metrics-and-dimensions.html
const gatewayAlarm = (api, service, stage) =>
    alarm("Gateway", {
        Namespace: "AWS/ApiGateway",
        ...(api === "HttpApi"
            ? { MetricName: "5xx", Dimensions: dimensions({ ApiId: { Ref: api } }) }
            : { MetricName: "5XXError", Dimensions: dimensions({ ApiName: `${service}-${stage}`, Stage: stage }) }),
        Statistic: "Sum",
        Threshold: 1,
        EvaluationPeriods: 3,
        DatapointsToAlarm: 2,
    });

const functionAlarm = (name, metric, statistic, threshold) =>
    alarm(`${name}${metric}`, {
        Namespace: "AWS/Lambda",
        MetricName: metric,
        Dimensions: dimensions({ FunctionName: { Ref: `${name}LambdaFunction` } }),
        Statistic: statistic,
        Threshold: threshold,
        EvaluationPeriods: 1,
    });

const dimensions = (values) => Object.entries(values).map(([Name, Value]) => ({ Name, Value }));

const alarm = (name, properties) => ({
    [`${name}Alarm`]: {
        Type: "AWS::CloudWatch::Alarm",
        Properties: {
            ...properties,
            Period: 300,
            ComparisonOperator: "GreaterThanOrEqualToThreshold",
            TreatMissingData: "notBreaching",
            AlarmActions: [{ Ref: "AlarmTopic" }],
        },
    },
});
