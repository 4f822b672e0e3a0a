package main

import (
	"errors"
	"fmt"

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
warnings for what is allowed but suspicious. The exit status is 0 without faults.

A reload of a running gateway takes every change but one: listen addresses
(server.listen, server.status) stay what they were until a restart.`,
	}
	file := configFlag(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, warnings, err := loadConfig(*file)
		if err == nil {
			err = gateway.Check(cfg)
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
		fmt.Fprintf(c.OutOrStdout(), "%s: ok: %s, %s\n", *file, count(len(cfg.Routes), "route"), count(len(cfg.Issuers), "issuer"))
		return nil
	}
	return c
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
