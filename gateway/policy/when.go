package policy

import (
	"cmp"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/env"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/stdlib"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"cel.dev/cel-go/ext"
	"cel.dev/cel-go/interpreter"

	"gatehouse/gateway/token"
)

// The bounds of an expression, beside what it may cost.
const (
	maxExpression    = 4096 // characters
	maxComprehension = 2    // exists inside exists; a third would be cubic in what a caller sends
	maxRegexp        = 2000 // instructions of a regular expression
	nVariables       = 7
)

// variables are what an expression can read. What is not known is no value of
// its own: an expression that needs it is Undecided.
var variables = [nVariables]struct {
	name string
	kind *cel.Type
	of   func(s *state) ref.Val // nil: not known
}{
	{"claims", cel.MapType(cel.StringType, cel.DynType), func(s *state) ref.Val {
		members := map[string]token.Value{}
		for name, v := range s.in.Claims.All() {
			members[name] = v
		}
		return types.NewMap(adapter{map[token.Value]ref.Val{}}, members)
	}},
	{"privileges", cel.ListType(cel.StringType), func(s *state) ref.Val {
		if s.in.PrivilegesMissing {
			return nil
		}
		if s.in.PrivilegesUnreadable {
			return newUncertain(s.in.Privileges)
		}
		return types.NewStringList(adapter{}, s.in.Privileges)
	}},
	{"method", cel.StringType, func(s *state) ref.Val { return types.String(s.in.Method) }},
	{"params", cel.MapType(cel.StringType, cel.StringType), func(s *state) ref.Val {
		params := map[string]string{}
		for _, name := range s.policy.params {
			if p := s.in.param(name); p != "" {
				params[name] = p
			}
		}
		return types.NewStringStringMap(adapter{}, params)
	}},
	{"headers", cel.MapType(cel.StringType, cel.StringType), func(s *state) ref.Val { // names in lower case
		headers := map[string]any{}
		for _, name := range s.policy.headers {
			if alias := s.in.alias(name); alias != "" {
				return types.NewErr("%s was sent, which a backend may read as %s", alias, name)
			}
			switch v := s.in.header(name); v.kind {
			case token.Missing:
			case token.String:
				headers[strings.ToLower(name)] = v.text
			default: // it is there, but nobody should read it
				headers[strings.ToLower(name)] = types.NewErr("%s was sent more than once", name)
			}
		}
		return types.NewStringInterfaceMap(adapter{}, headers)
	}},
	{"ip", ext.IPType, func(s *state) ref.Val {
		if !s.in.IP.IsValid() {
			return nil
		}
		return ext.IP{Addr: s.in.IP}
	}},
	{"now", cel.TimestampType, func(s *state) ref.Val {
		if s.in.Now.IsZero() {
			return nil
		}
		return types.Timestamp{Time: s.in.Now.UTC()}
	}},
}

// variable returns the number of the variable of that name, or -1.
func variable(name string) int {
	for n := range variables {
		if variables[n].name == name {
			return n
		}
	}
	return -1
}

// environment is the same for all policies, and takes a while to make.
var environment = sync.OnceValues(func() (*cel.Env, error) {
	// The functions that take a time zone by name would open its file while a
	// request waits; time: does that when the policy is read.
	without := env.NewLibrarySubset()
	for _, f := range stdlib.Functions() {
		var zoned []*env.Overload
		for _, o := range f.OverloadDecls() {
			if strings.HasSuffix(o.ID(), "_with_tz") {
				zoned = append(zoned, &env.Overload{ID: o.ID()})
			}
		}
		if zoned != nil {
			without.AddExcludedFunctions(env.NewFunction(f.Name(), zoned...))
		}
	}
	options := []cel.EnvOption{
		cel.StdLib(cel.StdLibSubset(without)),
		ext.Network(),
		cel.DefaultUTCTimeZone(true),
		cel.CrossTypeNumericComparisons(true),
		cel.ParserExpressionSizeLimit(maxExpression),
		cel.RegexProgramSizeLimit(maxRegexp),
		cel.ASTValidators(
			cel.ValidateRegexLiterals(), cel.ValidateTimestampLiterals(), cel.ValidateDurationLiterals(),
			cel.ValidateHomogeneousAggregateLiterals(), cel.ValidateComprehensionNestingLimit(maxComprehension),
		),
	}
	for _, v := range variables {
		options = append(options, cel.Variable(v.name, v.kind))
	}
	return cel.NewCustomEnv(options...)
})

// expression is a compiled CEL expression.
type expression struct {
	program cel.Program
	reads   []read
}

// read is something that an expression reads: claims.sub.
type read struct {
	text, variable, name string
	claim                token.Path
}

// expression compiles source, which must give a bool.
func (c *compiler) expression(path, source string) question {
	celEnv, err := environment()
	if err != nil {
		c.fault(path, "%v", err)
		return nil
	}
	checked, issues := celEnv.Compile(source)
	if issues.Err() != nil {
		for _, e := range issues.Errors() {
			f := Fault{Path: path, Message: teach(e.Message)}
			if e.Location.Line() > 0 {
				f.Line, f.Column = e.Location.Line(), e.Location.Column()+1
			}
			c.faults = append(c.faults, f)
		}
		return nil
	}
	if t := checked.OutputType(); !t.IsExactType(cel.BoolType) {
		hint := ""
		if t.IsExactType(cel.DynType) {
			hint = "; a claim may have any type, so compare it: claims.admin == true"
		}
		c.fault(path, "the expression gives %s, want bool%s", cel.FormatCELType(t), hint)
		return nil
	}
	x := &expression{reads: c.reads(path, checked)}
	x.program, err = celEnv.Program(checked,
		cel.CustomDecoratorV2(strict(checked)), cel.EvalOptions(cel.OptOptimize), cel.CostLimit(c.options.MaxCost), cel.CostTracking(prices{}))
	if err != nil {
		c.fault(path, "%v", err)
	}
	return x
}

// teach adds what CEL does not say itself.
func teach(message string) string {
	switch {
	case strings.Contains(message, "applied to 'timestamp.(string)'"):
		return message + "; expressions know UTC only, time: takes a zone"
	case strings.HasPrefix(message, "undeclared reference") && !strings.Contains(message, "did you mean"):
		return message + "; an expression can read claims, privileges, method, params, headers, ip and now"
	}
	return message
}

// reads finds what an expression reads, and faults what it can never find.
func (c *compiler) reads(path string, checked *cel.Ast) []read {
	var reads []read
	tree := ast.NavigateAST(checked.NativeRep())
	for _, e := range ast.MatchDescendants(tree, ast.KindMatcher(ast.IdentKind)) {
		name := e.AsIdent()
		if variable(name) < 0 {
			continue
		}
		asked, isAsked := member(e) // "asked" in e
		r := read{text: name, variable: name}
		switch name {
		case "claims":
			escape, pointer := strings.NewReplacer("~", "~0", "/", "~1"), ""
			for at, name, ok := step(e); ok; at, name, ok = step(at) {
				r.text += "." + name
				pointer += "/" + escape.Replace(name)
			}
			if pointer != "" {
				r.claim = token.MustPath(pointer)
			}
		case "headers", "params":
			_, key, ok := step(e)
			if !ok && !isAsked {
				c.fault(path, "%s is read by name, as in %s[%q]", name, name, "some-name")
				continue
			}
			r.name = cmp.Or(key, asked)
			r.text += "." + r.name
			if name == "params" {
				c.params[r.name] = true
			} else if lower := strings.ToLower(c.header(path, r.name)); r.name != lower {
				c.fault(path, "headers has its names in lower case: headers[%q]", lower)
			}
		case "privileges":
			if isAsked {
				c.privileges[asked] = true
			}
		}
		if !slices.ContainsFunc(reads, func(other read) bool { return other.text == r.text }) {
			reads = append(reads, r)
		}
	}
	if len(reads) == 0 {
		c.fault(path, "the expression reads nothing of the request, so it is the same for everyone")
	}
	return reads
}

// step follows one constant step from e: e.name, has(e.name) or e["name"].
func step(e ast.NavigableExpr) (parent ast.NavigableExpr, name string, ok bool) {
	parent, ok = e.Parent()
	if !ok {
		return nil, "", false
	}
	switch parent.Kind() {
	case ast.SelectKind:
		return parent, parent.AsSelect().FieldName(), true
	case ast.CallKind:
		call := parent.AsCall()
		if args := call.Args(); call.FunctionName() == operators.Index && args[0].ID() == e.ID() && args[1].Kind() == ast.LiteralKind {
			s, ok := args[1].AsLiteral().(types.String)
			return parent, string(s), ok
		}
	}
	return nil, "", false
}

// member returns the constant in "constant" in e.
func member(e ast.NavigableExpr) (string, bool) {
	parent, ok := e.Parent()
	if !ok || parent.Kind() != ast.CallKind || parent.AsCall().FunctionName() != operators.In {
		return "", false
	}
	args := parent.AsCall().Args()
	if args[1].ID() != e.ID() || args[0].Kind() != ast.LiteralKind {
		return "", false
	}
	s, ok := args[0].AsLiteral().(types.String)
	return string(s), ok
}

func (x *expression) answer(s *state) Truth {
	s.err = nil
	if s.cost >= decisions*s.policy.maxCost {
		s.err = errors.New("the expressions before it have cost all that one decision may")
		return Undecided
	}
	out, details, err := x.program.Eval(s)
	if cost := details.ActualCost(); cost != nil {
		s.cost += *cost
	}
	if err != nil {
		s.err = err
		return Undecided
	}
	return truth(out == types.True)
}

func (x *expression) saw(s *state) string {
	var b strings.Builder
	if s.err != nil {
		b.WriteString(s.err.Error())
	}
	for _, r := range x.reads {
		if b.Len() > 0 {
			b.WriteString(", ")
		}
		b.WriteString(r.text + " is " + s.show(r))
	}
	return b.String()
}

// show is how recorders see what an expression reads.
func (s *state) show(r read) string {
	switch r.variable {
	case "claims":
		if r.claim.IsZero() {
			return "read as a whole"
		}
		return show(s.in.Claims.Lookup(r.claim))
	case "privileges":
		return holds{}.saw(s)
	case "method":
		return s.in.Method
	case "params":
		return strconv.Quote(s.in.param(r.name))
	case "headers":
		return (&headerTest{name: s.canonical(r.name)}).saw(s)
	case "ip":
		return ipIn{}.saw(s)
	}
	return (&window{}).saw(s)
}

func (s *state) canonical(name string) string {
	for _, h := range s.policy.headers {
		if strings.EqualFold(h, name) {
			return h
		}
	}
	return ""
}

// ResolveName gives an expression a variable; false makes it Undecided.
func (s *state) ResolveName(name string) (any, bool) {
	n := variable(name)
	if n < 0 {
		return nil, false
	}
	if s.vars[n] == nil {
		s.vars[n] = variables[n].of(s)
	}
	return s.vars[n], s.vars[n] != nil
}

// Parent implements cel.Activation.
func (s *state) Parent() cel.Activation { return nil }

// adapter shows claims to CEL one level at a time, so that a token full of
// what no expression reads costs nothing.
type adapter struct {
	lists map[token.Value]ref.Val // made before: a loop asks for one again and again
}

func (a adapter) NativeToValue(v any) ref.Val {
	claim, ok := v.(token.Value)
	if !ok {
		return types.DefaultTypeAdapter.NativeToValue(v)
	}
	switch claim.Kind() {
	case token.String:
		return types.String(claim.Text())
	case token.Bool:
		return types.Bool(claim.Text() == "true")
	case token.Number:
		return number(claim.Text())
	case token.Array:
		if made, ok := a.lists[claim]; ok {
			return made
		}
		items := slices.Collect(claim.Items())
		for _, item := range items {
			// A list that compares an error to what is looked for would say "not in".
			if item.Kind() == token.Number {
				if n := number(item.Text()); types.IsError(n) {
					return n
				}
			}
		}
		made := types.NewList(a, items)
		if a.lists != nil {
			a.lists[claim] = made
		}
		return made
	case token.Object:
		members := map[string]token.Value{}
		for name, v := range claim.Members() {
			members[name] = v
		}
		return types.NewMap(a, members)
	}
	return types.NullValue
}

// number gives CEL a claim's number exactly: int or uint if it is written as a
// whole number, else double. What would have to be rounded to a whole number
// (past 64 bits, or a double past 2^53) is an error, so that it equals nothing:
// two users' numbers must not become one. Fractions are doubles, as everywhere.
func number(text string) ref.Val {
	if i, err := strconv.ParseInt(text, 10, 64); err == nil {
		return types.Int(i)
	}
	if u, err := strconv.ParseUint(text, 10, 64); err == nil {
		return types.Uint(u)
	}
	if strings.ContainsAny(text, ".eE") {
		if f, err := strconv.ParseFloat(text, 64); err == nil && math.Abs(f) < 1<<53 {
			return types.Double(f)
		}
	}
	return types.NewErr("a number is too large to be compared exactly")
}

// prices says what it costs to look through a claim. CEL knows that of lists
// whose type is known when an expression is compiled, which a claim's is not:
// it would call each look one step, however long the list.
type prices struct{}

// CallCost implements cost.ActualCostEstimator.
func (prices) CallCost(function, _ string, args []ref.Val, _ ref.Val) *uint64 {
	var price uint64
	switch function {
	case operators.In:
		price = 1 + size(args[1])
	case operators.Equals, operators.NotEquals:
		price = 1 + min(size(args[0]), size(args[1]))
	default:
		return nil
	}
	return &price
}

// size is how many values a claim holds, itself left out, or a tenth of how many bytes.
func size(v ref.Val) (n uint64) {
	list, isList := v.(traits.Lister)
	switch v := v.Value().(type) {
	case []token.Value:
		for _, item := range v {
			n += 1 + claimSize(item)
		}
	case map[string]token.Value:
		for _, item := range v {
			n += 1 + claimSize(item)
		}
	case string:
		n = uint64(len(v) / 10)
	default:
		if isList {
			length, _ := list.Size().Value().(int64)
			n = uint64(max(0, length))
		}
	}
	return n
}

func claimSize(v token.Value) (n uint64) {
	for item := range v.Items() {
		n += 1 + claimSize(item)
	}
	for _, item := range v.Members() {
		n += 1 + claimSize(item)
	}
	return n
}

// strict replaces ==, != and in, and what exists, all and the like walk over.
// CEL calls values of two types unequal, so claims.role != "guest" would be
// true of a token whose role is ["guest"], or 7; and it takes the names of an
// object's members for a list. Here, as in the fixed vocabulary, what is of
// another type is Undecided; only a comparison with the literal null may be of
// any type. And of privileges that cannot all be read only those that are there
// count: that others are not, how many they are and whether they are the same as
// others is Undecided.
func strict(checked *cel.Ast) interpreter.InterpretableDecoratorV2 {
	ranges, whole, all := map[int64]bool{}, map[int64]bool{}, map[int64]bool{}
	tree := ast.NavigateAST(checked.NativeRep())
	for _, e := range ast.MatchDescendants(tree, ast.KindMatcher(ast.ComprehensionKind)) {
		ranges[e.AsComprehension().IterRange().ID()] = true
	}
	for _, e := range ast.MatchDescendants(tree, ast.KindMatcher(ast.IdentKind)) {
		whole[e.ID()] = e.AsIdent() == "claims"
		all[e.ID()] = e.AsIdent() == "privileges" && !oneByOne(e)
	}
	return func(i interpreter.InterpretableV2) (interpreter.InterpretableV2, error) {
		if ranges[i.ID()] {
			return listOnly{i}, nil
		}
		if a, ok := i.(interpreter.InterpretableAttribute); ok && all[i.ID()] {
			if _, variable := a.Attr().(interpreter.NamespacedAttribute); variable { // not a second time, with a step behind it
				return certain{i}, nil
			}
		}
		call, ok := i.(interpreter.InterpretableCall)
		if !ok || len(call.Args()) != 2 {
			return i, nil
		}
		left, right := call.Args()[0], call.Args()[1]
		switch call.Function() {
		case operators.Equals, operators.NotEquals:
			if isNull(left) || isNull(right) {
				return i, nil
			}
			return comparison{i, call, left, right, call.Function() == operators.NotEquals}, nil
		case operators.In:
			return membership{comparison{i, call, left, right, false}, whole[right.ID()]}, nil
		}
		return i, nil
	}
}

// oneByOne says whether of the list e is only asked what is in it.
func oneByOne(e ast.NavigableExpr) bool {
	parent, ok := e.Parent()
	if !ok {
		return false
	}
	switch parent.Kind() {
	case ast.ComprehensionKind:
		return parent.AsComprehension().IterRange().ID() == e.ID()
	case ast.CallKind:
		call := parent.AsCall()
		return call.FunctionName() == operators.In && call.Args()[1].ID() == e.ID()
	}
	return false
}

// uncertain are privileges of which not all can be read. Behind those that can
// stands an error, which ends what has to look so far.
type uncertain struct {
	traits.Lister
	err ref.Val
}

func newUncertain(privileges []string) uncertain {
	err := types.NewErr("not all privileges can be read: a claim that carries them, or an item of one, is of another type")
	items := make([]ref.Val, 0, len(privileges)+1)
	for _, p := range privileges {
		items = append(items, types.String(p))
	}
	return uncertain{types.NewRefValList(adapter{}, append(items, err)), err}
}

// Contains implements traits.Container.
func (l uncertain) Contains(item ref.Val) ref.Val {
	if l.Lister.Contains(item) == types.True {
		return types.True
	}
	return l.err
}

// certain is privileges where more is asked of them than [oneByOne].
type certain struct{ interpreter.InterpretableV2 }

// Eval implements interpreter.Interpretable.
func (c certain) Eval(a interpreter.Activation) ref.Val {
	return interpreter.EvalActivation(a, c.Exec)
}

// Exec implements interpreter.InterpretableV2.
func (c certain) Exec(frame *interpreter.ExecutionFrame) ref.Val {
	v := c.InterpretableV2.Exec(frame)
	if l, ok := v.(uncertain); ok {
		return l.err
	}
	return v
}

// listOnly is what a macro walks over.
type listOnly struct{ interpreter.InterpretableV2 }

// Eval implements interpreter.Interpretable.
func (l listOnly) Eval(a interpreter.Activation) ref.Val {
	return interpreter.EvalActivation(a, l.Exec)
}

// Exec implements interpreter.InterpretableV2.
func (l listOnly) Exec(frame *interpreter.ExecutionFrame) ref.Val {
	v := l.InterpretableV2.Exec(frame)
	if _, ok := v.(traits.Lister); !ok && !types.IsUnknownOrError(v) {
		return types.NewErr("%s is no list", v.Type().TypeName())
	}
	return v
}

func isNull(i interpreter.InterpretableV2) bool {
	c, ok := i.(interpreter.InterpretableConst)
	return ok && c.Value() == types.NullValue
}

// comparison is a strict == or !=. It is no InterpretableCall, or CEL would
// put its own sets in its place.
type comparison struct {
	interpreter.InterpretableV2
	call        interpreter.InterpretableCall // for what it costs
	left, right interpreter.InterpretableV2
	negated     bool
}

// Eval implements interpreter.Interpretable.
func (c comparison) Eval(a interpreter.Activation) ref.Val {
	return interpreter.EvalActivation(a, c.Exec)
}

// Exec implements interpreter.InterpretableV2.
func (c comparison) Exec(frame *interpreter.ExecutionFrame) ref.Val {
	return c.on(frame, func(l, r ref.Val) ref.Val {
		if !sameType(l, r) {
			return types.NewErr("%s cannot be compared with %s", l.Type().TypeName(), r.Type().TypeName())
		}
		return types.Bool((types.Equal(l, r) == types.True) != c.negated)
	})
}

// on evaluates both sides and pays for the comparison.
func (c comparison) on(frame *interpreter.ExecutionFrame, compare func(l, r ref.Val) ref.Val) ref.Val {
	l := c.left.Exec(frame)
	if types.IsUnknownOrError(l) {
		return l
	}
	r := c.right.Exec(frame)
	if types.IsUnknownOrError(r) {
		return r
	}
	out := compare(l, r)
	if costs := frame.CostTracker(); costs != nil {
		costs.EvalBinary(frame, c.ID(), c.call, l, r, out)
	}
	return out
}

// membership is a strict in: not in a list says something only if the list is
// empty or has an item of that type. objects are lists of names only where the
// expression means one, as in "https://x.example/roles" in claims.
type membership struct {
	comparison
	objects bool
}

// Eval implements interpreter.Interpretable.
func (m membership) Eval(a interpreter.Activation) ref.Val {
	return interpreter.EvalActivation(a, m.Exec)
}

// Exec implements interpreter.InterpretableV2.
func (m membership) Exec(frame *interpreter.ExecutionFrame) ref.Val {
	return m.on(frame, func(l, r ref.Val) ref.Val {
		container, ok := r.(traits.Container)
		if _, object := r.Value().(map[string]token.Value); !ok || object && !m.objects {
			return types.NewErr("%s is no list; of an object, has(…) asks whether it has a member", r.Type().TypeName())
		}
		found := container.Contains(l)
		items, isList := r.(traits.Lister)
		if found == types.True || !isList || items.Size() == types.IntZero {
			return found
		}
		for it := items.Iterator(); it.HasNext() == types.True; {
			if sameType(l, it.Next()) {
				return found
			}
		}
		return types.NewErr("a list holds no %s", l.Type().TypeName())
	})
}

// sameType says whether two values are of one type; numbers are.
func sameType(l, r ref.Val) bool {
	numeric := func(v ref.Val) bool {
		return v.Type() == types.IntType || v.Type() == types.UintType || v.Type() == types.DoubleType
	}
	return l.Type().TypeName() == r.Type().TypeName() || numeric(l) && numeric(r)
}
