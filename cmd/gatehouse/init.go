package main

import (
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"
)

// smallest is the smallest useful file, commented.
//
//go:embed smallest.yaml
var smallest []byte

func initCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "init [file]",
		Short: "Write the smallest useful configuration, commented",
		Long: `Init writes the smallest useful configuration to a new file, routes.yaml unless
another one is named. It overwrites nothing.`,
		Args: cobra.MaximumNArgs(1),
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		name := "routes.yaml"
		if len(args) == 1 {
			name = args[0]
		}
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("%s is there already and was left as it is; name another file", name)
		}
		if err != nil {
			return err
		}
		if _, err := f.Write(smallest); err != nil {
			_ = f.Close()
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
		fmt.Fprintf(c.OutOrStdout(), "wrote %s; edit it, then run: gatehouse check --config %s && gatehouse serve --config %s\n", name, name, name)
		return nil
	}
	return c
}
