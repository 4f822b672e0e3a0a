package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"

	"gatehouse/gateway"
	"gatehouse/gateway/config"
)

// checkSettle keeps a save's several changes together; half a file does no harm here.
const checkSettle = 20 * time.Millisecond

func checkCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "check",
		Short: "Check the configuration, with every fault by line and column",
		Args:  cobra.NoArgs,
		Long: `Check reads the configuration and everything that it names, as serve would,
and connects to nothing. It prints every fault as file:line:column: message, and
warnings for what is allowed but suspicious, and runs the file's own tests and
those of the policies that its routes name. The exit status is 0 without faults
and failures, else 1.

With --watch it does so again whenever one of these files changes, until it is
interrupted.

A reload of a running gateway takes every change but one: where it listens
(server.listen, server.status), and whether with TLS, stays until a restart.`,
	}
	file := configFlag(c)
	asJSON := c.Flags().Bool("json", false, "print one JSON object, on one line")
	junit := c.Flags().String("junit", "", "write JUnit's XML to this `file`, too")
	watch := c.Flags().Bool("watch", false, "check again whenever a file changes")
	check := func(reads func(string)) error {
		r, err := gateway.CheckFile(*file, config.Options{Reads: reads})
		if err != nil {
			return withHint(err)
		}
		if *junit != "" { // first, so that it is there when the output says how it went
			err = writeJUnit(*junit, r)
		}
		if *asJSON {
			err = errors.Join(err, r.JSON(c.OutOrStdout()))
		} else {
			err = errors.Join(err, r.Text(c.OutOrStdout(), c.ErrOrStderr()))
		}
		return errors.Join(err, r.Err())
	}
	c.RunE = func(c *cobra.Command, _ []string) error {
		if !*watch {
			return check(nil)
		}
		again := func() gateway.Files {
			files := gateway.Files{}
			if err := check(files.Note); err != nil {
				fmt.Fprintln(c.ErrOrStderr(), "gatehouse:", err)
			}
			return files
		}
		gateway.Watch(c.Context(), again(), checkSettle, nil, again)
		return nil
	}
	return c
}

func writeJUnit(path string, r gateway.CheckReport) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(r.JUnit(f), f.Close())
}

// withHint says how to get a configuration where there is none.
func withHint(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w; name another file with --config, or write a first one with: gatehouse init", err)
	}
	return err
}
