-- wrk: posts of one cent, each with its own key. Arguments: token file, name of the run, "credit" or "mixed".
local threads = 0
function setup(thread)
  thread:set("id", threads)
  threads = threads + 1
end

function init(args)
  heads, number, mixed = {}, 0, args[3] == "mixed"
  for token in io.lines(args[1]) do
    heads[#heads + 1] = " HTTP/1.1\r\nHost: purse\r\nContent-Type: application/json\r\nContent-Length: 17\r\nAuthorization: Bearer "
      .. token .. "\r\nIdempotency-Key: " .. args[2] .. "-" .. id .. "-"
  end
  math.randomseed(id + 1)
end

function request()
  number = number + 1
  local path = (mixed and number % 2 == 0) and "POST /v1/transactions/debit" or "POST /v1/transactions/credit"
  return path .. heads[math.random(#heads)] .. number .. '\r\n\r\n{"amountMinor":1}'
end
