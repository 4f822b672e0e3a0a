package main

import (
	"github.com/spf13/cobra"

	"gatehouse/gateway/config"
)

func schemaCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of routes.yaml, for editors",
		Args:  cobra.NoArgs,
		Long: `Schema prints the JSON Schema (2020-12) of routes.yaml, or of a policy. Editors
complete and check with it what one value says; gatehouse check sees all of them.

  gatehouse schema > routes.schema.json
  # and as the first line of routes.yaml:
  # yaml-language-server: $schema=routes.schema.json`,
	}
	policy := c.Flags().Bool("policy", false, "that of the files in policies/")
	c.RunE = func(c *cobra.Command, _ []string) error {
		text := config.Schema()
		if *policy {
			text = config.PolicySchema()
		}
		_, err := c.OutOrStdout().Write(text)
		return err
	}
	return c
}
