-- wrk: debits, reversals or bulk requests of one cent each, each with its own key. Arguments: token file, name of the run, and
-- "debit"; or "reverse" and a file with a transaction per token, in the same order; or "bulk" and the number of items.
local threads = 0
function setup(thread)
  thread:set("id", threads)
  threads = threads + 1
end

function init(args)
  requests, number, body = {}, 0, '{"amountMinor":1}'
  local paths = {}
  if args[3] == "reverse" then
    for transaction in io.lines(args[4]) do
      paths[#paths + 1] = "/v1/transactions/" .. transaction .. "/reverse"
    end
  elseif args[3] == "bulk" then
    paths[1] = "/v1/transactions/bulk"
    local item = '{"type":"credit","amountMinor":1}'
    body = '{"items":[' .. string.rep(item .. ",", tonumber(args[4]) - 1) .. item .. "]}"
  else
    paths[1] = "/v1/transactions/debit"
  end
  for token in io.lines(args[1]) do
    requests[#requests + 1] = "POST " .. (paths[#requests + 1] or paths[1])
      .. " HTTP/1.1\r\nHost: purse\r\nContent-Type: application/json\r\nContent-Length: " .. #body
      .. "\r\nAuthorization: Bearer " .. token .. "\r\nIdempotency-Key: " .. args[2] .. "-" .. id .. "-"
  end
  math.randomseed(id + 1)
end

function request()
  number = number + 1
  return requests[math.random(#requests)] .. number .. "\r\n\r\n" .. body
end
