package policy

import (
	"strings"
	"testing"
)

func TestCatalogue(t *testing.T) {
	c, err := NewCatalogue([]Privilege{
		{Name: "READ_HEROES", Description: "see heroes"},
		{Name: "CREATE_HERO", From: []string{"main"}},
		{Name: "SEED", From: []string{"seed"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Check("CREATE_HERO"); err != nil {
		t.Error(err)
	}
	if err := c.Check("CREATE_HEROS"); err == nil || !strings.Contains(err.Error(), `did you mean "CREATE_HERO"?`) {
		t.Error(err)
	}
	if err := c.Check("SEDE"); err == nil || !strings.Contains(err.Error(), `did you mean "SEED"?`) { // two letters in each other's place
		t.Error(err)
	}
	if got := c.Unused([]string{"SEED", "CREATE_HERO"}); len(got) != 1 || got[0].Name != "READ_HEROES" {
		t.Errorf("unused: %v", got)
	}
	for _, test := range []struct {
		issuer, privilege string
		gives             bool
	}{
		{"other", "READ_HEROES", true}, {"main", "CREATE_HERO", true}, {"seed", "CREATE_HERO", false}, {"seed", "SEED", true},
	} {
		if gives := c.Gives(test.issuer, test.privilege); gives != test.gives {
			t.Errorf("%s gives %s: %v", test.issuer, test.privilege, gives)
		}
	}
	if len(c.List()) != 3 {
		t.Error(c.List())
	}
	var none *Catalogue
	if none.Check("X") != nil || none.Unused(nil) != nil || !none.Gives("main", "X") {
		t.Error("no catalogue finds faults")
	}
	if _, err := NewCatalogue([]Privilege{{Name: "A"}, {Name: "A"}, {}}); err == nil || !strings.Contains(err.Error(), "privileges[1]: \"A\" stands there twice\nprivileges[2]: it has no name") {
		t.Error(err)
	}
}
