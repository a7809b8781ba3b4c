package signals

import "net/http"

const (
	typeSchema   = "urn:ietf:params:scim:schemas:core:2.0:ResourceType"
	schemaSchema = "urn:ietf:params:scim:schemas:core:2.0:Schema"
)

// What a directory asks for when it is set up (RFC 7643 sections 6 and 7; RFC 7644 section 4). It says what is kept here, so that
// nobody maps more than that.

func (s *Receiver) userType() map[string]any {
	return map[string]any{"schemas": []string{typeSchema}, "id": "User", "name": "User", "endpoint": "/Users", "description": "a person who may sign in", "schema": userSchema,
		"meta": map[string]any{"resourceType": "ResourceType", "location": s.URL("/scim/v2/ResourceTypes/User")}}
}

func (s *Receiver) userSchema() map[string]any {
	attribute := func(name, kind, about, mutability, unique string, required bool) map[string]any {
		a := map[string]any{"name": name, "type": kind, "multiValued": false, "description": about, "required": required, "mutability": mutability, "returned": "default"}
		if kind == "string" {
			a["caseExact"], a["uniqueness"] = name == "externalId", unique
		}
		return a
	}
	return map[string]any{"schemas": []string{schemaSchema}, "id": userSchema, "name": "User", "description": "a person who may sign in",
		"attributes": []any{
			attribute("userName", "string", "the e-mail address, or the subject at the IdP, as the config says", "immutable", "server", true),
			attribute("externalId", "string", "the subject that the IdP's tokens name", "immutable", "server", false),
			attribute("active", "boolean", "false: nothing lets this person in", "readWrite", "none", false),
		},
		"meta": map[string]any{"resourceType": "Schema", "location": s.URL("/scim/v2/Schemas/" + userSchema)}}
}

func (s *Receiver) scimTypes(*http.Request) (int, any, error) {
	return http.StatusOK, listed([]any{s.userType()}, 1, 1), nil
}

func (s *Receiver) scimType(r *http.Request) (int, any, error) {
	if r.PathValue("id") != "User" {
		return 0, nil, &scimError{http.StatusNotFound, "", "there is no such resource type"}
	}
	return http.StatusOK, s.userType(), nil
}

func (s *Receiver) scimSchemas(*http.Request) (int, any, error) {
	return http.StatusOK, listed([]any{s.userSchema()}, 1, 1), nil
}

func (s *Receiver) scimSchema(r *http.Request) (int, any, error) {
	if r.PathValue("id") != userSchema {
		return 0, nil, &scimError{http.StatusNotFound, "", "there is no such schema"}
	}
	return http.StatusOK, s.userSchema(), nil
}

// scimGroups lists none: groups come with each sign-in, from the IdP. A directory that imports asks for them all the same.
func (s *Receiver) scimGroups(r *http.Request) (int, any, error) {
	start, _, err := pageOf(r)
	return http.StatusOK, listed([]any{}, 0, start), err
}

func (s *Receiver) scimNoGroups(*http.Request) (int, any, error) {
	return 0, nil, &scimError{http.StatusNotImplemented, "", "groups are not kept here: they come with each sign-in, from the IdP; do not provision them"}
}
