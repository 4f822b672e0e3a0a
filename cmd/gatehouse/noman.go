//go:build !man

package main

import "github.com/spf13/cobra"

// manCommand returns nil: this binary was built without the manual pages.
func manCommand() *cobra.Command { return nil }
