package intake

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/secret"
)

// fields are a line of the file: an object of a JSON array, or a row under a CSV header with these names.
type fields struct {
	Tenant   identity.Tenant `json:"tenant"`
	Subject  string          `json:"subject"` // of the person, at the company's IdP
	Email    string          `json:"email"`   // instead: of somebody who has signed in
	Upstream string          `json:"upstream"`
	Account  string          `json:"account"`       // the vendor's id of the account; where it is asked for, it has to be this
	Label    string          `json:"label"`         // its name
	Scopes   string          `json:"scopes"`        // that were granted, with spaces between; without: the upstream's own
	Access   string          `json:"access_token"`  // these three are the credential
	Refresh  string          `json:"refresh_token"` //
	Key      string          `json:"api_key"`       //
	Expires  string          `json:"expires"`       // of the access token or the key: RFC 3339, a day, or seconds since 1970
}

// entry is a line, and what it means.
type entry struct {
	fields
	line int

	up      *catalog.Upstream
	user    identity.User // without an id: he is made known when his connection is stored
	kind    catalog.MethodKind
	scopes  []string
	expires time.Time
}

// place is whose, where and which account: two lines of one place would overwrite each other.
func (e *entry) place() string {
	return strings.Join([]string{string(e.Tenant), string(e.user.ID), e.Upstream, e.Account}, "\x00")
}

func (e *entry) label() string {
	if e.Label != "" {
		return e.Label
	}
	return e.Account
}

// parse reads CSV or JSON. What is wrong is said without any of the file's words: they may be a credential.
func parse(body []byte) ([]*entry, []Problem) {
	body = bytes.TrimPrefix(body, []byte("\xef\xbb\xbf"))
	if start := bytes.TrimLeft(body, " \t\r\n"); len(start) > 0 && (start[0] == '[' || start[0] == '{') {
		return parseJSON(body)
	}
	return parseCSV(body)
}

func parseCSV(body []byte) (l []*entry, problems []Problem) {
	r := csv.NewReader(bytes.NewReader(body))
	r.ReuseRecord, r.TrimLeadingSpace = true, true
	header, err := r.Read()
	if errors.Is(err, io.EOF) {
		return nil, nil
	}
	if err != nil {
		return nil, []Problem{{1, "the first line is no CSV header"}}
	}
	var columns []func(*fields) *string
	for i, name := range header {
		f := column(strings.TrimSpace(name))
		if f == nil { // its words are not repeated: where the header was forgotten they are credentials
			problems = append(problems, Problem{1, fmt.Sprintf("the name of column %d in the first line is none that there is; the columns are %s", i+1, strings.Join(names, ", "))})
		}
		columns = append(columns, f)
	}
	if len(problems) > 0 {
		return nil, problems
	}
	for {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			return l, problems
		}
		if p, ok := errors.AsType[*csv.ParseError](err); ok {
			what := "the line is no CSV"
			if errors.Is(p.Err, csv.ErrFieldCount) {
				what = fmt.Sprintf("the line has another number of fields than the header, which has %d", len(header))
			}
			problems = append(problems, Problem{p.StartLine, what})
			if len(problems) >= maxProblems || !errors.Is(p.Err, csv.ErrFieldCount) {
				return l, problems // after a broken quote nothing is where it seems to be
			}
			continue
		}
		if err != nil {
			return l, append(problems, Problem{0, "the file could not be read to its end"})
		}
		e := &entry{}
		e.line, _ = r.FieldPos(0)
		for i, v := range row {
			*columns[i](&e.fields) = strings.TrimSpace(v)
		}
		l = append(l, e)
	}
}

var names = []string{"tenant", "subject", "email", "upstream", "account", "label", "scopes", "access_token", "refresh_token", "api_key", "expires"}

// column is where a CSV column goes; nil for a name that is none.
func column(name string) func(*fields) *string {
	switch name {
	case "tenant":
		return func(f *fields) *string { return (*string)(&f.Tenant) }
	case "subject":
		return func(f *fields) *string { return &f.Subject }
	case "email":
		return func(f *fields) *string { return &f.Email }
	case "upstream":
		return func(f *fields) *string { return &f.Upstream }
	case "account":
		return func(f *fields) *string { return &f.Account }
	case "label":
		return func(f *fields) *string { return &f.Label }
	case "scopes":
		return func(f *fields) *string { return &f.Scopes }
	case "access_token":
		return func(f *fields) *string { return &f.Access }
	case "refresh_token":
		return func(f *fields) *string { return &f.Refresh }
	case "api_key":
		return func(f *fields) *string { return &f.Key }
	case "expires":
		return func(f *fields) *string { return &f.Expires }
	}
	return nil
}

// parseJSON reads an array of objects, exactly: no member twice, none that there is not.
func parseJSON(body []byte) (l []*entry, problems []Problem) {
	d := jsontext.NewDecoder(bytes.NewReader(body))
	lineAt := func(offset int64) int {
		rest := body[min(offset, int64(len(body))):]
		for len(rest) > 0 && strings.ContainsRune(" \t\r\n,", rune(rest[0])) {
			rest = rest[1:]
		}
		return 1 + bytes.Count(body[:len(body)-len(rest)], []byte("\n"))
	}
	if d.PeekKind() != '[' {
		return nil, []Problem{{1, "the file is no JSON array of connections"}}
	}
	if _, err := d.ReadToken(); err != nil {
		return nil, []Problem{{1, "the file is no JSON"}}
	}
	for d.PeekKind() != ']' {
		line := lineAt(d.InputOffset())
		v, err := d.ReadValue()
		if err != nil {
			return l, append(problems, Problem{lineAt(d.InputOffset()), "the file is no JSON from here on, or has a member twice"})
		}
		e := &entry{line: line}
		if err := json.Unmarshal(v, &e.fields, json.RejectUnknownMembers(true)); err != nil {
			problems = append(problems, Problem{line, "it is no object of these members, with texts: " + strings.Join(names, ", ")})
			continue
		}
		l = append(l, e)
	}
	return l, problems
}

// check says all that is wrong with a line, without asking anybody outside.
func (n *Intake) check(ctx context.Context, o Order, e *entry, people map[who]found) (l []string, err error) {
	wrong := func(format string, args ...any) { l = append(l, fmt.Sprintf(format, args...)) }
	switch {
	case e.Subject == "" && e.Email == "":
		wrong("it does not say whose it is: subject, or email")
	default:
		f, err := n.person(ctx, o, e, people)
		if err != nil {
			return nil, err
		}
		if e.user = f.user; f.problem != "" {
			wrong("%s", f.problem)
		}
	}
	if e.expires, err = when(e.Expires); err != nil {
		wrong("expires is no time: write it as 2027-01-31T15:00:00Z, 2027-01-31, or in seconds since 1970")
	}
	if e.up = n.Catalog.Upstream(e.Tenant, catalog.UpstreamName(e.Upstream)); e.up == nil {
		wrong("there is no upstream of that name at its tenant; %s", n.upstreams(e.Tenant))
		return l, nil
	}
	e.kind = catalog.AuthorizationCode
	if e.Key != "" {
		e.kind = catalog.APIKey
	}
	switch {
	case e.Key != "" && (e.Access != "" || e.Refresh != ""):
		wrong("it has an api_key and a token: one of them is the credential")
	case e.Key == "" && e.Access == "" && e.Refresh == "":
		wrong("it has no credential: access_token, refresh_token or api_key")
	case !slices.ContainsFunc(e.up.Methods, func(m catalog.Method) bool { return m.Kind == e.kind }):
		wrong("the upstream %s does not take a credential of the method %s (its methods in the config)", e.Upstream, e.kind)
	case e.Refresh == "" && !e.expires.IsZero() && !e.expires.After(n.Now()):
		wrong("the credential is over, and there is no refresh_token to renew it with")
	}
	if e.Key != "" {
		e.Access = e.Key
	}
	for _, s := range []string{e.Access, e.Refresh} {
		if s == "" {
			continue
		}
		if err := n.Desk.CheckKey(e.up, secret.New(s)); err != nil {
			wrong("%s", fault.Message(err))
		}
	}
	if e.scopes = strings.Fields(strings.ReplaceAll(e.Scopes, ",", " ")); len(e.scopes) == 0 {
		e.scopes = slices.Clone(e.up.Scopes)
	}
	return l, nil
}

// upstreams names those that a tenant has.
func (n *Intake) upstreams(t identity.Tenant) string {
	if l := slices.Sorted(maps.Keys(n.Catalog.Snapshot().Upstreams[t])); len(l) > 0 {
		return fmt.Sprintf("there are %v", l)
	}
	return "there are none"
}

// when reads a time; "" is none.
func when(text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && n > 0 {
		return time.Unix(n, 0).UTC(), nil
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	t, err := time.Parse(time.DateOnly, text)
	return t.Add(24 * time.Hour), err
}
