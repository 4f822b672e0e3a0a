package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"gatehouse/gateway"
	"gatehouse/gateway/config"
)

// maxTokenFile bounds what is read as a token, in bytes.
const maxTokenFile = 64 << 10

// redisTimeout bounds one command's work with Redis.
const redisTimeout = 10 * time.Second

func revokeCommand() *cobra.Command {
	return revocationCommand(&cobra.Command{
		Use:   "revoke",
		Short: "Withdraw a token, a session, a subject, a client or a key",
		Args:  cobra.NoArgs,
		Long: `Revoke writes a revocation to the Redis of the configuration. Every gateway
that uses that Redis refuses the token from then on.

A whole token is read from a file or from standard input, never from the
command line, where it would show in the process list:

  gatehouse revoke --token-file - < stolen.jwt
  gatehouse revoke --issuer main --jti 6f1c…
  gatehouse revoke --issuer main --sub alice     # all her tokens issued until now`,
	}, gateway.Revoke)
}

func unrevokeCommand() *cobra.Command {
	return revocationCommand(&cobra.Command{
		Use:   "unrevoke",
		Short: "Lift a revocation",
		Args:  cobra.NoArgs,
		Long: `Unrevoke writes the reserved value - in place of a revocation, with the time
that it had left. Deleting the key is not enough: gateways that keep a copy
remember what they saw revoked, whatever Redis forgets.

  gatehouse unrevoke --issuer main --sub alice`,
	}, gateway.Unrevoke)
}

func revocationsCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "revocations",
		Short: "List what is revoked now",
		Args:  cobra.NoArgs,
		Long: `Revocations lists the revocations in the Redis of the configuration, one a
line: the key, what stands in it, and for how long. It walks over all keys of
the database, so that a large one takes its time.`,
	}
	file := configFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := loadConfig(*file)
		if err != nil {
			return err
		}
		return gateway.Revocations(c.Context(), cfg, func(key, content string, left time.Duration) bool {
			_, err := fmt.Fprintf(c.OutOrStdout(), "%s = %s %s\n", printable(key), printable(content), forHowLong(left))
			return err == nil
		})
	}
	return c
}

func forHowLong(ttl time.Duration) string {
	if ttl == 0 {
		return "for ever"
	}
	return "for " + ttl.Round(time.Second).String()
}

// revocationCommand gives c the flags that say what is revoked, and hands that to do.
func revocationCommand(c *cobra.Command, do func(context.Context, *config.Config, gateway.Revocation) (gateway.Revoked, error)) *cobra.Command {
	file := configFlag(c)
	r := gateway.Revocation{}
	var tokenFile string
	f := c.Flags()
	f.StringVar(&r.Issuer, "issuer", "", "the issuer's `name` in the configuration; needed where there are several")
	kinds := []struct{ flag, kind, usage string }{
		{"jti", "jti", "one token, by the `id` in its jti claim"},
		{"sid", "sid", "one session, by the `id` in its sid claim"},
		{"sub", "sub", "the tokens of this `subject` issued until now"},
		{"client-id", "client_id", "the tokens of this `client` issued until now"},
		{"kid", "kid", "every token signed by the key of this `id`"},
	}
	names := []string{"token-file"}
	values := make([]*string, len(kinds))
	for i, k := range kinds {
		values[i] = f.String(k.flag, "", k.usage)
		names = append(names, k.flag)
	}
	f.StringVar(&tokenFile, "token-file", "", "one whole token, read from this `file`; - is standard input")
	c.MarkFlagsOneRequired(names...)
	c.MarkFlagsMutuallyExclusive(names...)
	c.RunE = func(c *cobra.Command, _ []string) error {
		for i, k := range kinds {
			if f.Changed(k.flag) {
				r.Kind, r.Value = k.kind, *values[i]
				if r.Value == "" {
					return fmt.Errorf("--%s is empty", k.flag)
				}
			}
		}
		if f.Changed("token-file") {
			raw, err := readToken(c.InOrStdin(), tokenFile)
			if err != nil {
				return err
			}
			r.Token = raw
		}
		cfg, err := loadConfig(*file)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(c.Context(), redisTimeout)
		defer cancel()
		done, err := do(ctx, cfg, r)
		if done.Warning != "" {
			fmt.Fprintln(c.ErrOrStderr(), "warning:", done.Warning)
		}
		if err != nil {
			return err
		}
		fmt.Fprintf(c.OutOrStdout(), "%s = %s %s\n", done.Key, done.Value, forHowLong(done.TTL))
		return nil
	}
	return c
}

// readToken reads one token; white space around it does not belong to it.
func readToken(stdin io.Reader, name string) (string, error) {
	in := stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return "", err
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, maxTokenFile+1))
	if err != nil {
		return "", err
	}
	if len(text) > maxTokenFile {
		return "", fmt.Errorf("more than %d bytes: this is no token", maxTokenFile)
	}
	raw := strings.TrimSpace(string(text))
	if raw == "" {
		return "", errors.New("there is no token: the input is empty")
	}
	return raw, nil
}
