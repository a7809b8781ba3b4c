package ending

import (
	"context"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
)

// People keeps who is here.
type People interface {
	// UserBySubject is fault.NotFound for somebody whom nobody has heard of.
	UserBySubject(ctx context.Context, t identity.Tenant, idp, subject string) (identity.User, error)
	// UsersByEmail finds them without looking at upper and lower case; "" finds nobody.
	UsersByEmail(ctx context.Context, t identity.Tenant, idp, email string) ([]identity.User, error)
	// UsersOf lists those of an IdP who were not deleted, by id, and counts them.
	UsersOf(ctx context.Context, t identity.Tenant, idp string, skip, limit int) ([]identity.User, int, error)
	// SetGone marks somebody who was let go at that time. Without a mark he is taken back: fault.Conflict where he was let go then or
	// later; a zero time takes him back whenever that was.
	SetGone(ctx context.Context, t identity.Tenant, id identity.UserID, gone identity.Gone, at time.Time) error
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

// Depart ends the access of somebody whom the company let go at that time, and lets no sign-in and no token of his in any more. For
// good, his connections end too.
func (o *Office) Depart(ctx context.Context, u identity.User, gone identity.Gone, at time.Time, why string) error {
	if err := o.People.SetGone(ctx, u.Tenant, u.ID, gone, at); err != nil { // first: what is asked for from now on is refused
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

// Return lets somebody sign in again. What ended stays ended. With a time it is that of an event: one that came late, after he was let go
// again, changes nothing. A zero time is somebody's word of now.
func (o *Office) Return(ctx context.Context, u identity.User, at time.Time, why string) error {
	if u.Gone == "" {
		return nil
	}
	err := o.People.SetGone(ctx, u.Tenant, u.ID, "", at)
	if fault.KindOf(err) == fault.Conflict {
		return nil
	}
	if err != nil {
		return err
	}
	return o.event(ctx, u.Tenant, Whose{User: u.ID}, audit.Record{Action: "access.restored", Detail: why})
}
