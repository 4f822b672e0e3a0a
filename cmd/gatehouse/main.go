// Command gatehouse is an API gateway that validates tokens at the edge.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"unicode"

	"github.com/spf13/cobra"

	"gatehouse/gateway"
	"gatehouse/gateway/config"
)

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
	root := rootCommand()
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

// rootCommand is the whole command line.
func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "gatehouse",
		Short: "An API gateway that validates tokens at the edge",
		Long: `Gatehouse is an API gateway that validates tokens at the edge: one program, one
file. To begin with:

  gatehouse init     # writes a commented routes.yaml
  gatehouse check    # says what is wrong with it, by line and column
  gatehouse serve    # serves it`,
		Version:       build(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddGroup(
		&cobra.Group{ID: running, Title: "Running it:"},
		&cobra.Group{ID: writing, Title: "Writing its configuration:"},
		&cobra.Group{ID: tokens, Title: "Tokens:"},
	)
	for group, commands := range map[string][]*cobra.Command{
		running: {serveCommand(), healthcheckCommand(), demoCommand()},
		writing: {initCommand(), checkCommand(), explainCommand(), privilegesCommand(), schemaCommand()},
		tokens:  {tokenCommand(), revokeCommand(), unrevokeCommand(), revocationsCommand()},
		"":      {manCommand()},
	} {
		for _, c := range commands {
			if c != nil { // built without it
				c.GroupID = group
				root.AddCommand(c)
			}
		}
	}
	return root
}

// The groups of the commands, as the help shows them.
const (
	running = "running"
	writing = "writing"
	tokens  = "tokens"
)

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

// printable makes what a token says of itself fit for a terminal.
func printable(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(s)
	}
	return s
}

// configFlag adds the flag that every command has that reads the file.
func configFlag(c *cobra.Command) *string {
	file := c.Flags().StringP("config", "c", "routes.yaml", "the configuration `file`")
	_ = c.MarkFlagFilename("config", "yaml", "yml") // for completion; the flag is there
	return file
}

// loadConfig reads the file; where there is none, it says how to get one.
func loadConfig(file string) (*config.Config, error) {
	cfg, _, err := config.Load(file, config.Options{})
	return cfg, withHint(err)
}
