//go:build !nodemo

package main

import (
	"github.com/spf13/cobra"

	"gatehouse/cmd/gatehouse/internal/demo"
)

// demoCommand returns the demo subcommand. Built with the tag nodemo, the
// binary has none.
func demoCommand() *cobra.Command {
	var o demo.Options
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Play the whole story on this machine: identity provider, backends, Redis and the gateway",
		Long: `Start an identity provider, two backends, a Redis and the gateway from routes.yaml,
all in this process and on loopback; send good and bad requests and print each
with its answer. Then stay up for you to try, until Ctrl-C.`,
		Args: cobra.NoArgs,
	}
	file := configFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		o.Config, o.Out, o.Log = *file, cmd.OutOrStdout(), cmd.ErrOrStderr()
		return demo.Run(cmd.Context(), o)
	}
	cmd.Flags().BoolVar(&o.Once, "once", false, "end after the story; status 0 only if every answer was the expected one")
	cmd.Flags().BoolVar(&o.Verbose, "verbose", false, "show the gateway's own log on standard error")
	return cmd
}
