package policy

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	_ "time/tzdata" // time zones, where the image has none
)

type methodIn []string

func (methods methodIn) answer(s *state) Truth { return truth(slices.Contains(methods, s.in.Method)) }
func (methodIn) saw(s *state) string           { return s.in.Method }

// holds asks for privileges. Where no claim carries any, or one cannot be read,
// nobody knows which the caller has: the absence of one must not be concluded
// from that.
type holds Requirement

func (q holds) answer(s *state) Truth {
	if _, ok := Requirement(q).Check(s.in.Privileges); ok {
		return True
	}
	if s.in.PrivilegesMissing || s.in.PrivilegesUnreadable {
		return Undecided
	}
	return False
}

func (holds) saw(s *state) string {
	if s.in.PrivilegesMissing {
		return "no claim that carries privileges"
	}
	list := "[" + strings.Join(s.in.Privileges, ", ") + "]"
	if s.in.PrivilegesUnreadable {
		list += " and what cannot be read"
	}
	return list
}

type ipIn []netip.Prefix

func (networks ipIn) answer(s *state) Truth {
	if !s.in.IP.IsValid() {
		return Undecided
	}
	for _, n := range networks {
		if n.Contains(s.in.IP) {
			return True
		}
	}
	return False
}

func (ipIn) saw(s *state) string {
	if !s.in.IP.IsValid() {
		return "not known"
	}
	return s.in.IP.String()
}

// window is a compiled [Time].
type window struct {
	zone                *time.Location
	from, to            int // minutes of the day; both 0: all day
	days                [7]bool
	notBefore, notAfter time.Time
}

func (w *window) answer(s *state) Truth {
	now := s.in.Now
	switch {
	case now.IsZero():
		return Undecided
	case !w.notBefore.IsZero() && now.Before(w.notBefore), !w.notAfter.IsZero() && now.After(w.notAfter):
		return False
	case w.zone == nil:
		return True
	}
	local := now.In(w.zone)
	minute, day := local.Hour()*60+local.Minute(), local.Weekday()
	switch {
	case w.from == w.to:
	case w.from < w.to:
		if minute < w.from || minute >= w.to {
			return False
		}
	case minute < w.to: // past midnight
		day = (day + 6) % 7
	case minute < w.from:
		return False
	}
	return truth(w.days[day])
}

func (w *window) saw(s *state) string {
	switch {
	case s.in.Now.IsZero():
		return "not known"
	case w.zone == nil:
		return s.in.Now.UTC().Format(time.RFC3339)
	}
	return s.in.Now.In(w.zone).Format("Mon 2006-01-02T15:04:05Z07:00")
}
