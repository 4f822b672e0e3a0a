//go:build nodemo

package main

import "github.com/spf13/cobra"

// demoCommand returns nil: this binary was built without the demo.
func demoCommand() *cobra.Command { return nil }
