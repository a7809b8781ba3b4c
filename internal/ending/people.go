package ending

import (
	"context"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/identity"
)

// People keeps who is here.
type People interface {
	// UserBySubject is fault.NotFound for somebody whom nobody has heard of.
	UserBySubject(ctx context.Context, t identity.Tenant, idp, subject string) (identity.User, error)
	// UsersByEmail finds them without looking at upper and lower case; "" finds nobody.
	UsersByEmail(ctx context.Context, t identity.Tenant, idp, email string) ([]identity.User, error)
	// UsersOf lists those of an IdP who were not deleted, by id, and counts them.
	UsersOf(ctx context.Context, t identity.Tenant, idp string, skip, limit int) ([]identity.User, int, error)
	SetGone(ctx context.Context, t identity.Tenant, id identity.UserID, gone identity.Gone) error
}

// Messages remembers what was acted on, for all replicas.
type Messages interface {
	KnownMessage(ctx context.Context, t identity.Tenant, hash []byte) (bool, error)
	// PutMessage keeps one until it expires; it reports whether it is the first to do so.
	PutMessage(ctx context.Context, t identity.Tenant, hash []byte, expires time.Time) (bool, error)
}

// SignIn ends one sign-in at the IdP, by the IdP's name for it: the browser's session, and what agents got through it.
func (o *Office) SignIn(ctx context.Context, t identity.Tenant, idp, sid, why string) error {
	if err := o.Epochs.End(ctx, t, identity.EpochSession, identity.SignInID(idp, sid)); err != nil {
		return err
	}
	families, err := o.Store.DropSignIn(ctx, t, idp, sid)
	if err != nil {
		return err
	}
	if err := o.families(ctx, t, families); err != nil {
		return err
	}
	return o.event(ctx, t, Whose{}, audit.Record{Action: "access.ended", Detail: why})
}

// Depart ends the access of somebody whom the company has let go, and lets no sign-in and no token of his in any more. For
// good, his connections end too.
func (o *Office) Depart(ctx context.Context, u identity.User, gone identity.Gone, why string) error {
	if err := o.People.SetGone(ctx, u.Tenant, u.ID, gone); err != nil { // first: what is asked for from now on is refused
		return err
	}
	if err := o.Access(ctx, u.Tenant, Whose{User: u.ID}, o.Now(), why); err != nil {
		return err
	}
	if gone != identity.Deleted {
		return nil
	}
	_, err := o.Revoke(ctx, u.Tenant, Whose{User: u.ID}, why)
	return err
}

// Return lets somebody sign in again. What ended stays ended.
func (o *Office) Return(ctx context.Context, u identity.User, why string) error {
	if u.Gone == "" {
		return nil
	}
	if err := o.People.SetGone(ctx, u.Tenant, u.ID, ""); err != nil {
		return err
	}
	return o.event(ctx, u.Tenant, Whose{User: u.ID}, audit.Record{Action: "access.restored", Detail: why})
}
