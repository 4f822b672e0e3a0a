-- Verifies a bearer token by OpenSSL, which nginx has in itself, and tells the
-- backend of its claims. Tokens that were verified are remembered, by worker,
-- where `remember` is above 0.
local ffi = require "ffi"
local cjson = require "cjson.safe"
local lrucache = require "resty.lrucache"
local decode = require("ngx.base64").decode_base64url
local C = ffi.C

ffi.cdef [[
void *BIO_new_file(const char *filename, const char *mode);
int BIO_free(void *bio);
void *PEM_read_bio_PUBKEY(void *bio, void **key, void *callback, void *argument);
void *EVP_MD_CTX_new(void);
int EVP_MD_CTX_reset(void *ctx);
const void *EVP_sha256(void);
int EVP_DigestVerifyInit(void *ctx, void **pctx, const void *type, void *engine, void *key);
int EVP_DigestVerify(void *ctx, const char *sig, size_t siglen, const char *text, size_t textlen);
]]

local function public_key(file)
    local bio = C.BIO_new_file(file, "r")
    assert(bio ~= nil, file)
    local key = C.PEM_read_bio_PUBKEY(bio, nil, nil, nil)
    C.BIO_free(bio)
    assert(key ~= nil, file)
    return key
end

-- A JWS has r and s in 32 bytes each (RFC 7518 section 3.4), OpenSSL wants DER.
local function der_integer(bytes)
    bytes = bytes:gsub("^%z+", "")
    if bytes == "" or bytes:byte() > 127 then
        bytes = "\0" .. bytes
    end
    return "\2" .. string.char(#bytes) .. bytes
end

local function der(signature)
    local body = der_integer(signature:sub(1, 32)) .. der_integer(signature:sub(33))
    return "\48" .. string.char(#body) .. body
end

local M = {}

function M.new(want)
    local keys, context = {}, C.EVP_MD_CTX_new()
    for alg, file in pairs(want.keys) do
        keys[alg] = public_key(file)
    end
    local digests = { RS256 = C.EVP_sha256(), ES256 = C.EVP_sha256() } -- EdDSA has its own inside

    local function signed(alg, text, signature)
        if alg == "ES256" then
            if #signature ~= 64 then
                return false
            end
            signature = der(signature)
        end
        C.EVP_MD_CTX_reset(context)
        return C.EVP_DigestVerifyInit(context, nil, digests[alg], nil, keys[alg]) == 1
            and C.EVP_DigestVerify(context, signature, #signature, text, #text) == 1
    end

    -- verify returns what is needed of the claims, or nil.
    local function verify(token)
        local first = token:find(".", 1, true)
        local second = first and token:find(".", first + 1, true)
        if not second then
            return nil
        end
        local head, payload, signature = decode(token:sub(1, first - 1)), decode(token:sub(first + 1, second - 1)), decode(token:sub(second + 1))
        local header = head and cjson.decode(head)
        if not header or not keys[header.alg] or not payload or not signature or not signed(header.alg, token:sub(1, second - 1), signature) then
            return nil
        end
        local claims = cjson.decode(payload)
        if not claims or claims.iss ~= want.issuer or claims.aud ~= want.audience or type(claims.exp) ~= "number" then
            return nil
        end
        local may = false
        for _, privilege in ipairs(claims.privileges or {}) do
            may = may or privilege == want.privilege
        end
        return { exp = claims.exp, may = may, sub = claims.sub, client_id = claims.client_id, email = claims.email }
    end

    local seen = want.remember > 0 and lrucache.new(want.remember)

    return function()
        local headers = ngx.req.get_headers()
        for name in pairs(headers) do
            if name:sub(1, 6) == "x-jwt-" then
                ngx.req.clear_header(name)
            end
        end
        local authorization = headers.authorization
        if type(authorization) ~= "string" or authorization:sub(1, 7) ~= "Bearer " then
            return ngx.exit(401)
        end
        local token = authorization:sub(8)
        local claims = seen and seen:get(token)
        if not claims then
            claims = verify(token)
            if not claims then
                return ngx.exit(401)
            end
            if seen then
                seen:set(token, claims)
            end
        end
        if claims.exp <= ngx.time() then
            return ngx.exit(401)
        end
        if not claims.may then
            return ngx.exit(403)
        end
        ngx.var.jwt_sub = claims.sub
        ngx.req.set_header("x-jwt-sub", claims.sub)
        ngx.req.set_header("x-jwt-client-id", claims.client_id)
        ngx.req.set_header("x-jwt-email", claims.email)
        ngx.req.clear_header("Authorization")
    end
end

return M
