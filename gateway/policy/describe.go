package policy

// Policy is what a policy file says, as plain data: rules that allow, tests
// that show what they do, and nothing that denies, since whatever no rule
// allows is denied. [Compile] reads it and never changes it.
type Policy struct {
	Name        string   // as routes call it
	Description string   // for people; may be empty
	Headers     []string // the only request headers that the policy sees
	Allow       []Rule   // in order; the first that holds decides
	Tests       []Test   // at least one of them expects deny
}

// Rule allows a request if all that its condition says is true. Name is what
// logs and tests call it; without one it is called allow[N].
type Rule struct {
	Name string
	Condition
}

// Condition is the fixed vocabulary of policies. All fields that are set must
// hold. At least one must be set: a rule that asks for nothing would allow
// everything.
//
// Conditions are three-valued (Kleene's logic, as SQL's and CEL's): one about
// something that is missing, of another type, or sent twice is [Undecided],
// its negation too, and only what is [True] allows. So Not opens no door to
// those who leave a claim out.
type Condition struct {
	Methods    []string    // one of them, exactly; GET does not include HEAD
	Privileges Requirement // as a route asks for them
	IPs        []string    // the client's address is in one of these networks (10.0.0.0/8) or is one of these addresses
	Time       *Time
	Claims     []ClaimTest  // all of them
	Headers    []HeaderTest // all of them
	All        []Condition
	Any        []Condition
	Not        *Condition
	When       string // a CEL expression, for the rest
}

// ClaimTest asks something of the claim at Path, which [token.ParsePath] reads.
type ClaimTest struct {
	Path string
	Match
}

// HeaderTest asks something of a request header, which [Policy.Headers] must
// name. A header that was sent twice is [Undecided]: backends differ in which
// of the two they read.
type HeaderTest struct {
	Name string
	Match
}

// Match is one question about a value. Exactly one field is set. The constants
// are strings, booleans, and numbers as [encoding/json.Number], which compare
// by value, exactly, however long they are and however they are written (1e3
// is 1000). A value of another type than the constants' is neither equal nor
// unequal to them: it is [Undecided].
type Match struct {
	Equals   any
	In       []any
	Matches  string // an RE2 pattern for the whole string: it is anchored at both ends
	Param    string // equals the path parameter of that name, byte for byte as it was decoded
	Contains any    // an array has such an item; claims only
	Present  *bool  // is (or is not) there, and not null; never Undecided
}

// Time is a window of time. All that is set must hold.
type Time struct {
	// From and To are times of the day (08:00, to 24:00) in Zone, To excluded. A
	// window may go past midnight; it then belongs to the day on which it began.
	From, To string
	Weekdays []string // mon, tue, wed, thu, fri, sat, sun: the days, in Zone
	Zone     string   // an IANA name, such as Europe/Berlin or UTC; needed by From, To and Weekdays
	// NotBefore and NotAfter are moments (RFC 3339), included themselves.
	NotBefore, NotAfter string
}

// Test is one request and what the policy must say to it.
type Test struct {
	Name string
	// Claims is a JSON object; empty is {}.
	Claims string
	// Privileges are what the issuer's privileges_from finds. nil: the claim
	// privileges is read, as it is by default.
	Privileges []string
	Method     string            // empty: GET
	Params     map[string]string // the path's parameters, decoded
	Headers    map[string]string
	IP         string // empty: not known, so that conditions on it are Undecided
	Time       string // RFC 3339; empty: not known
	Expect     string // allow or deny
	Rule       string // the rule that allows; may be empty
}
