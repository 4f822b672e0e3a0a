package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"gatehouse/gateway"
	"gatehouse/gateway/config"
)

func serveCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "serve",
		Short: "Serve requests until SIGTERM or SIGINT; SIGHUP reloads the file",
		Args:  cobra.NoArgs,
		Long: `Serve reads the configuration, fetches the keys of its issuers and serves.

SIGHUP reloads the file; a file with faults changes nothing, and the log names
them. Listen addresses cannot change by a reload. SIGTERM and SIGINT drain:
/readyz goes false, requests in flight and upgraded connections finish within
the grace, then the exit status is 0. Logs are JSON on standard error.`,
	}
	file := configFlag(c)
	grace := c.Flags().Duration("grace", 25*time.Second, "how long requests in flight may go on when draining")
	c.RunE = func(c *cobra.Command, _ []string) error {
		log := slog.New(slog.NewJSONHandler(c.ErrOrStderr(), nil))
		hangup := make(chan os.Signal, 1)
		signal.Notify(hangup, syscall.SIGHUP) // from the start: unhandled, it would end the process
		defer signal.Stop(hangup)
		cfg, err := load(log, *file)
		if err != nil {
			return err
		}
		g, err := gateway.New(c.Context(), cfg, gateway.Options{Logger: log, Grace: *grace})
		if err != nil {
			return err
		}
		ctx, stop := context.WithCancel(c.Context())
		reloaded := reloadOnHangup(ctx, hangup, log, g, *file)
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

func load(log *slog.Logger, file string) (*config.Config, error) {
	cfg, warnings, err := loadConfig(file)
	for _, w := range warnings {
		log.Warn("configuration", "at", w.Pos.String(), "warning", w.Message)
	}
	return cfg, err
}

// reloadOnHangup reloads until ctx ends; the channel is closed when the last
// reload is over.
func reloadOnHangup(ctx context.Context, hangup <-chan os.Signal, log *slog.Logger, g *gateway.Gateway, file string) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-ctx.Done():
				return
			case <-hangup:
			}
			cfg, err := load(log, file)
			if err == nil {
				err = g.Reload(ctx, cfg)
			}
			if err != nil {
				log.Error("the configuration was not reloaded; the old one serves on", "error", err)
			}
		}
	}()
	return done
}
