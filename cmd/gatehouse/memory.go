package main

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"runtime"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

const (
	// memoryShare of the container's memory is the heap's soft limit; the rest is
	// for what the collector does not see: the program's own pages, the kernel's sockets.
	memoryShare = 0.9
	// memoryAgain is when the limit is read again: Kubernetes resizes pods in place.
	memoryAgain = time.Minute
)

// noMemoryLimit is more than any machine has: an unlimited control group has such numbers.
const noMemoryLimit = 1 << 60

// fitContainer makes the collector work harder before the container's memory
// limit is reached (control groups v1 and v2), where a process would be killed.
// GOMEMLIMIT, if it is set, stays. The runtime itself fits GOMAXPROCS to the
// container's CPU limit. Until ctx ends, changes of the limit are followed.
func fitContainer(ctx context.Context, log *slog.Logger) {
	limit, err := memlimit.Set(memlimit.WithRatio(memoryShare), memlimit.WithRefreshInterval(ctx, memoryAgain))
	if err != nil && !errors.Is(err, memlimit.ErrNoCgroup) && !errors.Is(err, memlimit.ErrCgroupsNotSupported) && !errors.Is(err, fs.ErrNotExist) {
		log.Warn("the container's memory limit cannot be read; set GOMEMLIMIT", "error", err)
	}
	fits := []any{"gomaxprocs", runtime.GOMAXPROCS(0)}
	if limit < noMemoryLimit {
		fits = append(fits, "gomemlimit", limit)
	}
	log.Info("resources", fits...)
}
