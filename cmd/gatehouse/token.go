package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"gatehouse/gateway"
)

func tokenCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "token [file]",
		Short: "Say, check by check, what the configured issuers make of a token",
		Args:  cobra.MaximumNArgs(1),
		Long: `Token reads a token from a file, or from standard input without one or with -,
and verifies it as a gateway would: it fetches keys and, if the configuration
has revocation, asks Redis. It prints each check, the claims, and the headers
that a backend would receive. The exit status is 0 only if the token would be
accepted. Whether a route lets it in is the route's matter: its privileges are
not asked for here.

  gatehouse token < token.jwt`,
	}
	file := configFlag(c)
	issuer := c.Flags().String("issuer", "", "the issuer's `name` in the configuration; needed where several have tokens without iss")
	timeout := c.Flags().Duration("timeout", 15*time.Second, "how long to wait for keys and for Redis")
	c.RunE = func(c *cobra.Command, args []string) error {
		name := "-"
		if len(args) == 1 {
			name = args[0]
		}
		raw, err := readToken(c.InOrStdin(), name)
		if err != nil {
			return err
		}
		cfg, err := loadConfig(*file)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(c.Context(), *timeout)
		defer cancel()
		in, err := gateway.Inspect(ctx, cfg, raw, *issuer)
		if err != nil {
			return err
		}
		out := c.OutOrStdout()
		for _, check := range in.Checks {
			verdict := "ok  "
			if !check.Passed {
				verdict = "FAIL"
			}
			fmt.Fprintf(out, "%s  %-16s  %s\n", verdict, check.Name, check.Found)
		}
		if in.Claims != nil {
			fmt.Fprintln(out, "\nclaims")
		}
		for _, claim := range in.Claims {
			fmt.Fprintf(out, "      %-16s  %s\n", printable(claim.Name), printable(claim.Value))
		}
		if in.Headers != nil {
			fmt.Fprintln(out, "\nheaders that a backend would receive")
		}
		for _, header := range in.Headers {
			fmt.Fprintf(out, "      %s\n", header)
		}
		if !in.Accepted() {
			return errors.New("the token would be refused")
		}
		return nil
	}
	return c
}
