package store

import (
	"context"
	"time"

	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/issuer"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/store/database"
)

var (
	_ issuer.Clients = (*DB)(nil)
	_ issuer.Grants  = (*DB)(nil)

	_ issuer.ConsentStore = (*DB)(nil)
)

var clientTable = table[issuer.Client]{
	name: "clients", none: "there is no such client",
	columns: "tenant, id, name, uri, redirect_uris, how, secret_hash, created, last_used",
	fields: func(c *issuer.Client) []any {
		return []any{&c.Tenant, &c.ID, &c.Name, &c.URI, (*texts)(&c.RedirectURIs), &c.How, (*blob)(&c.SecretHash), (*when)(&c.Created), (*when)(&c.LastUsed)}
	},
}

// PutClient implements issuer.Clients. One that is known keeps when it came and when it was last used.
func (db *DB) PutClient(ctx context.Context, c issuer.Client) error {
	return clientTable.put(ctx, db.write, &c, ` ON CONFLICT (tenant, id) DO UPDATE SET name = excluded.name, uri = excluded.uri,
		redirect_uris = excluded.redirect_uris, how = excluded.how, secret_hash = excluded.secret_hash,
		last_used = CASE WHEN excluded.last_used > clients.last_used THEN excluded.last_used ELSE clients.last_used END`)
}

// Client implements issuer.Clients.
func (db *DB) Client(ctx context.Context, t identity.Tenant, id identity.ClientID) (issuer.Client, error) {
	return clientTable.one(ctx, db.read, byID, t, id)
}

// TouchClient implements issuer.Clients; fault.NotFound for one that is not kept.
func (db *DB) TouchClient(ctx context.Context, t identity.Tenant, id identity.ClientID, at time.Time) error {
	n, err := database.Exec(ctx, db.write, "UPDATE clients SET last_used = $3 WHERE tenant = $1 AND id = $2", t, id, micros(at))
	if err == nil && n == 0 {
		return fault.New(fault.NotFound, clientTable.none, nil)
	}
	return err
}

// DropUnused implements issuer.Clients.
func (db *DB) DropUnused(ctx context.Context, createdBefore time.Time) (int, error) {
	n, err := database.Exec(ctx, db.write, "DELETE FROM clients WHERE how = 'dynamic' AND last_used = 0 AND created < $1", micros(createdBefore))
	return int(n), err
}

var consentTable = table[issuer.Consented]{
	name: "consents", none: "there was no such consent",
	columns: "tenant, user_id, client, resource, name, redirect_host, redirect_uris, scopes, given",
	fields: func(c *issuer.Consented) []any {
		return []any{&c.Tenant, &c.User, &c.Client, &c.Resource, &c.Name, &c.RedirectHost, (*texts)(&c.RedirectURIs), (*texts)(&c.Scopes), (*when)(&c.Given)}
	},
}

// PutConsent implements issuer.ConsentStore.
func (db *DB) PutConsent(ctx context.Context, c issuer.Consented) error {
	return consentTable.put(ctx, db.write, &c, ` ON CONFLICT (tenant, user_id, client, resource) DO UPDATE SET name = excluded.name, redirect_host = excluded.redirect_host,
		redirect_uris = excluded.redirect_uris, scopes = excluded.scopes, given = excluded.given`)
}

// Consented implements issuer.ConsentStore.
func (db *DB) Consented(ctx context.Context, t identity.Tenant, u identity.UserID, c identity.ClientID, resource string) (issuer.Consented, error) {
	return consentTable.one(ctx, db.read, "WHERE tenant = $1 AND user_id = $2 AND client = $3 AND resource = $4", t, u, c, resource)
}

var codeTable = table[issuer.Code]{
	name: "codes", none: "there is no such code",
	columns: "tenant, hash, family, client, user_id, redirect, challenge, resource, scopes, auth, idp, expires, ends, used, sid, standing",
	fields: func(c *issuer.Code) []any {
		return []any{&c.Tenant, (*blob)(&c.Hash), &c.Family, &c.Client, &c.User, &c.Redirect, &c.Challenge, &c.Resource, (*texts)(&c.Scopes), &record{&c.Auth}, &c.IDP,
			(*when)(&c.Expires), (*when)(&c.Ends), (*when)(&c.Used), &c.Auth.SID, (*blob)(&c.Standing)}
	},
}

// PutCode implements issuer.Grants.
func (db *DB) PutCode(ctx context.Context, c issuer.Code) error {
	return codeTable.put(ctx, db.write, &c, "")
}

// UseCode implements issuer.Grants. The time of the first use stays.
func (db *DB) UseCode(ctx context.Context, t identity.Tenant, hash []byte, at time.Time) (issuer.Code, error) {
	first, err := codeTable.change(ctx, db.write, "UPDATE codes SET used = $3 WHERE tenant = $1 AND hash = $2 AND used = 0", t, hash, micros(at))
	if err != nil {
		return issuer.Code{}, err
	}
	if len(first) > 0 {
		first[0].Used = time.Time{}
		return first[0], nil
	}
	return codeTable.one(ctx, db.write, "WHERE tenant = $1 AND hash = $2", t, hash)
}

var familyTable = table[issuer.Family]{
	name: "families", none: "there is no such sign-in",
	columns: "tenant, id, client, user_id, resource, scopes, auth, idp, created, ends, rotated, current, previous, next, home_at, sid, standing",
	fields: func(f *issuer.Family) []any {
		return []any{&f.Tenant, &f.ID, &f.Client, &f.User, &f.Resource, (*texts)(&f.Scopes), &record{&f.Auth}, &f.IDP, (*when)(&f.Created), (*when)(&f.Ends), (*when)(&f.Rotated),
			(*blob)(&f.Current), (*blob)(&f.Previous), (*blob)(&f.Next), (*when)(&f.HomeAt), &f.Auth.SID, (*blob)(&f.Standing)}
	},
}

// PutFamily implements issuer.Families.
func (db *DB) PutFamily(ctx context.Context, f issuer.Family) error {
	return familyTable.put(ctx, db.write, &f, "")
}

// Family implements issuer.Families.
func (db *DB) Family(ctx context.Context, t identity.Tenant, id string) (issuer.Family, error) {
	return familyTable.one(ctx, db.read, byID, t, id)
}

// RotateFamily implements issuer.Families. Whose sign-in it is, at what and until when, does not change with a rotation.
func (db *DB) RotateFamily(ctx context.Context, f issuer.Family, was []byte) error {
	n, err := database.Exec(ctx, db.write, `UPDATE families SET scopes = $4, rotated = $5, current = $6, previous = $7, next = $8, home_at = $9, standing = $10
		WHERE tenant = $1 AND id = $2 AND current = $3`, f.Tenant, f.ID, was, (*texts)(&f.Scopes), (*when)(&f.Rotated), (*blob)(&f.Current), (*blob)(&f.Previous), (*blob)(&f.Next), (*when)(&f.HomeAt), (*blob)(&f.Standing))
	if err != nil || n > 0 {
		return err
	}
	return familyTable.conflict(ctx, db.write, byID, f.Tenant, f.ID)
}

// DropFamilies implements issuer.Families. An id says which one; the user, where he is said too, has to be its own.
func (db *DB) DropFamilies(ctx context.Context, t identity.Tenant, u identity.UserID, c identity.ClientID, id string) ([]string, error) {
	switch {
	case id != "":
		return database.List(ctx, db.write, database.Value[string], "DELETE FROM families WHERE tenant = $1 AND id = $2 AND ($3 = '' OR user_id = $3) RETURNING id", t, id, u)
	case u != "":
		return database.List(ctx, db.write, database.Value[string], "DELETE FROM families WHERE tenant = $1 AND user_id = $2 AND ($3 = '' OR client = $3) RETURNING id", t, u, c)
	}
	return nil, fault.New(fault.Invalid, "sign-ins are ended for one user, or one by one", nil)
}
