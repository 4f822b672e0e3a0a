-- wrk's script. Arguments: a file with a line for each request, or "-"; the
-- path; the method; the bytes of the body; "once" to end with the file, else
-- it is read again and again. A line is TOKEN, or TOKEN, path and caller with
-- tabs between them.
local ffi = require "ffi"
ffi.cdef "int getpid(void); int kill(int pid, int signal);"

local lines, path, method, body, once
local prefix

function init(args)
    path, method, once = args[2], args[3], args[5] == "once"
    body = string.rep("x", tonumber(args[4]))
    if args[1] ~= "-" then
        lines = assert(io.open(args[1]))
    end
end

local function message(path, token, caller)
    local head = method .. " " .. path .. " HTTP/1.1\r\nHost: localhost\r\n"
    if token and token ~= "" then
        head = head .. "Authorization: Bearer " .. token .. "\r\n"
    end
    if caller then
        head = head .. "X-Caller: " .. caller .. "\r\n"
    end
    if body ~= "" then
        head = head .. "Content-Length: " .. #body .. "\r\n"
    end
    return head .. "\r\n" .. body
end

local fixed

function request()
    if not lines then
        fixed = fixed or message(path)
        return fixed
    end
    local line = lines:read("*l")
    if not line then
        if once then
            -- What is sent after this is not awaited, and a Ctrl-C (2) wakes
            -- wrk, which would else sleep to the end of its time.
            wrk.thread:stop()
            ffi.C.kill(ffi.C.getpid(), 2)
        end
        lines:seek("set")
        line = lines:read("*l")
    end
    local token, to, caller = line:match("^([^\t]*)\t([^\t]*)\t?(.*)$")
    return message(to or path, token or line, caller ~= "" and caller or nil)
end

function done(summary, latency)
    local e = summary.errors
    io.write(string.format("\n{\"requests\":%d,\"micros\":%d,\"refused\":%d,\"broken\":%d,\"p50\":%d,\"p99\":%d}\n",
        summary.requests, summary.duration, e.status, e.connect + e.read + e.write + e.timeout,
        latency:percentile(50), latency:percentile(99)))
end
