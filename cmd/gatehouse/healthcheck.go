package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"gatehouse/gateway"
	"gatehouse/gateway/config"
)

func healthcheckCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "healthcheck",
		Short: "Ask the gateway on this machine whether it is ready",
		Args:  cobra.NoArgs,
		Long: `Healthcheck asks /readyz of a running gateway for a container's health check,
where there is no shell and no curl. The address is server.status of the
configuration, of which nothing else is read: a file with faults, which the
running gateway did not take, does not make it unhealthy.

The exit status is 0 if the gateway is ready, else 1, and one line says why.
Proxies of the environment are not used.

  gatehouse healthcheck --config /etc/gatehouse/routes.yaml
  gatehouse healthcheck --url http://127.0.0.1:9902/livez`,
	}
	file := configFlag(c)
	url := c.Flags().String("url", "", "ask this `URL` instead; no file is read then")
	timeout := c.Flags().Duration("timeout", 2*time.Second, "how long to wait for the answer")
	c.MarkFlagsMutuallyExclusive("config", "url")
	c.RunE = func(c *cobra.Command, _ []string) error {
		ask := *url
		if ask == "" {
			status, err := config.StatusAddress(*file)
			if err != nil {
				return withHint(err)
			}
			if status == "" {
				return fmt.Errorf("%s has no server.status, so nobody can be asked; add status: 127.0.0.1:9902 to server", *file)
			}
			ask = gateway.ReadyURL(status)
		}
		ctx, cancel := context.WithTimeout(c.Context(), *timeout)
		defer cancel()
		if err := gateway.AskReady(ctx, ask); err != nil {
			return err
		}
		fmt.Fprintf(c.OutOrStdout(), "%s answers 200\n", ask)
		return nil
	}
	return c
}
