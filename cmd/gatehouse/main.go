// Command gatehouse is an API gateway that validates tokens at the edge.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"unicode"

	"github.com/spf13/cobra"

	"gatehouse/gateway"
	"gatehouse/gateway/config"
)

// version is set when a release is built (-ldflags "-X main.version=…").
var version = ""

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is main without the process around it, so that tests can start it. It
// returns the exit status: 0, or 1 after an error, which it prints to stderr, or 2
// where that is an [unusable].
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	root := &cobra.Command{
		Use:           "gatehouse",
		Short:         "An API gateway that validates tokens at the edge",
		Version:       releaseVersion(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(serveCommand(), checkCommand(), explainCommand(), privilegesCommand(), schemaCommand(), initCommand(), revokeCommand(), unrevokeCommand(), revocationsCommand(), tokenCommand())
	if demo := demoCommand(); demo != nil {
		root.AddCommand(demo)
	}
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(stderr, "gatehouse:", gateway.Redact(err.Error())) // --token-file with the token itself, say
		if errors.As(err, &unusable{}) {
			return 2
		}
		return 1
	}
	return 0
}

// unusable is the error of a command that could not begin, where its answers
// have exit statuses of their own.
type unusable struct{ error }

// unusableArguments makes c's own faults of its command line unusable, too.
func unusableArguments(c *cobra.Command) *cobra.Command {
	args := c.Args
	c.Args = func(c *cobra.Command, given []string) error {
		if err := args(c, given); err != nil {
			return unusable{err}
		}
		return nil
	}
	c.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return unusable{err} })
	return c
}

func releaseVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

// printable makes what a token says of itself fit for a terminal.
func printable(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(s)
	}
	return s
}

// configFlag adds the flag that every command has that reads the file.
func configFlag(c *cobra.Command) *string {
	return c.Flags().StringP("config", "c", "routes.yaml", "the configuration `file`")
}

// loadConfig reads the file; where there is none, it says how to get one.
func loadConfig(file string) (*config.Config, error) {
	cfg, _, err := config.Load(file, config.Options{})
	return cfg, withHint(err)
}
