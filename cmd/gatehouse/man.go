//go:build man

package main

import (
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// manCommand writes the manual pages, for those who package the program. Only the
// build tag man has it: what turns help into pages is nothing that a gateway
// should carry.
func manCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "man directory",
		Short:  "Write the manual pages",
		Args:   cobra.ExactArgs(1),
		Hidden: true,
		RunE: func(c *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			root := c.Root()
			root.DisableAutoGenTag = true // the same source gives the same page, with SOURCE_DATE_EPOCH
			return doc.GenManTree(root, &doc.GenManHeader{Section: "1", Source: "Gatehouse " + version, Manual: "Gatehouse"}, args[0])
		},
	}
}
