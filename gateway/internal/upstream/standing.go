package upstream

import (
	"cmp"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	maxTargets = 1024 // of one upstream, whatever a source tells
	mostWeight = 100  // so that the cost of balancing is bounded, too
)

// SourceHealth says how a source of targets fares.
type SourceHealth struct {
	Up      bool      // the last answer was a good one
	Good    time.Time // when it last gave a good answer; zero: never
	Targets int       // as last told
	Err     error     // why it is not up; nil before the first answer
}

// standing is what a source told last, and how it fares. Only changes reach
// the pool and the log. It is safe for concurrent use.
type standing struct {
	log *slog.Logger

	mu     sync.Mutex
	health SourceHealth
	told   []Target // nil: nothing yet
}

// Health says how the source fares.
func (s *standing) Health() SourceHealth {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.health
}

// good takes note of an answer, and sets the targets if they have changed. err
// says what else went wrong, where the answer is good in part.
func (s *standing) good(targets []Target, err error, set func([]Target)) {
	targets = tidy(targets)
	if len(targets) > maxTargets {
		s.bad(fmt.Errorf("%d targets, more than the %d that an upstream may have", len(targets), maxTargets))
		return
	}
	s.mu.Lock()
	told := s.told
	changed := told == nil || !slices.EqualFunc(told, targets, func(a, b Target) bool { return order(a, b) == 0 && a.Weight == b.Weight })
	s.told, s.health.Targets = targets, len(targets)
	s.mu.Unlock()
	s.turn(err)
	if told == nil { // of later changes the pool tells
		s.log.Info("the source of an upstream's targets has answered", "targets", len(targets))
	}
	if changed {
		set(slices.Clone(targets))
	}
}

// bad takes note of an answer that is of no use, or of none.
func (s *standing) bad(err error) { s.turn(err) }

func (s *standing) turn(err error) {
	s.mu.Lock()
	was := s.health.Err
	s.health.Up, s.health.Err = err == nil, err
	if err == nil {
		s.health.Good = time.Now()
	}
	targets := s.health.Targets
	s.mu.Unlock()
	switch {
	case err == nil && was != nil:
		s.log.Info("the source of an upstream's targets is up again", "targets", targets)
	case err != nil && was == nil:
		s.log.Warn("the source of an upstream's targets is down; the last good ones stay", "targets", targets, "error", err)
	}
}

// tidy sorts targets, drops those that stand there twice, and scales weights:
// all 1 where they are equal, else up to mostWeight.
func tidy(targets []Target) []Target {
	list := make([]Target, 0, len(targets))
	list = append(list, targets...)
	slices.SortStableFunc(list, order)
	list = slices.CompactFunc(list, func(a, b Target) bool { return order(a, b) == 0 })
	byWeight := func(a, b Target) int { return cmp.Compare(a.Weight, b.Weight) }
	if len(list) == 0 {
		return list
	}
	most, least := slices.MaxFunc(list, byWeight).Weight, slices.MinFunc(list, byWeight).Weight
	for i := range list {
		if most == least {
			list[i].Weight = 1
		} else {
			list[i].Weight = max(1, (list[i].Weight*mostWeight+most/2)/most)
		}
	}
	return list
}

func order(a, b Target) int {
	return cmp.Or(strings.Compare(a.URL.String(), b.URL.String()), strings.Compare(a.Dial, b.Dial))
}
