package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	cedar "github.com/cedar-policy/cedar-go"
	"github.com/go-json-experiment/json/jsontext"

	"frontdesk.dev/frontdesk/internal/identity"
)

// world is what Cedar can look up: the caller and the thing, each with its parents. Everything else does not exist.
type world [2]cedar.Entity

// Get makes world a cedar.EntityGetter.
func (w *world) Get(uid cedar.EntityUID) (cedar.Entity, bool) {
	for i := range w {
		if w[i].UID == uid {
			return w[i], true
		}
	}
	return cedar.Entity{}, false
}

func principalUID(c *identity.Caller) cedar.EntityUID {
	if c.User != "" {
		return cedar.NewEntityUID("User", cedar.String(c.User))
	}
	return cedar.NewEntityUID("Service", cedar.String(c.Service))
}

// entities spells a request in Cedar's terms.
func entities(r *Request, who *persona) (*world, cedar.Request, error) {
	args, err := arguments(r.Arguments)
	if err != nil {
		return nil, cedar.Request{}, err
	}
	what := thing(r)
	return &world{who.entity, what}, cedar.Request{
		Principal: who.entity.UID,
		Action:    cedar.NewEntityUID("Action", cedar.String(r.Action)),
		Resource:  what.UID,
		Context:   situation(r, who, args),
	}, nil
}

// thing is the resource: a Server; a Tool, Prompt or Resource in it; or an Api, which is in the server that calls it and in the upstream.
func thing(r *Request) cedar.Entity {
	server := cedar.NewEntityUID("Server", cedar.String(r.Server))
	attrs := cedar.RecordMap{"server": cedar.String(r.Server), "name": cedar.String(r.Tool)}
	e := cedar.Entity{Parents: cedar.NewEntityUIDSet(server)}
	switch r.Action {
	case ActionCall:
		kind := cedar.EntityType("Tool")
		switch r.Method {
		case "prompts/get":
			kind = "Prompt"
		case "resources/read", "resources/subscribe", "resources/unsubscribe":
			kind = "Resource"
		case "completion/complete": // of a prompt's argument, or of a resource template's: these are URIs
			if kind = "Prompt"; strings.Contains(r.Tool, ":") {
				kind = "Resource"
			}
		}
		e.UID = cedar.NewEntityUID(kind, cedar.String(r.Server+"/"+r.Tool))
	case ActionAPI:
		e.UID = cedar.NewEntityUID("Api", cedar.String(r.Server+"/"+r.Upstream))
		parents := []cedar.EntityUID{server, cedar.NewEntityUID("Upstream", cedar.String(r.Upstream))}
		if r.Tool != "" {
			parents = append(parents, cedar.NewEntityUID("Operation", cedar.String(r.Tool)))
		}
		e.Parents = cedar.NewEntityUIDSet(parents...)
		attrs["name"], attrs["upstream"] = cedar.String(r.Upstream), cedar.String(r.Upstream)
	default:
		e.UID, e.Parents = server, cedar.EntityUIDSet{}
		attrs["name"] = cedar.String(r.Server)
	}
	e.Attributes = cedar.NewRecord(attrs)
	return e
}

// situation is the context. What is not known is absent, so that a policy that needs it errs, and the answer is no.
func situation(r *Request, who *persona, args cedar.Record) cedar.Record {
	c := cedar.RecordMap{
		"client": cedar.String(r.Caller.Client), "actors": who.actors, "scopes": who.scopes,
		"method": cedar.String(r.Method), "args": args, "session": who.session, "time": cedar.NewDatetime(r.Now),
	}
	if r.Action == ActionAPI {
		c["host"], c["path"], c["in_session"] = cedar.String(r.Host), cedar.String(r.Path), cedar.Boolean(r.InSession)
		c["operation"] = cedar.String(r.Tool)
		r.Content.into(c)
	}
	return cedar.NewRecord(c)
}

func stringSet(l []string) cedar.Set {
	if len(l) == 0 {
		return cedar.Set{} // which equals an empty set that was made
	}
	v := make([]cedar.Value, len(l))
	for i, s := range l {
		v[i] = cedar.String(s)
	}
	return cedar.NewSet(v...)
}

func arguments(raw map[string][]byte) (cedar.Record, error) {
	if len(raw) == 0 {
		return cedar.Record{}, nil
	}
	m := make(cedar.RecordMap, len(raw))
	for name, b := range raw {
		v, err := value(b)
		if err != nil {
			return cedar.Record{}, fmt.Errorf("argument %q: %w", name, err)
		}
		m[cedar.String(name)] = v
	}
	return cedar.NewRecord(m), nil
}

var errInexact = errors.New("has no exact value in Cedar")

// value turns JSON into the Cedar value that says exactly the same; there is none for null, fractions, exponents and
// integers beyond 64 bits. (A JSON array becomes a set: policies ask what it contains.)
func value(raw []byte) (cedar.Value, error) {
	// IsValid refuses duplicate names too: what a policy sees must be what every reader sees.
	if !jsontext.Value(raw).IsValid() {
		return nil, errors.New("is not one JSON value with unique names")
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, errors.New("is not JSON")
	}
	return exact(v)
}

func exact(v any) (cedar.Value, error) {
	switch v := v.(type) {
	case string:
		return cedar.String(v), nil
	case bool:
		return cedar.Boolean(v), nil
	case json.Number:
		n, err := strconv.ParseInt(v.String(), 10, 64)
		if err != nil || v.String() == "-0" {
			return nil, errInexact
		}
		return cedar.Long(n), nil
	case []any:
		set := make([]cedar.Value, len(v))
		for i := range v {
			var err error
			if set[i], err = exact(v[i]); err != nil {
				return nil, err
			}
		}
		return cedar.NewSet(set...), nil
	case map[string]any:
		rec := make(cedar.RecordMap, len(v))
		for k, e := range v {
			x, err := exact(e)
			if err != nil {
				return nil, err
			}
			rec[cedar.String(k)] = x
		}
		return cedar.NewRecord(rec), nil
	}
	return nil, errInexact
}
