package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"gatehouse/gateway"
	"gatehouse/gateway/config"
)

// serveSettle is long enough for a program that writes a file piece by piece: of a
// route that is cut in the middle, the rest may be one that asks for less.
const serveSettle = 250 * time.Millisecond

func serveCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "serve",
		Short: "Serve requests until SIGTERM or SIGINT; reload the file when it changes",
		Args:  cobra.NoArgs,
		Long: `Serve reads the configuration, fetches the keys of its issuers and serves.

The file is reloaded when it, or a policy, a key, a certificate or an included
file that it names, has changed and then been at rest for a moment, and at
SIGHUP; with --watch=false at SIGHUP only. A file with faults changes nothing,
and the log names them. Listen addresses cannot change by a reload.

SIGTERM and SIGINT drain: /readyz goes false, requests in flight and upgraded
connections finish within the grace, then the exit status is 0. A second signal
ends the process at once.

Logs go to standard error, as JSON or as text. GOMEMLIMIT is nine tenths of the
container's memory limit unless the environment sets it; GOMAXPROCS is the CPU
limit; GOGC follows the heap, at least 100, unless the environment sets it.`,
	}
	file := configFlag(c)
	watch := c.Flags().Bool("watch", true, "reload when a file of the configuration changes")
	grace := c.Flags().Duration("grace", 25*time.Second, "how long requests in flight may go on when draining")
	format := c.Flags().String("log-format", "json", "how logs are written: json, or text (key=value)")
	c.RunE = func(c *cobra.Command, _ []string) error {
		log, err := logger(c.ErrOrStderr(), *format)
		if err != nil {
			return err
		}
		fitContainer(c.Context(), log)
		hangup := make(chan os.Signal, 1)
		signal.Notify(hangup, syscall.SIGHUP) // from the start: unhandled, it would end the process
		defer signal.Stop(hangup)
		files := gateway.Files{}
		cfg, err := load(log, *file, files)
		if err != nil {
			return err
		}
		version, _ := release()
		fitCollector(c.Context())
		g, err := gateway.New(c.Context(), cfg, gateway.Options{Logger: log, Grace: *grace, Version: version})
		if err != nil {
			return err
		}
		if !*watch {
			files = nil
		}
		ctx, stop := context.WithCancel(c.Context())
		reloaded := make(chan struct{})
		go func() {
			defer close(reloaded)
			reloadOnChange(ctx, hangup, log, g, *file, files)
		}()
		err = g.Serve(ctx, nil, nil)
		stop()
		<-reloaded
		if closed := g.Close(); err == nil {
			err = closed
		}
		return err
	}
	return c
}

// logger writes to w in that format.
func logger(w io.Writer, format string) (*slog.Logger, error) {
	switch format {
	case "json":
		return gateway.NewJSONLog(w), nil
	case "text":
		return gateway.NewTextLog(w), nil
	}
	return nil, fmt.Errorf("--log-format is %q; it can be json or text", format)
}

// load notes in files what the configuration is read from.
func load(log *slog.Logger, file string, files gateway.Files) (*config.Config, error) {
	cfg, warnings, err := config.Load(file, config.Options{Reads: files.Note})
	for _, w := range warnings {
		log.Warn("configuration", "at", w.Pos.String(), "warning", w.Message)
	}
	return cfg, withHint(err)
}

// reloadOnChange reloads, until ctx ends, when one of files changes and at SIGHUP;
// at SIGHUP alone where files is nil.
func reloadOnChange(ctx context.Context, hangup <-chan os.Signal, log *slog.Logger, g *gateway.Gateway, file string, files gateway.Files) {
	watch := files != nil
	gateway.Watch(ctx, files, serveSettle, hangup, func() gateway.Files {
		files := gateway.Files{}
		if err := g.ReloadFrom(ctx, func() (*config.Config, error) { return load(log, file, files) }); err != nil {
			log.Error("the configuration was not reloaded; the old one serves on", "error", err)
		}
		if !watch {
			return nil
		}
		return files
	})
}
