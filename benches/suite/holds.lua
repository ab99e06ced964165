-- wrk: holds of one cent, each of which is captured by a later request. Arguments: token file, name of the run.
local threads = 0
function setup(thread)
  thread:set("id", threads)
  threads = threads + 1
end

function init(args)
  tokens, open, number, key = {}, {}, 0, args[2] .. "-" .. id .. "-"
  for token in io.lines(args[1]) do
    tokens[#tokens + 1] = token
  end
  -- One thread runs all connections, and their responses come in any order: each names the user by its token.
  math.randomseed(id + 1)
end

local function post(path, token, body)
  number = number + 1
  return "POST " .. path .. " HTTP/1.1\r\nHost: purse\r\nContent-Type: application/json\r\nContent-Length: " .. #body
    .. "\r\nAuthorization: Bearer " .. token .. "\r\nIdempotency-Key: " .. key .. number .. "\r\n\r\n" .. body
end

function request()
  local placed = table.remove(open)
  if placed then
    return post("/v1/holds/" .. placed.id .. "/capture", tokens[placed.owner], "{}")
  end
  local owner = math.random(#tokens)
  -- The description comes back with the hold.
  return post("/v1/holds", tokens[owner], '{"amountMinor":1,"description":"' .. owner .. '"}')
end

function response(status, headers, body)
  local id, owner = body:match('^{"id":"([^"]+)","status":"open".-"description":"(%d+)"')
  if id then
    open[#open + 1] = {id = id, owner = tonumber(owner)}
  end
end
