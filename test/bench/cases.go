package main

// benchCase is one kind of load.
type benchCase struct {
	Name, About string
	Path        string // "/open" needs no token
	Method      string
	Body        int    // bytes of the request's body
	Answer      int    // bytes of the answer's body
	Tokens      string // the name of a file of tokens
	Alg         string // what they are signed with
	Once        bool   // each token is sent once
	TLS, HTTP2  bool   // on the client's side
	Paced       bool   // the time added at a fixed rate is measured, too
	Shared      bool   // the gateways that share their limits take part
}

const (
	kilobyte = 1 << 10
	megabyte = 1 << 20
)

// allCases are in the order of the report.
var allCases = []benchCase{
	{Name: "pass-through", About: "no token is asked for", Path: "/open", Method: "GET", Answer: 200, Paced: true},
	{Name: "one-token", About: "one token, again and again", Path: "/heroes", Method: "GET", Answer: 200, Tokens: "one", Alg: "RS256"},
	{Name: "many-tokens", About: "10,000 tokens in rotation", Path: "/heroes", Method: "GET", Answer: 200, Tokens: "many", Alg: "RS256", Paced: true},
	{Name: "first-rs256", About: "every token seen for the first time, RS256", Path: "/heroes", Method: "GET", Answer: 200, Tokens: "unique-RS256", Alg: "RS256", Once: true},
	{Name: "first-es256", About: "every token seen for the first time, ES256", Path: "/heroes", Method: "GET", Answer: 200, Tokens: "unique-ES256", Alg: "ES256", Once: true},
	{Name: "first-eddsa", About: "every token seen for the first time, EdDSA", Path: "/heroes", Method: "GET", Answer: 200, Tokens: "unique-EdDSA", Alg: "EdDSA", Once: true},
	{Name: "upload-1k", About: "a request body of 1 KB", Path: "/upload", Method: "POST", Body: kilobyte, Answer: 200, Tokens: "many", Alg: "RS256"},
	{Name: "upload-1m", About: "a request body of 1 MB", Path: "/upload", Method: "POST", Body: megabyte, Answer: 200, Tokens: "many", Alg: "RS256"},
	{Name: "download-1k", About: "an answer of 1 KB", Path: "/download/1k", Method: "GET", Answer: kilobyte, Tokens: "many", Alg: "RS256"},
	{Name: "download-1m", About: "an answer of 1 MB", Path: "/download/1m", Method: "GET", Answer: megabyte, Tokens: "many", Alg: "RS256"},
	{Name: "chunked", About: "an answer of 200 bytes in four chunks", Path: "/chunked", Method: "GET", Answer: 200, Tokens: "many", Alg: "RS256"},
	{Name: "tls", About: "HTTP/1.1 over TLS from the client", Path: "/heroes", Method: "GET", Answer: 200, Tokens: "many", Alg: "RS256", TLS: true},
	{Name: "http2", About: "HTTP/2 over TLS from the client, one token", Path: "/heroes", Method: "GET", Answer: 200, Tokens: "one", Alg: "RS256", TLS: true, HTTP2: true},
	{Name: "shared", About: "10,000 tokens; gatehouse-shared counts in Redis, together with others", Path: "/heroes", Method: "GET", Answer: 200, Tokens: "many", Alg: "RS256", Shared: true},
}

// takes says whether a peer takes part in a case.
func (c benchCase) takes(p peer) bool {
	switch {
	case c.Path == "/open":
		return p.Passes
	case !p.Auth || p.Shared && !c.Shared:
		return false
	default:
		return c.Alg != "EdDSA" || !p.NoEdDSA
	}
}
