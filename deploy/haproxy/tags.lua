-- Answers GET /api/tags with the models of all groups, asking one machine that is up in each.

-- Yields the objects of Ollama's list; each begins with its name, and nothing inside it does.
local function models(body)
    local list = body:match('^%s*{"models":%[(.*)%]}%s*$') or ""
    local starts = {}
    for start in list:gmatch('(){"name":"') do
        starts[#starts + 1] = start
    end
    return coroutine.wrap(function()
        for index, start in ipairs(starts) do
            local object = list:sub(start, (starts[index + 1] or #list + 2) - 2)
            coroutine.yield(object:match('^{"name":"(.-)"'), object)
        end
    end)
end

local function ask(backend)
    for _, server in pairs(backend.servers) do
        if server:get_stats().status:match("^UP") then
            local url = "http://" .. server:get_addr() .. "/api/tags"
            local answer = core.httpclient():get{url = url, timeout = 2000}
            if answer and answer.status == 200 then
                return answer.body
            end
        end
    end
end

core.register_service("tags", "http", function(applet)
    local all, known, answered, groups = {}, {}, false, {}
    for name in pairs(core.backends) do
        groups[#groups + 1] = name
    end
    table.sort(groups)
    for _, group in ipairs(groups) do
        local body = ask(core.backends[group])
        if body then
            answered = true
            for name, object in models(body) do
                if not known[name] then
                    known[name] = true
                    all[#all + 1] = object
                end
            end
        end
    end
    local body = '{"models":[' .. table.concat(all, ",") .. "]}"
    if not answered then
        body = '{"error":"every Ollama machine is down"}'
        applet:add_header("retry-after", "5")
    end
    applet:set_status(answered and 200 or 503)
    applet:add_header("content-type", "application/json; charset=utf-8")
    applet:add_header("content-length", #body)
    applet:start_response()
    applet:send(body)
end)
