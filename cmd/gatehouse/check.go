package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"gatehouse/gateway"
	"gatehouse/gateway/config"
)

func checkCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "check",
		Short: "Check the configuration, with every fault by line and column",
		Args:  cobra.NoArgs,
		Long: `Check reads the configuration and everything that it names, as serve would,
and connects to nothing. It prints every fault as file:line:column: message, and
warnings for what is allowed but suspicious, and runs the tests of the policies
that the routes name. The exit status is 0 without faults and failures.

A reload of a running gateway takes every change but one: listen addresses
(server.listen, server.status) stay what they were until a restart.`,
	}
	file := configFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, warnings, err := loadConfig(*file)
		var tests []gateway.PolicyTest
		if err == nil {
			tests, err = gateway.RunPolicyTests(cfg)
		}
		for _, w := range warnings {
			fmt.Fprintln(c.ErrOrStderr(), w.Pos.String()+": warning: "+w.Message)
		}
		var faults config.Faults
		if errors.As(err, &faults) {
			fmt.Fprintln(c.ErrOrStderr(), faults)
			return fmt.Errorf("%s has %s", *file, count(len(faults), "fault"))
		}
		if err != nil {
			return err
		}
		if failed := printTests(c.OutOrStdout(), tests); failed > 0 {
			return fmt.Errorf("%s of policies failed", count(failed, "test"))
		}
		fmt.Fprintf(c.OutOrStdout(), "%s: ok: %s, %s\n", *file, count(len(cfg.Routes), "route"), count(len(cfg.Issuers), "issuer"))
		return nil
	}
	return c
}

// printTests prints the results of policies' tests as go test does, and returns
// how many failed.
func printTests(w io.Writer, tests []gateway.PolicyTest) (failed int) {
	for len(tests) > 0 {
		of, bad := 0, 0
		for of < len(tests) && tests[of].Policy == tests[0].Policy {
			of++
		}
		for _, t := range tests[:of] {
			if t.Problem == "" {
				continue
			}
			bad++
			fmt.Fprintf(w, "--- FAIL: %s/%s\n    %s: %s\n", t.Policy, t.Test, t.Pos, t.Problem)
			for _, step := range t.Steps {
				fmt.Fprintf(w, "        %s\n", step)
			}
		}
		if bad > 0 {
			fmt.Fprintf(w, "FAIL\t%s\t%d of %s failed\n", tests[0].Policy, bad, count(of, "test"))
		} else {
			fmt.Fprintf(w, "ok\t%s\t%s\t%s\n", tests[0].Policy, count(of, "test"), tests[0].Took.Round(time.Microsecond))
		}
		failed, tests = failed+bad, tests[of:]
	}
	return failed
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
