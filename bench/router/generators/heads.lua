-- Requests with heads as browsers send them, about 600 bytes, no two of them the same.
local directory = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
dofile(directory .. "report.lua")

local before, after
local count = 0

function init(args)
   local own = ""
   for _, line in ipairs(args) do own = own .. line .. "\r\n" end
   before = "GET " .. wrk.path .. "?page="
   after = " HTTP/1.1\r\nHost: " .. wrk.host .. ":" .. wrk.port .. "\r\n" ..
      "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n" ..
      "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8\r\n" ..
      "Accept-Language: en-GB,en;q=0.7,de;q=0.3\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n" ..
      "Referer: https://console.example.org/machines/overview\r\nDNT: 1\r\n" ..
      "Upgrade-Insecure-Requests: 1\r\nSec-Fetch-Dest: document\r\nSec-Fetch-Mode: navigate\r\n" ..
      "Sec-Fetch-Site: same-origin\r\nPriority: u=0, i\r\n" .. own .. "Cookie: session="
end

function request()
   count = count + 1
   local number = string.format("%08x", count)
   return before .. number .. after .. number .. "5b1e70c2f9d84a63\r\n\r\n"
end
