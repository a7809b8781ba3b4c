package signals_test

import (
	"encoding/json"
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
		"no filter":        {"GET", "/Users", "", 400, "tooMany"},
		"two filters":      {"GET", "/Users?filter=a&filter=b", "", 400, "tooMany"},
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

// FuzzDirectory: whatever a body holds, the answer is one of SCIM, and nobody is let in or out by accident of form.
func FuzzDirectory(f *testing.F) {
	for _, op := range []string{`{"op":"replace","path":"active","value":false}`, `{"op":"replace","value":{"active":"False"}}`, `{"op":1}`, `null`} {
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
