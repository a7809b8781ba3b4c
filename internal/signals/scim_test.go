package signals_test

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
)

func (w *world) scim(method, path, body string) (*httptest.ResponseRecorder, map[string]any) {
	kind := ""
	if body != "" {
		kind = "application/scim+json"
	}
	got := w.send(method, "/scim/v2"+path, kind, "Bearer "+bearer, body)
	var v map[string]any
	_ = json.Unmarshal(got.Body.Bytes(), &v) // nil where there is no body, which the caller sees
	return got, v
}

const patch = `{"schemas":["urn:ietf:params:scim:api:messages:2.0:PatchOp"],"Operations":[`

// TestDeactivate: in each way in which directories write it. Nothing lets the person in afterwards, however fresh.
func TestDeactivate(t *testing.T) {
	for name, op := range map[string]string{
		"RFC 7644": `{"op":"replace","path":"active","value":false}`, "Okta": `{"op":"replace","value":{"active":false}}`, "Entra": `{"op":"Replace","path":"active","value":"False"}`,
		"with the schema": `{"op":"add","path":"urn:ietf:params:scim:schemas:core:2.0:User:active","value":false}`, "with others": `{"op":"replace","path":"title","value":"x"},{"op":"replace","path":"active","value":false}`,
		// Names of attributes have no case (RFC 7643 section 2.1), and may have their schema before them.
		"in capitals": `{"OP":"replace","value":{"Active":false}}`, "an object with the schema": `{"op":"replace","value":{"urn:ietf:params:scim:schemas:core:2.0:User:active":false}}`,
		"the schema's object": `{"op":"replace","value":{"URN:ietf:params:scim:schemas:core:2.0:User":{"ACTIVE":false}}}`, "the schema as path": `{"op":"replace","path":"urn:ietf:params:scim:schemas:core:2.0:User","value":{"active":false}}`,
		"spaces": `{"op":"replace","path":" active ","value":false}`,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			got, v := w.scim("PATCH", "/Users/"+string(w.alice.ID), patch+op+`]}`)
			if got.Code != 200 || v["active"] != false || v["externalId"] != "emp-alice" || w.alive(w.now.Add(-time.Minute)) {
				t.Errorf("%d %s", got.Code, got.Body)
			}
			u, err := w.db.EnsureUser(t.Context(), identity.User{Tenant: tenant, IDP: "login", Subject: "emp-alice", Name: "Alice"})
			if err != nil || u.Gone != identity.Disabled {
				t.Errorf("a later sign-in brings her back: %+v %v", u, err)
			}
			got, v = w.scim("PATCH", "/Users/"+string(w.alice.ID), strings.ReplaceAll(strings.ReplaceAll(patch+op+`]}`, "false", "true"), "False", "True"))
			if u, err = w.db.User(t.Context(), tenant, w.alice.ID); got.Code != 200 || v["active"] != true || err != nil || u.Gone != "" {
				t.Errorf("activated again: %d %s %v", got.Code, got.Body, err)
			}
			if w.alive(w.now.Add(-time.Minute)) {
				t.Error("what had ended is back")
			}
		})
	}
}

// TestDelete: who is deleted is not there any more, and comes back only by the directory's own word.
func TestDelete(t *testing.T) {
	w := newWorld(t)
	at := "/Users/" + string(w.alice.ID)
	if got, _ := w.scim("DELETE", at, ""); got.Code != 204 || w.alive(w.now.Add(-time.Minute)) {
		t.Errorf("%d %s", got.Code, got.Body)
	}
	for _, method := range []string{"GET", "DELETE"} {
		if got, v := w.scim(method, at, ""); got.Code != 404 || v["status"] != "404" {
			t.Errorf("%s: %d %s", method, got.Code, got.Body)
		}
	}
	if got, v := w.scim("GET", "/Users?filter="+url.QueryEscape(`userName eq "alice@acme.test"`), ""); got.Code != 200 || v["totalResults"] != 0.0 {
		t.Errorf("%d %s", got.Code, got.Body)
	}
	const create = `{"schemas":["urn:ietf:params:scim:schemas:core:2.0:User"],"userName":"alice@acme.test","externalId":"emp-alice","name":{"givenName":"A"},"emails":[{"value":"x"}],"active":true}`
	got, v := w.scim("POST", "/Users", create)
	if u, err := w.db.User(t.Context(), tenant, w.alice.ID); got.Code != 201 || v["id"] != string(w.alice.ID) || err != nil || u.Gone != "" {
		t.Errorf("created again: %d %s %v", got.Code, got.Body, err)
	}
	if got, v := w.scim("POST", "/Users", create); got.Code != 409 || v["scimType"] != "uniqueness" {
		t.Errorf("twice: %d %s", got.Code, got.Body)
	}
	got, v = w.scim("POST", "/Users", strings.NewReplacer("alice", "zoe", `"active":true`, `"active":"False"`).Replace(create))
	if u, err := w.db.UserBySubject(t.Context(), tenant, "login", "emp-zoe"); got.Code != 201 || v["active"] != false || err != nil || u.Gone != identity.Disabled {
		t.Errorf("created inactive: %d %s %v", got.Code, got.Body, err)
	}
}

// TestDirectoryAsks: finding, and every way to ask wrongly; nothing of it changes anybody.
func TestDirectoryAsks(t *testing.T) {
	w := newWorld(t)
	other, err := w.db.EnsureUser(t.Context(), identity.User{Tenant: "globex", IDP: "login", Subject: "emp-alice", Email: "alice@acme.test"})
	if err != nil {
		t.Fatal(err)
	}
	elsewhere, err := w.db.EnsureUser(t.Context(), identity.User{Tenant: tenant, IDP: "partner", Subject: "p", Email: "p@acme.test"})
	if err != nil {
		t.Fatal(err)
	}
	filter := func(f string) string { return "/Users?filter=" + url.QueryEscape(f) }
	at := "/Users/" + string(w.alice.ID)
	for name, c := range map[string]struct {
		method, path, body string
		code               int
		holds              string
	}{
		"by userName":      {"GET", filter(`userName eq "ALICE@acme.test"`), "", 200, `"totalResults":1`},
		"by externalId":    {"GET", filter(`externalId eq "emp-alice"`), "", 200, string(w.alice.ID)},
		"case":             {"GET", filter(`USERNAME EQ "alice@acme.test"`), "", 200, `"totalResults":1`},
		"nobody":           {"GET", filter(`userName eq "zoe@acme.test"`), "", 200, `"totalResults":0`},
		"empty":            {"GET", filter(`userName eq ""`), "", 200, `"totalResults":0`},
		"another operator": {"GET", filter(`userName sw "a"`), "", 400, "invalidFilter"},
		"and":              {"GET", filter(`userName eq "a" or userName pr`), "", 400, "invalidFilter"},
		"broken quotes":    {"GET", filter(`userName eq "a" "`), "", 400, "invalidFilter"},
		"by id":            {"GET", filter(`id eq "` + string(w.alice.ID) + `"`), "", 200, `"totalResults":1`},
		"by another's id":  {"GET", filter(`id eq "` + string(elsewhere.ID) + `"`), "", 200, `"totalResults":0`},
		"two filters":      {"GET", "/Users?filter=a&filter=b", "", 400, "invalidFilter"},
		"startIndex":       {"GET", "/Users?startIndex=x", "", 400, "invalidValue"},
		"PUT without JSON": {"PUT", at, `{`, 400, "invalidSyntax"},
		"PUT active is 0":  {"PUT", at, `{"schemas":["urn:ietf:params:scim:schemas:core:2.0:User"],"active":0}`, 400, "invalidValue"},
		"PUT nobody":       {"PUT", "/Users/x", `{"schemas":["urn:ietf:params:scim:schemas:core:2.0:User"],"active":false}`, 404, "404"},
		"a group":          {"POST", "/Groups", `{"schemas":["urn:ietf:params:scim:schemas:core:2.0:Group"],"displayName":"x"}`, 501, "come with each sign-in"},
		"no such schema":   {"GET", "/Schemas/x", "", 404, "404"},
		"no such type":     {"GET", "/ResourceTypes/Group", "", 404, "404"},
		"one":              {"GET", at, "", 200, `"active":true`},
		"another tenant's": {"GET", "/Users/" + string(other.ID), "", 404, "404"},
		"another IdP's":    {"DELETE", "/Users/" + string(elsewhere.ID), "", 404, "404"},
		"unknown":          {"PATCH", "/Users/x", patch + `{"op":"replace","path":"active","value":false}]}`, 404, "404"},
		"config":           {"GET", "/ServiceProviderConfig", "", 200, `"patch":{"supported":true}`},
		"no JSON":          {"PATCH", at, `{`, 400, "invalidSyntax"},
		"no schema":        {"PATCH", at, `{"Operations":[{"op":"replace","path":"active","value":false}]}`, 400, "invalidSyntax"},
		"a name twice":     {"PATCH", at, `{"schemas":["urn:ietf:params:scim:api:messages:2.0:PatchOp"],"Operations":[],"Operations":[{"op":"replace","path":"active","value":false}]}`, 400, "invalidSyntax"},
		"no operations":    {"PATCH", at, patch + `]}`, 400, "invalidSyntax"},
		"unknown verb":     {"PATCH", at, patch + `{"op":"move","path":"active","value":false}]}`, 400, "invalidSyntax"},
		"remove active":    {"PATCH", at, patch + `{"op":"remove","path":"active"}]}`, 400, "mutability"},
		"active is 0":      {"PATCH", at, patch + `{"op":"replace","path":"active","value":0}]}`, 400, "invalidValue"},
		"active is null":   {"PATCH", at, patch + `{"op":"replace","path":"active","value":null}]}`, 400, "invalidValue"},
		"no path":          {"PATCH", at, patch + `{"op":"replace","value":false}]}`, 400, "noTarget"},
		"active nowhere":   {"PATCH", at, patch + `{"op":"replace","path":"active"}]}`, 400, "invalidValue"},
		"a part of active": {"PATCH", at, patch + `{"op":"replace","path":"active.value","value":false}]}`, 400, "invalidPath"},
		"active by filter": {"PATCH", at, patch + `{"op":"replace","path":"active[value eq true]","value":false}]}`, 400, "invalidPath"},
		"active twice":     {"PATCH", at, patch + `{"op":"replace","value":{"active":true,"Active":false}}]}`, 400, "invalidValue"},
		"PUT active twice": {"PUT", at, `{"schemas":["urn:ietf:params:scim:schemas:core:2.0:User"],"active":true,"Active":false}`, 400, "invalidSyntax"},
		"no subject":       {"POST", "/Users", `{"schemas":["urn:ietf:params:scim:schemas:core:2.0:User"],"userName":"zoe@acme.test"}`, 400, "invalidValue"},
		"oversized":        {"PATCH", at, patch + `{"op":"replace","path":"` + strings.Repeat("a", 100<<10) + `","value":false}]}`, 413, "too long"},
	} {
		if got, _ := w.scim(c.method, c.path, c.body); got.Code != c.code || !strings.Contains(got.Body.String(), c.holds) || got.Header().Get("Content-Type") != "application/scim+json" {
			t.Errorf("%s: %d %s", name, got.Code, got.Body)
		}
	}
	for name, auth := range map[string]string{"none": "", "wrong": "Bearer " + bearer + "x", "Basic": "Basic " + bearer} {
		for _, method := range []string{"GET", "PATCH", "DELETE"} {
			if got := w.send(method, "/scim/v2"+at, "application/scim+json", auth, patch+`{"op":"replace","path":"active","value":false}]}`); got.Code != 401 || strings.Contains(got.Body.String(), "alice") {
				t.Errorf("token %s: %d %s", name, got.Code, got.Body)
			}
		}
	}
	if got := w.send("PATCH", "/scim/v2"+at, "text/plain", "Bearer "+bearer, patch+`{"op":"replace","path":"active","value":false}]}`); got.Code != 415 {
		t.Errorf("as text: %d", got.Code)
	}
	if u, err := w.db.User(t.Context(), tenant, w.alice.ID); err != nil || u.Gone != "" || !w.alive(w.now.Add(-time.Minute)) {
		t.Error("one of them changed her", u, err)
	}
	if _, err := w.db.UserBySubject(t.Context(), tenant, "login", "zoe@acme.test"); fault.KindOf(err) != fault.NotFound {
		t.Error("somebody was created", err)
	}
	for i := 0; ; i++ {
		if got, _ := w.scim("GET", at, ""); got.Code == 429 && got.Header().Get("Retry-After") != "" {
			break
		}
		if i > 2000 {
			t.Fatal("it can be asked for ever")
		}
	}
}

// TestSetUp: what Entra and Okta ask for when they are set up, and at night, in their own words.
func TestSetUp(t *testing.T) {
	w := newWorld(t)
	for i := range 5 {
		if _, err := w.db.EnsureUser(t.Context(), identity.User{Tenant: tenant, IDP: "login", Subject: fmt.Sprint("emp-", i), Email: fmt.Sprintf("p%d@acme.test", i)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.db.EnsureUser(t.Context(), identity.User{Tenant: "globex", IDP: "login", Subject: "x", Email: "x@globex.test"}); err != nil {
		t.Fatal(err)
	}
	at := "/Users/" + string(w.alice.ID)
	for name, c := range map[string]struct {
		path  string
		holds []string
	}{
		"Entra tries the connection": {"/Users?filter=" + url.QueryEscape(`userName eq "9a0f8f6e-3c54-4d52-8f4e-7b1e1f0f7d11"`), []string{`"totalResults":0`, `"Resources":[]`, `"schemas":["urn:ietf:params:scim:api:messages:2.0:ListResponse"]`}},
		"Entra looks for somebody":   {"/Users?filter=externalId+eq+%22emp-alice%22", []string{`"totalResults":1`, `"userName":"alice@acme.test"`}},
		"Entra reads schemas":        {"/Schemas", []string{`"id":"urn:ietf:params:scim:schemas:core:2.0:User"`, `"name":"active"`}},
		"Entra looks for a group":    {"/Groups?excludedAttributes=members&filter=" + url.QueryEscape(`displayName eq "Engineers"`), []string{`"totalResults":0`, `"Resources":[]`}},
		"Okta tries the connector":   {"/Users?startIndex=1&count=2", []string{`"totalResults":6`, `"itemsPerPage":2`, `"startIndex":1`}},
		"Okta imports, page 1":       {"/Users?startIndex=1&count=100", []string{`"totalResults":6`, `"itemsPerPage":6`}},
		"Okta imports, the last":     {"/Users?startIndex=5&count=4", []string{`"totalResults":6`, `"itemsPerPage":2`, `"startIndex":5`}},
		"Okta imports, beyond it":    {"/Users?startIndex=101&count=100", []string{`"totalResults":6`, `"itemsPerPage":0`, `"Resources":[]`}},
		"Okta counts":                {"/Users?count=0", []string{`"totalResults":6`, `"itemsPerPage":0`}},
		"Okta imports groups":        {"/Groups?startIndex=1&count=100", []string{`"totalResults":0`}},
		"Okta looks for somebody":    {"/Users?filter=userName%20eq%20%22alice%40acme.test%22&startIndex=1&count=100", []string{`"totalResults":1`, `"startIndex":1`, `"externalId":"emp-alice"`}},
		"too small an index":         {"/Users?startIndex=-3&count=1", []string{`"startIndex":1`, `"itemsPerPage":1`}},
		"what there is":              {"/ResourceTypes", []string{`"endpoint":"/Users"`, `"totalResults":1`}},
		"one type":                   {"/ResourceTypes/User", []string{`"schema":"urn:ietf:params:scim:schemas:core:2.0:User"`}},
		"one schema":                 {"/Schemas/urn:ietf:params:scim:schemas:core:2.0:User", []string{`"name":"externalId"`}},
		"the provider":               {"/ServiceProviderConfig", []string{`"patch":{"supported":true}`, `"maxResults":100`}},
	} {
		got, _ := w.scim("GET", c.path, "")
		for _, want := range c.holds {
			if got.Code != 200 || !strings.Contains(got.Body.String(), want) || strings.Contains(got.Body.String(), "globex") {
				t.Errorf("%s: %d %s, want %s", name, got.Code, got.Body, want)
			}
		}
	}
	// Okta writes the whole person, to disable him too.
	whole := `{"schemas":["urn:ietf:params:scim:schemas:core:2.0:User"],"id":"` + string(w.alice.ID) + `","userName":"somebody@else.test","externalId":"emp-1","name":{"givenName":"A"},"active":%s,"groups":[],"meta":{"resourceType":"User"}}`
	for _, active := range []bool{false, true} {
		got, v := w.scim("PUT", at, fmt.Sprintf(whole, fmt.Sprint(active)))
		u, err := w.db.User(t.Context(), tenant, w.alice.ID)
		if got.Code != 200 || v["active"] != active || err != nil || (u.Gone == "") != active || u.Subject != "emp-alice" || u.Email != "alice@acme.test" {
			t.Errorf("PUT active %v: %d %s, she is %+v", active, got.Code, got.Body, u)
		}
	}
	if got, v := w.scim("PUT", at, `{"schemas":["urn:ietf:params:scim:schemas:core:2.0:User"],"Active":"False"}`); got.Code != 200 || v["active"] != false {
		t.Errorf("PUT Active: %d %s", got.Code, got.Body)
	}
	got, v := w.scim("POST", "/Users", `{"schemas":["urn:ietf:params:scim:schemas:core:2.0:User","urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"],"externalId":"obj-1","userName":"new@acme.test","active":true,"emails":[{"primary":true,"type":"work","value":"new@acme.test"}],"meta":{"resourceType":"User"},"name":{"formatted":"New One"},"roles":[]}`)
	if meta, ok := v["meta"].(map[string]any); got.Code != 201 || !ok || got.Header().Get("Location") != meta["location"] {
		t.Errorf("created: %d %s at %s", got.Code, got.Body, got.Header().Get("Location"))
	}
}

// FuzzDirectory: whatever a body holds, the answer is one of SCIM, and nobody is let in or out by accident of form.
func FuzzDirectory(f *testing.F) {
	for _, op := range []string{`{"op":"replace","path":"active","value":false}`, `{"op":"replace","value":{"active":"False"}}`, `{"op":1}`, `null`, `{"op":"replace","value":{"Active":false,"urn:ietf:params:scim:schemas:core:2.0:User":{"active":true}}}`} {
		f.Add(patch + op + `]}`)
	}
	f.Add(`{"schemas":[null],"Operations":{}}`)
	f.Fuzz(func(t *testing.T, body string) {
		w := newWorld(t)
		got, v := w.scim("PATCH", "/Users/"+string(w.alice.ID), body)
		u, err := w.db.User(t.Context(), tenant, w.alice.ID)
		if err != nil {
			t.Fatal(err)
		}
		switch got.Code {
		case 200:
			if (u.Gone == "") != (v["active"] == true) {
				t.Errorf("%q: said %v, is %q", body, v["active"], u.Gone)
			}
		case 400, 413, 415:
			if u.Gone != "" {
				t.Errorf("%q was refused, and she is %s", body, u.Gone)
			}
		default:
			t.Errorf("%q: %d", body, got.Code)
		}
	})
}
