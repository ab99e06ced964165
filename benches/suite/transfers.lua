-- wrk: transfers of one cent, each with its own key. Arguments: file with the senders' tokens, file with the recipients' ids,
-- name of the run. With several recipients they are the senders, in the same order, and no user pays themselves.
local threads = 0
function setup(thread)
  thread:set("id", threads)
  threads = threads + 1
end

function init(args)
  heads, bodies, number = {}, {}, 0
  for id in io.lines(args[2]) do
    bodies[#bodies + 1] = '{"toUserId":"' .. id .. '","amountMinor":1}'
  end
  for token in io.lines(args[1]) do
    heads[#heads + 1] = "POST /v1/transfers HTTP/1.1\r\nHost: purse\r\nContent-Type: application/json\r\nContent-Length: "
      .. #bodies[1] .. "\r\nAuthorization: Bearer " .. token .. "\r\nIdempotency-Key: " .. args[3] .. "-" .. id .. "-"
  end
  math.randomseed(id + 1)
end

function request()
  number = number + 1
  local sender, recipient = math.random(#heads), 1
  if #bodies > 1 then
    recipient = (sender - 1 + math.random(#bodies - 1)) % #bodies + 1
  end
  return heads[sender] .. number .. "\r\n\r\n" .. bodies[recipient]
end
