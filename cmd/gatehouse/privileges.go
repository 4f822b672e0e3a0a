package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"gatehouse/gateway"
)

func privilegesCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "privileges",
		Short: "Print which routes ask for which privileges",
		Args:  cobra.NoArgs,
		Long: `Privileges prints the matrix of routes and privileges, for audits. A cell says
how the route asks for the privilege: all (it is needed), any (it or another one
of these), policy (a rule of the route's policy asks about it). Access is public
(no token is read), optional, any token, or restricted. It connects to nothing.`,
	}
	file := configFlag(c)
	format := c.Flags().String("format", "table", "the `form`: table, markdown or json")
	_ = c.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"table", "markdown", "json"}, cobra.ShellCompDirectiveNoFileComp))
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := loadConfig(*file)
		if err != nil {
			return err
		}
		m, err := gateway.Privileges(cfg)
		if err != nil {
			return err
		}
		switch *format {
		case "table":
			return m.Table(c.OutOrStdout())
		case "markdown":
			return m.Markdown(c.OutOrStdout())
		case "json":
			e := json.NewEncoder(c.OutOrStdout())
			e.SetEscapeHTML(false)
			e.SetIndent("", "  ")
			return e.Encode(m)
		}
		return fmt.Errorf("--format is %q; want table, markdown or json", *format)
	}
	return c
}
