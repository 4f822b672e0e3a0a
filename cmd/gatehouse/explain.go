package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"gatehouse/gateway"
)

// maxClaims bounds what is read as claims, in bytes.
const maxClaims = 64 << 10

func explainCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "explain [method] url",
		Short: "Say, rung by rung, what becomes of a request",
		Args:  cobra.RangeArgs(1, 2),
		Long: `Explain sends a request up the ladder that serves requests, as far as the
upstream, and prints what each rung found: the route and those that nearly
matched, each check of the token, revocation, limits, privileges, each step of
the policy with what it saw, and the headers that the upstream would receive.
Nothing is forwarded and no limit is charged.

  gatehouse explain GET /heroes/7 --claims '{"sub":"bob","privileges":["READ"]}'
  gatehouse explain POST /heroes -H 'X-Region: eu' --client-ip 10.0.0.1 --token-file - < token.jwt

With --claims nobody is asked: no identity provider, no Redis. The claims are
taken for those of a token that their issuer signed just now; iss, aud, exp and
iat may be left out. With --token-file keys are fetched and Redis is asked, as a
gateway would that was just started. A token is never printed.

The exit status is 0 if the request would be forwarded (or is a CORS preflight,
which the gateway answers), 1 if it would be refused, 2 if the configuration or
the command line cannot be used.`,
	}
	file := configFlag(c)
	var q gateway.Request
	var tokenFile, claims, at string
	var asJSON bool
	f := c.Flags()
	f.StringArrayVarP(&q.Headers, "header", "H", nil, "a request `header`, as 'Name: value'; may be given several times")
	f.StringVar(&q.Client, "client-ip", "", "the `address` of the peer that sends the request")
	f.StringVar(&tokenFile, "token-file", "", "the token, read from this `file`; - is standard input")
	f.StringVar(&claims, "claims", "", "the token's claims: a JSON `object`, or the name of a file that holds one; - is standard input")
	f.StringVar(&q.Issuer, "issuer", "", "the `name` in the configuration of the issuer whose claims or token it is, where that is not plain")
	f.StringVar(&at, "time", "", "with --claims: the `moment` at which the request comes, as 2026-01-31T08:00:00Z; default now")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	timeout := f.Duration("timeout", 15*time.Second, "how long to wait for keys and for Redis")
	c.RunE = func(c *cobra.Command, args []string) (err error) {
		if q.URL = args[len(args)-1]; len(args) == 2 {
			q.Method = args[0]
		}
		if tokenFile != "" {
			if q.Token, err = readToken(c.InOrStdin(), tokenFile); err != nil {
				return unusable{err}
			}
		}
		if f.Changed("claims") {
			if q.Claims, err = readClaims(c.InOrStdin(), claims); err != nil {
				return unusable{err}
			}
		}
		if at != "" {
			if q.Time, err = time.Parse(time.RFC3339, at); err != nil {
				return unusable{fmt.Errorf("--time: %q is no moment; write it as 2026-01-31T08:00:00Z (RFC 3339)", at)}
			}
		}
		cfg, err := loadConfig(*file)
		if err != nil {
			return unusable{err}
		}
		ctx, cancel := context.WithTimeout(c.Context(), *timeout)
		defer cancel()
		e, err := gateway.Explain(ctx, cfg, q)
		if err != nil {
			return unusable{err}
		}
		if asJSON {
			enc := json.NewEncoder(c.OutOrStdout())
			enc.SetEscapeHTML(false)
			enc.SetIndent("", "  ")
			err = enc.Encode(e)
		} else {
			err = printExplanation(c.OutOrStdout(), e)
		}
		if err == nil && e.Refused() {
			err = errors.New("the request would be refused")
		}
		return err
	}
	return unusableArguments(c)
}

// readClaims reads claims from the command line itself, or from a file.
func readClaims(stdin io.Reader, from string) ([]byte, error) {
	if strings.HasPrefix(strings.TrimSpace(from), "{") {
		return []byte(from), nil
	}
	in := stdin
	if from != "-" {
		f, err := os.Open(from)
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, maxClaims+1))
	if err == nil && len(text) > maxClaims {
		err = fmt.Errorf("more than %d bytes: no token holds so many claims", maxClaims)
	}
	return text, err
}

// printExplanation prints one line for each step, and then what is sent.
func printExplanation(w io.Writer, e *gateway.Explanation) error {
	marks := map[gateway.Mark]string{gateway.Passed: "ok  ", gateway.Refused: "FAIL", gateway.Noted: "    "}
	var b strings.Builder
	for _, s := range e.Steps {
		fmt.Fprintf(&b, "%s  %-16s  %s\n", marks[s.Mark], s.Rung, printable(s.Found))
	}
	switch {
	case e.Forwarded():
		fmt.Fprintf(&b, "\nforwarded to the upstream %s: %s\n", e.Forward.Upstream, printable(e.Forward.Path))
		for _, h := range e.Forward.Headers {
			fmt.Fprintf(&b, "      %s: %s\n", h.Name, h.Value)
		}
		if e.Forward.Token {
			b.WriteString("      and the token\n")
		}
	case e.Refused():
		fmt.Fprintf(&b, "\nrefused: %d %s\n", e.Status, e.Reason)
	default:
		fmt.Fprintf(&b, "\nanswered by the gateway: %d\n", e.Status)
	}
	for _, name := range slices.Sorted(maps.Keys(e.Response)) {
		for _, value := range e.Response[name] {
			fmt.Fprintf(&b, "      %s: %s\n", name, printable(value))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
