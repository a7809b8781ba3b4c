package signals

import (
	"errors"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"frontdesk.dev/frontdesk/internal/ending"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
)

// Schemas of SCIM 2.0 (RFC 7643, RFC 7644).
const (
	userSchema  = "urn:ietf:params:scim:schemas:core:2.0:User"
	listSchema  = "urn:ietf:params:scim:api:messages:2.0:ListResponse"
	patchSchema = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
	errorSchema = "urn:ietf:params:scim:api:messages:2.0:Error"
	spcSchema   = "urn:ietf:params:scim:schemas:core:2.0:ServiceProviderConfig"

	maxOperations = 50
	byDirectory   = "by the directory"
)

// scimError is an error as RFC 7644 section 3.12 has it.
type scimError struct {
	status int
	kind   string // scimType
	detail string
}

func (e *scimError) Error() string { return e.detail }

// mountSCIM serves of SCIM 2.0 what a directory needs to remove people: find, create, (de)activate, delete; and what it asks for
// when it is set up.
func (s *Receiver) mountSCIM(mux *http.ServeMux, at string) {
	for route, h := range map[string]func(r *http.Request) (int, any, error){
		"GET " + at + "/ServiceProviderConfig": s.scimConfig, "GET " + at + "/Users": s.scimFind, "POST " + at + "/Users": s.scimCreate,
		"GET " + at + "/Users/{id}": s.scimGet, "PUT " + at + "/Users/{id}": s.scimPut, "GET " + at + "/Groups": s.scimGroups, "POST " + at + "/Groups": s.scimNoGroups,
		"GET " + at + "/ResourceTypes": s.scimTypes, "GET " + at + "/ResourceTypes/{id}": s.scimType, "GET " + at + "/Schemas": s.scimSchemas, "GET " + at + "/Schemas/{id}": s.scimSchema, "PATCH " + at + "/Users/{id}": s.scimPatch, "DELETE " + at + "/Users/{id}": s.scimDelete,
	} {
		mux.HandleFunc(route, s.limited(func(w http.ResponseWriter, r *http.Request) { s.scim(w, r, h) }))
	}
}

// scim is the one switch from errors to this wire. The token stands before everything: who has none learns nothing.
func (s *Receiver) scim(w http.ResponseWriter, r *http.Request, h func(*http.Request) (int, any, error)) {
	w.Header().Set("Content-Type", "application/scim+json")
	if !bears(r, s.Directory.Token) {
		w.Header().Set("WWW-Authenticate", "Bearer")
		scimFail(w, &scimError{http.StatusUnauthorized, "", "the bearer token is missing or wrong"})
		return
	}
	status, v, err := h(r)
	if e, ok := errors.AsType[*scimError](err); ok {
		scimFail(w, e)
		return
	}
	switch {
	case err == nil:
	case fault.KindOf(err) == fault.NotFound:
		scimFail(w, &scimError{http.StatusNotFound, "", "there is no such user"})
		return
	case fault.KindOf(err) == fault.Invalid:
		scimFail(w, &scimError{http.StatusBadRequest, "invalidValue", fault.Message(err)})
		return
	default:
		s.Log.Error("the directory's request failed", "path", r.URL.Path, "error", err)
		w.Header().Set("Retry-After", "5")
		scimFail(w, &scimError{http.StatusServiceUnavailable, "", "this cannot be done now; try again"})
		return
	}
	if v == nil {
		w.WriteHeader(status)
		return
	}
	if u, ok := v.(map[string]any); ok && status == http.StatusCreated {
		if meta, ok := u["meta"].(map[string]any); ok {
			w.Header().Set("Location", meta["location"].(string)) // of a user, who always has one
		}
	}
	answer(w, status, v)
}

func scimFail(w http.ResponseWriter, e *scimError) {
	v := map[string]any{"schemas": []string{errorSchema}, "status": strconv.Itoa(e.status), "detail": e.detail}
	if e.kind != "" {
		v["scimType"] = e.kind
	}
	answer(w, e.status, v)
}

func (s *Receiver) scimConfig(*http.Request) (int, any, error) {
	no := map[string]any{"supported": false}
	return http.StatusOK, map[string]any{"schemas": []string{spcSchema}, "patch": map[string]any{"supported": true}, "bulk": map[string]any{"supported": false, "maxOperations": 0, "maxPayloadSize": 0},
		"filter": map[string]any{"supported": true, "maxResults": maxPage}, "changePassword": no, "sort": no, "etag": no,
		"authenticationSchemes": []map[string]any{{"type": "oauthbearertoken", "name": "Bearer token", "description": "the token of the config"}}}, nil
}

// scimUser is the resource. Of a person the directory sees what it may name him by, and whether he is let in.
func (s *Receiver) scimUser(u identity.User) map[string]any {
	name := u.Email
	if s.Directory.UserName == "subject" || name == "" {
		name = u.Subject
	}
	return map[string]any{"schemas": []string{userSchema}, "id": u.ID, "externalId": u.Subject, "userName": name, "active": u.Gone == "",
		"meta": map[string]any{"resourceType": "User", "location": s.URL("/scim/v2/Users/" + string(u.ID))}}
}

var scimFilter = regexp.MustCompile(`^(?i:(userName|externalId|id) eq) ("(?:[^"\\\x00-\x1f]|\\.)*")$`)

// scimFind answers with those whom the filter names, or with all who are known here, a page at a time.
func (s *Receiver) scimFind(r *http.Request) (int, any, error) {
	start, count, err := pageOf(r)
	if err != nil {
		return 0, nil, err
	}
	filter := r.URL.Query()["filter"]
	var l []identity.User
	total := 0
	switch len(filter) {
	case 0:
		l, total, err = s.People.UsersOf(r.Context(), s.Tenant, s.IDP.Name, start-1, count)
	case 1:
		if l, err = s.filtered(r, filter[0]); err == nil {
			total = len(l)
			l = l[min(start-1, total):min(start-1+count, total)]
		}
	default:
		err = &scimError{http.StatusBadRequest, "invalidFilter", "there are several filters"}
	}
	if err != nil {
		return 0, nil, err
	}
	found := make([]any, len(l))
	for i, u := range l {
		found[i] = s.scimUser(u)
	}
	return http.StatusOK, listed(found, total, start), nil
}

// maxPage is how many of a list one answer holds.
const maxPage = 100

// pageOf reads startIndex and count as RFC 7644 section 3.4.2.4 has them: what is too small means the smallest.
func pageOf(r *http.Request) (start, count int, err error) {
	read := func(name string, otherwise, least int) int {
		text := r.URL.Query().Get(name)
		if text == "" {
			return otherwise
		}
		n, nerr := strconv.Atoi(text)
		if nerr != nil || n > 1<<31-maxPage-1 {
			err = &scimError{http.StatusBadRequest, "invalidValue", name + " is no number that can be meant"}
		}
		return max(n, least)
	}
	start, count = read("startIndex", 1, 1), min(read("count", maxPage, 0), maxPage)
	return start, count, err
}

func listed(resources []any, total, start int) map[string]any {
	return map[string]any{"schemas": []string{listSchema}, "totalResults": total, "startIndex": start, "itemsPerPage": len(resources), "Resources": resources}
}

func (s *Receiver) filtered(r *http.Request, filter string) ([]identity.User, error) {
	m := scimFilter.FindStringSubmatch(filter)
	var value string
	if len(filter) > 1024 || m == nil || json.Unmarshal([]byte(m[2]), &value) != nil {
		return nil, &scimError{http.StatusBadRequest, "invalidFilter", `the filter is userName eq "…", externalId eq "…" or id eq "…"`}
	}
	var l []identity.User
	var err error
	if strings.EqualFold(m[1], "id") {
		var u identity.User
		if u, err = s.Users.User(r.Context(), s.Tenant, identity.UserID(value)); err == nil {
			l = []identity.User{u}
		} else if fault.KindOf(err) == fault.NotFound {
			err = nil
		}
	} else {
		l, err = s.named(r, strings.EqualFold(m[1], "externalId") || s.Directory.UserName == "subject", value)
	}
	return slices.DeleteFunc(l, func(u identity.User) bool { return u.Gone == identity.Deleted || u.IDP != s.IDP.Name }), err
}

func (s *Receiver) named(r *http.Request, bySubject bool, value string) ([]identity.User, error) {
	if !bySubject {
		return s.People.UsersByEmail(r.Context(), s.Tenant, s.IDP.Name, value)
	}
	u, err := s.People.UserBySubject(r.Context(), s.Tenant, s.IDP.Name, value)
	if err != nil && fault.KindOf(err) == fault.NotFound {
		return nil, nil
	}
	return []identity.User{u}, err
}

// user is the one of the path: of this IdP, and not deleted.
func (s *Receiver) user(r *http.Request) (identity.User, error) {
	u, err := s.Users.User(r.Context(), s.Tenant, identity.UserID(r.PathValue("id")))
	if err == nil && (u.IDP != s.IDP.Name || u.Gone == identity.Deleted) {
		err = &scimError{http.StatusNotFound, "", "there is no such user"}
	}
	return u, err
}

func (s *Receiver) scimGet(r *http.Request) (int, any, error) {
	u, err := s.user(r)
	return http.StatusOK, s.scimUser(u), err
}

// scimCreate makes somebody known who has not signed in yet, so that the directory has whom to remove; or takes back one who
// was deleted.
func (s *Receiver) scimCreate(r *http.Request) (int, any, error) {
	var b struct {
		Schemas    []string       `json:"schemas"`
		UserName   string         `json:"userName"`
		ExternalID string         `json:"externalId"`
		Active     jsontext.Value `json:"active"`
	}
	if err := readSCIM(r, &b, &b.Schemas, userSchema); err != nil {
		return 0, nil, err
	}
	active := true
	if b.Active != nil {
		var ok bool
		if active, ok = truth(b.Active); !ok {
			return 0, nil, &scimError{http.StatusBadRequest, "invalidValue", "active is true or false"}
		}
	}
	u := identity.User{Tenant: s.Tenant, IDP: s.IDP.Name, Subject: b.ExternalID, Email: b.UserName}
	if s.Directory.UserName == "subject" {
		u.Subject, u.Email = b.UserName, ""
	}
	if b.UserName == "" || u.Subject == "" || len(b.UserName) > maxID || len(u.Subject) > maxID {
		return 0, nil, &scimError{http.StatusBadRequest, "invalidValue", "userName and externalId (the subject that the IdP's tokens name) are needed"}
	}
	was, err := s.People.UserBySubject(r.Context(), s.Tenant, u.IDP, u.Subject)
	if err != nil && fault.KindOf(err) != fault.NotFound {
		return 0, nil, err
	}
	if err == nil && was.Gone != identity.Deleted {
		return 0, nil, &scimError{http.StatusConflict, "uniqueness", "this user is known already"}
	}
	if u, err = s.Users.EnsureUser(r.Context(), u); err == nil {
		err = s.activate(r, u, active)
	}
	if err == nil {
		u, err = s.Users.User(r.Context(), s.Tenant, u.ID)
	}
	return http.StatusCreated, s.scimUser(u), err
}

// scimPatch hears of `active`, in the three ways in which directories write it; of what else changed, nothing is kept here.
func (s *Receiver) scimPatch(r *http.Request) (int, any, error) {
	u, err := s.user(r)
	if err != nil {
		return 0, nil, err
	}
	var b struct {
		Schemas    []string    `json:"schemas"`
		Operations []operation `json:"Operations"`
	}
	if err := readSCIM(r, &b, &b.Schemas, patchSchema); err != nil {
		return 0, nil, err
	}
	if len(b.Operations) == 0 || len(b.Operations) > maxOperations {
		return 0, nil, &scimError{http.StatusBadRequest, "invalidSyntax", "there are no operations, or too many"}
	}
	active, said := u.Gone == "", false
	for _, op := range b.Operations {
		value, err := op.active()
		if err != nil {
			return 0, nil, err
		}
		if value == nil {
			continue
		}
		var ok bool
		if active, ok = truth(value); !ok {
			return 0, nil, &scimError{http.StatusBadRequest, "invalidValue", "active is true or false"}
		}
		said = true
	}
	if said {
		if err := s.activate(r, u, active); err != nil {
			return 0, nil, err
		}
	}
	if u, err = s.Users.User(r.Context(), s.Tenant, u.ID); err != nil {
		return 0, nil, err
	}
	return http.StatusOK, s.scimUser(u), nil
}

// scimPut hears of `active` as scimPatch does: of what else a directory writes, nothing is kept here, and who is meant stays whom the
// path names. Without `active` nothing changes.
func (s *Receiver) scimPut(r *http.Request) (int, any, error) {
	u, err := s.user(r)
	if err != nil {
		return 0, nil, err
	}
	var b struct {
		Schemas []string       `json:"schemas"`
		Active  jsontext.Value `json:"active"`
	}
	if err := readSCIM(r, &b, &b.Schemas, userSchema); err != nil {
		return 0, nil, err
	}
	if b.Active != nil {
		active, ok := truth(b.Active)
		if !ok {
			return 0, nil, &scimError{http.StatusBadRequest, "invalidValue", "active is true or false"}
		}
		if err := s.activate(r, u, active); err != nil {
			return 0, nil, err
		}
	}
	u, err = s.Users.User(r.Context(), s.Tenant, u.ID)
	return http.StatusOK, s.scimUser(u), err
}

func (s *Receiver) activate(r *http.Request, u identity.User, active bool) error {
	if active {
		return s.Office.Return(r.Context(), u, time.Time{}, "activated "+byDirectory)
	}
	err := s.Office.Depart(r.Context(), u, identity.Disabled, s.Now(), "deactivated "+byDirectory)
	if err == nil && s.Directory.Revoke {
		_, err = s.Office.Revoke(r.Context(), s.Tenant, ending.Whose{User: u.ID}, "deactivated "+byDirectory)
	}
	return err
}

func (s *Receiver) scimDelete(r *http.Request) (int, any, error) {
	u, err := s.user(r)
	if err == nil {
		err = s.Office.Depart(r.Context(), u, identity.Deleted, s.Now(), "deleted "+byDirectory)
	}
	return http.StatusNoContent, nil, err
}

// readSCIM reads a body: no name twice, in whatever case (RFC 7643 section 2.1), and the schema that is expected. Attributes that are not kept here are left aside, as
// directories send what they have.
func readSCIM(r *http.Request, into any, schemas *[]string, want string) error {
	if !isType(r, "application/scim+json") && !isType(r, "application/json") {
		return &scimError{http.StatusUnsupportedMediaType, "", "the content type is application/scim+json"}
	}
	err := json.UnmarshalRead(r.Body, into, json.MatchCaseInsensitiveNames(true))
	if tooLarge(err) {
		return &scimError{http.StatusRequestEntityTooLarge, "", "the body is too long"}
	}
	if err == nil {
		for _, s := range *schemas {
			if s == want {
				return nil
			}
		}
	}
	return &scimError{http.StatusBadRequest, "invalidSyntax", "the body is no JSON of the schema " + want}
}

// truth reads a boolean; one directory writes it as text.
func truth(v jsontext.Value) (value, ok bool) {
	var s string
	switch {
	case v.Kind() == 't', v.Kind() == 'f':
		return v.Kind() == 't', true
	case json.Unmarshal(v, &s) == nil && (strings.EqualFold(s, "true") || strings.EqualFold(s, "false")):
		return strings.EqualFold(s, "true"), true
	}
	return false, false
}
