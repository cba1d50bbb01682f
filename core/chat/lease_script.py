"""The script that Redis or Valkey runs for every step of a lease (see `core.chat.leases`)."""

KEYS = ("held", "waiting", "seen", "owner", "limit", "served", "state")
"""Scores: of tickets, the end in `held` and `seen`, arrival in `waiting`; of clients, the turn."""

SCRIPT = """
local held, waiting, seen, owner, limit, served, state = unpack(KEYS)
local step, ticket, client = ARGV[1], ARGV[2], ARGV[3]
local most, slots, places = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local lease_s, patience_s, settle_s = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local service_s = tonumber(ARGV[10])
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000

local function forget(one)
  for _, set in ipairs({held, waiting, seen}) do redis.call('ZREM', set, one) end
  for _, map in ipairs({owner, limit}) do redis.call('HDEL', map, one) end
end

-- Calls visit(ticket, its client) for each in a sorted set, in its order.
local function each(set, visit)
  for _, one in ipairs(redis.call('ZRANGE', set, 0, -1)) do
    visit(one, redis.call('HGET', owner, one) or '')
  end
end

local function hold(one, seconds)
  redis.call('ZREM', waiting, one)
  redis.call('ZREM', seen, one)
  redis.call('ZADD', held, now + seconds, one)
end

-- Grants free slots: to the client served longest ago, and among its requests to the first.
local function grant()
  while redis.call('ZCARD', held) < slots do
    local running, looked = {}, {}
    local best, best_client, best_turn
    each(held, function(_, of) running[of] = (running[of] or 0) + 1 end)
    each(waiting, function(one, of)
      if looked[of] then return end
      looked[of] = true
      if (running[of] or 0) >= tonumber(redis.call('HGET', limit, one)) then return end
      local turn = tonumber(redis.call('ZSCORE', served, of) or 0)
      if not best or turn < best_turn then best, best_client, best_turn = one, of, turn end
    end)
    if not best then return end
    hold(best, patience_s) -- until it claims the slot
    redis.call('ZADD', served, redis.call('HINCRBY', state, 'turns', 1), best_client)
  end
end

-- With all places taken, the last in the longest line leaves, or else the newcomer.
local function make_room()
  local lines, longest = {}, client
  each(waiting, function(one, of)
    lines[of] = lines[of] or {}
    table.insert(lines[of], one)
    if #lines[of] > #(lines[longest] or {}) then longest = of end
  end)
  if #lines[longest] <= #lines[client] then forget(ticket) else
    forget(lines[longest][#lines[longest]])
  end
end

-- A store that was restarted or unreachable may not know who holds a slot: the holders renew
-- theirs soon, and until then it grants none.
local heard = redis.call('HGET', state, 'heard')
local lapsed = redis.call('ZCOUNT', held, '-inf', now) > 0
if not heard or (lapsed and now - heard >= lease_s) then
  redis.call('HSET', state, 'opens', now + settle_s)
end
redis.call('HSET', state, 'heard', now)
local open = now >= tonumber(redis.call('HGET', state, 'opens') or 0)
if not open then places = places + slots end

for _, set in ipairs({held, seen}) do
  for _, one in ipairs(redis.call('ZRANGEBYSCORE', set, '-inf', now)) do forget(one) end
end

if step == 'leave' then
  forget(ticket)
  if service_s > 0 then
    local before = tonumber(redis.call('HGET', state, 'service_s') or service_s)
    redis.call('HSET', state, 'service_s', before + 0.1 * (service_s - before))
  end
elseif step == 'join' then
  redis.call('HSET', owner, ticket, client)
  redis.call('HSET', limit, ticket, most)
  redis.call('ZADD', waiting, redis.call('HINCRBY', state, 'arrivals', 1), ticket)
  redis.call('ZADD', seen, now + patience_s, ticket)
elseif redis.call('ZSCORE', waiting, ticket) then
  redis.call('ZADD', seen, now + patience_s, ticket)
elseif step == 'renew' then -- even beyond the slots there are: Ollama is at work on it
  redis.call('HSET', owner, ticket, client)
  redis.call('HSET', limit, ticket, most)
  hold(ticket, lease_s)
end
if open then grant() end
if step == 'join' and redis.call('ZSCORE', waiting, ticket)
    and redis.call('ZCARD', waiting) > places then
  make_room()
end

local status = 'gone'
if redis.call('ZSCORE', held, ticket) then
  hold(ticket, lease_s)
  status = 'held'
elseif redis.call('ZSCORE', waiting, ticket) then
  status = 'waiting'
end
redis.call('ZREMRANGEBYRANK', served, 0, -1001)
for _, key in ipairs(KEYS) do redis.call('EXPIRE', key, 2592000) end
return {status, redis.call('ZCARD', waiting), redis.call('HGET', state, 'service_s') or '0'}
"""
