-- wrk's script: posts one body again and again, and looks at every answer.
-- BODY and TOKENS are taken from the environment.
local tokens = tonumber(os.getenv("TOKENS"))
local threads = {}
bad = 0

function setup(thread)
    table.insert(threads, thread)
end

function init()
    wrk.method = "POST"
    wrk.headers["Content-Type"] = "application/json"
    wrk.body = os.getenv("BODY")
    request_text = wrk.format()
end

function request()
    return request_text
end

function response(status, headers, body)
    local _, ends = body:gsub('"done": *true', "")
    local _, lines = body:gsub("\n", "")
    if status ~= 200 or ends ~= 1 or (tokens > 0 and lines ~= tokens + 1) then
        bad = bad + 1
    end
end

function done(summary)
    local wrong = 0
    for _, thread in ipairs(threads) do
        wrong = wrong + thread:get("bad")
    end
    local errors = summary.errors
    local failed = errors.connect + errors.read + errors.write + errors.timeout + wrong
    io.write(string.format('{"count": %d, "failed": %d, "seconds": %f}\n',
        summary.requests, failed, summary.duration / 1e6))
end
