package policy

import (
	"strings"

	"gatehouse/gateway/token"
)

// Actor is who acts in a token's subject's name (RFC 8693 §4.1).
type Actor struct {
	// Issuer is act.iss, or the token's own iss where act names none: a subject
	// means something only to the party that gave it its name.
	Issuer string
	// Subject is empty if the token says that somebody acts, but not who.
	Subject string

	own bool // the issuer is the token's own
}

// ActorClaims are the claims that can name an actor: act, and those that
// systems older than RFC 8693 use. The zero ActorClaims look at act alone.
type ActorClaims struct{ paths []actorPath }

type actorPath struct {
	path   token.Path
	around []token.Path // what must be objects for path to lead anywhere
}

// NewActorClaims makes ActorClaims that look at act, and if it is not there,
// at these claims, in order.
func NewActorClaims(paths ...token.Path) ActorClaims {
	var a ActorClaims
	for _, p := range paths {
		ap := actorPath{path: p}
		text := p.String()
		for end := strings.LastIndexAny(text, "./"); end > 0; end = strings.LastIndexAny(text[:end], "./") {
			if around, err := token.ParsePath(text[:end]); err == nil {
				ap.around = append(ap.around, around)
			}
		}
		a.paths = append(a.paths, ap)
	}
	return a
}

// Find returns the actor of a token; acting is false if nobody acts in its
// subject's name. Of nested act claims only the outermost counts: the inner
// ones are history, of which no decision may be made (RFC 8693 §4.1). A claim
// of a type that names nobody still says that somebody acts.
func (a ActorClaims) Find(claims token.Claims) (actor Actor, acting bool) {
	actor = Actor{Issuer: claims.Get("iss").Text(), own: true}
	if act := claims.Get("act"); !empty(act) {
		switch iss := act.Member("iss"); iss.Kind() {
		case token.Missing:
		case token.String:
			actor.own = iss.Text() == actor.Issuer
			actor.Issuer = iss.Text()
		default: // whose subject it is cannot be said
			return Actor{}, true
		}
		actor.Subject = name(act.Member("sub"))
		return actor, true
	}
	for _, p := range a.paths {
		if v := claims.Lookup(p.path); !empty(v) {
			actor.Subject = name(v)
			return actor, true
		}
		for _, around := range p.around {
			// impersonator: bob, where impersonator.id was expected
			if v := claims.Lookup(around); !empty(v) && v.Kind() != token.Object {
				return Actor{}, true
			}
		}
	}
	return Actor{}, false
}

// empty says whether a claim says nothing.
func empty(v token.Value) bool {
	return v.Kind() == token.Missing || v.Kind() == token.Null || v.Kind() == token.String && v.Text() == ""
}

// name returns the subject that v names, or "".
func name(v token.Value) string {
	if v.Kind() == token.String || v.Kind() == token.Number {
		return v.Text()
	}
	return ""
}

// Delegation says who may act in others' names. The zero Delegation lets
// everybody whom the issuer lets. It is immutable and safe for concurrent use.
type Delegation struct {
	Deny bool // nobody
	// Actors, if there are any, are the only ones, by issuer and subject. One
	// without an issuer is a subject of the token's own issuer.
	Actors []Actor
}

// Check says whether the actor that [ActorClaims.Find] found may act. detail
// is for the operator's log.
func (d Delegation) Check(actor Actor, acting bool) (detail string, ok bool) {
	if !acting || !d.Deny && len(d.Actors) == 0 {
		return "", true
	}
	if d.Deny {
		return "delegation is denied, and " + actor.String() + " acts for the subject", false
	}
	for _, a := range d.Actors {
		if a.Subject == actor.Subject && a.Subject != "" && (a.Issuer == actor.Issuer || a.Issuer == "" && actor.own) {
			return "", true
		}
	}
	return actor.String() + " acts for the subject and is none of the actors that may", false
}

// String names the actor for a log.
func (a Actor) String() string {
	switch {
	case a.Subject == "":
		return "somebody who is not named"
	case a.Issuer == "":
		return a.Subject
	}
	return a.Subject + " of " + a.Issuer
}
