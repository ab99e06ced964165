-- wrk: GETs of one path, with the tokens of a file in turn. Arguments: token file, path.
function init(args)
  requests, number = {}, 0
  for token in io.lines(args[1]) do
    requests[#requests + 1] = "GET " .. args[2] .. " HTTP/1.1\r\nHost: purse\r\nAuthorization: Bearer " .. token .. "\r\n\r\n"
  end
end

function request()
  number = number % #requests + 1
  return requests[number]
end
