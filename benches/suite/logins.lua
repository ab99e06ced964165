-- wrk: logins of one user. Arguments: email address, password.
function init(args)
  local body = '{"email":"' .. args[1] .. '","password":"' .. args[2] .. '"}'
  login = "POST /v1/auth/login HTTP/1.1\r\nHost: purse\r\nContent-Type: application/json\r\nContent-Length: " .. #body .. "\r\n\r\n" .. body
end

function request()
  return login
end
