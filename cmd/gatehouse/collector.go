package main

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

const (
	// leastGarbage is how many bytes may gather before they are collected, where
	// less than that is live.
	leastGarbage = 32 << 20
	// usualPercent is Go's GOGC, below which it never falls.
	usualPercent = 100
	// mostPercent is for small heaps, which would be collected many times a second.
	// It is no more since a new percentage comes late: when a heap grows of a
	// sudden, one collection may still go by the old one.
	mostPercent = 200
)

// fitCollector fits GOGC to the live heap after each collection, until ctx ends.
// A GOGC of the environment stays. GOMEMLIMIT comes first, as always.
func fitCollector(ctx context.Context) {
	if os.Getenv("GOGC") == "" {
		(&collector{ctx: ctx, percent: usualPercent}).await()
	}
}

type collector struct {
	ctx     context.Context
	percent int
}

// await has fit called after the next collection: that is when an object which
// nobody holds is found to be gone.
func (c *collector) await() {
	runtime.AddCleanup(&struct{ *collector }{c}, (*collector).fit, c)
}

func (c *collector) fit() {
	if c.ctx.Err() != nil {
		return
	}
	live := [1]metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live[:])
	percent := min(max(usualPercent, int(leastGarbage*100/max(1, live[0].Value.Uint64()))), mostPercent)
	// Each change stops the world for a moment.
	if diff := percent - c.percent; diff > c.percent/10 || -diff > c.percent/10 {
		c.percent = percent
		debug.SetGCPercent(percent)
	}
	c.await()
}
