package connect

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/kit/secret"
	"frontdesk.dev/frontdesk/internal/vault"
)

// Device is a person who was given a code to enter at the vendor, in whatever browser he has (RFC 8628). No browser comes back: the
// vendor is asked, by whichever replica comes first, until he has decided. It is a flow all the same: Kind is FlowDevice, State its
// id, and Verifier the sealed device code, which is forgotten when it is over.
type Device struct {
	Flow
	Code   UserCode
	Next   time.Time // not asked before
	Tries  int64
	Status State
	End    DeviceEnd
}

// UserCode is what the person is shown, on our page alone.
type UserCode struct {
	Code     string `json:"code"`
	URI      string `json:"uri"`
	Complete string `json:"complete,omitzero"` // URI with the code in it
	Interval int64  `json:"interval"`          // seconds between two times that the vendor is asked
}

// DeviceEnd is what became of it.
type DeviceEnd struct {
	Why        string             `json:"why,omitzero"`        // a sentence for the person, where it came to nothing
	Connection vault.ConnectionID `json:"connection,omitzero"` // Done: what is connected now
	Swap       string             `json:"swap,omitzero"`       // Done: he came as another account than he meant (FlowSwap); its state,
	Was, Is    string             // and the two labels
	Sites      []string           `json:"sites,omitzero"` // Done: the account has several (FlowSite), of which he has to choose; Swap is its state
}

// DeviceStore keeps them.
type DeviceStore interface {
	// PutDevice inserts d. Another open one of the same user at the same upstream is expired with it: one code at a time.
	PutDevice(ctx context.Context, d Device) error
	Device(ctx context.Context, t identity.Tenant, id string) (Device, error)
	// DueDevices lists open ones of all tenants whose Next has come, the oldest first.
	DueDevices(ctx context.Context, now time.Time, limit int) ([]Device, error)
	// SetDevice stores Code, Next, Status, End and Verifier and counts a try, if it is open still and Tries is d.Tries: of two
	// processes one gets true.
	SetDevice(ctx context.Context, d Device) (bool, error)
}

const (
	devicesEvery      = time.Second
	devicesBatch      = 200
	devicesAtATime    = 8
	slowDown          = 5 // seconds (RFC 8628 section 3.5)
	maxDeviceInterval = 60
)

var errNoDevice = fault.New(fault.NotFound, "there is no such code here, or it was asked for in another browser; start again", nil)

// beginDevice asks the vendor for a code. The person goes there by himself; our page waits.
func (d *Desk) beginDevice(ctx context.Context, f Flow, up *catalog.Upstream, m catalog.Method) (Next, error) {
	o := up.Provider.OAuth
	if o == nil || o.Device.Authorization == "" || m.Client == "" {
		return Next{}, fault.New(fault.Unavailable, up.Title+" has no device grant configured; ask an operator", nil)
	}
	e, err := d.Clients.Endpoint(up, m)
	if err != nil {
		return Next{}, err
	}
	scopes := o.Asked(f.Scopes)
	if o.ScopeParam == catalog.NoScopes {
		scopes = nil
	}
	code, err := d.OAuth.Device(ctx, o.DeviceEndpoint(e), scopes, o.Resources())
	if err != nil {
		return Next{}, err
	}
	if f.State, err = oauth.Random(rand.Reader); err != nil {
		return Next{}, err
	}
	f.Kind, f.Method = FlowDevice, m.Kind
	if code.Expires.Before(f.Expires) {
		f.Expires = code.Expires
	}
	if f.Verifier, err = d.Vault.SealFlow(ctx, f.Tenant, deviceFlow(f.State), []byte(code.Code.Expose())); err != nil {
		return Next{}, err
	}
	x := Device{Flow: f, Status: Open, Next: d.Now().Add(code.Interval), Code: UserCode{code.UserCode, code.URI, code.Complete, int64(code.Interval / time.Second)}}
	return Next{Device: f.State}, d.Store.PutDevice(ctx, x)
}

func deviceFlow(id string) string { return "device/" + id }

// Device is the visitor's own, in the browser in which he asked for it, without what is sealed: whoever else sees a code could have
// it entered by somebody who does not know for whom (RFC 8628 section 5.4).
func (d *Desk) Device(ctx context.Context, v Visitor, id string) (Device, error) {
	x, err := d.Store.Device(ctx, v.Tenant, id)
	if fault.KindOf(err) == fault.NotFound {
		return Device{}, errNoDevice
	}
	if err != nil {
		return Device{}, err
	}
	if v.User == "" || x.User != v.User || !same(x.Binding, v.Binding) {
		return Device{}, errors.Join(errNoDevice, d.event(ctx, v, "connect.wrong_browser", audit.Record{Upstream: string(x.Upstream), Result: audit.ResultDenied}))
	}
	x.Verifier = nil
	return x, nil
}

// RunDevices asks vendors whether people have decided, until ctx ends.
func (d *Desk) RunDevices(ctx context.Context) error {
	tick := time.NewTicker(devicesEvery)
	defer tick.Stop()
	for {
		if err := d.AskDevices(ctx); err != nil && ctx.Err() == nil {
			d.Log.Warn("vendors could not be asked whether a code was entered; it is tried again", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// AskDevices is one round of RunDevices.
func (d *Desk) AskDevices(ctx context.Context) error {
	due, err := d.Store.DueDevices(ctx, d.Now(), devicesBatch)
	if err != nil {
		return err
	}
	var all errgroup.Group
	all.SetLimit(devicesAtATime)
	for _, x := range due {
		all.Go(func() error { return d.askDevice(ctx, x) })
	}
	return all.Wait()
}

// askDevice asks for one, if no other process does just now. What the vendor gave is either stored, or its loss told: a device code
// is good once.
func (d *Desk) askDevice(ctx context.Context, x Device) error {
	now := d.Now()
	x.Next = now.Add(time.Duration(x.Code.Interval)*time.Second + oauth.TokenTimeout)
	if mine, err := d.Store.SetDevice(ctx, x); err != nil || !mine {
		return err
	}
	x.Tries++
	if !now.Before(x.Expires) {
		return d.overDevice(ctx, x, Expired, "the code was not entered in time")
	}
	token, up, err := d.tokenOfDevice(ctx, x)
	if err != nil {
		return d.undecided(ctx, x, err)
	}
	v := Visitor{Tenant: x.Tenant, User: x.User, Binding: x.Binding}
	f := x.Flow
	f.Kind = FlowConnect
	r, err := d.obtained(ctx, v, f, up, gained{Token: token})
	if err != nil {
		return d.overDevice(ctx, x, Refused, sentence(err))
	}
	x.End = DeviceEnd{Connection: r.Connection.ID, Swap: r.Swap, Sites: r.Sites}
	if r.Kind == FlowSwap {
		x.End.Was, x.End.Is = r.Changed, r.Connection.Label
	}
	return d.overDevice(ctx, x, Done, "")
}

// tokenOfDevice asks once. What may not be kept is not fetched.
func (d *Desk) tokenOfDevice(ctx context.Context, x Device) (oauth.Token, *catalog.Upstream, error) {
	up, err := d.living(ctx, x.Flow)
	if err != nil {
		return oauth.Token{}, nil, err
	}
	e, err := d.Clients.Endpoint(up, up.Method(x.Method))
	if err != nil {
		return oauth.Token{}, nil, err
	}
	if err := d.still(ctx, Visitor{Tenant: x.Tenant, User: x.User}, x.Flow); err != nil {
		return oauth.Token{}, nil, err
	}
	plain, err := d.Vault.OpenFlow(ctx, x.Tenant, deviceFlow(x.State), x.Verifier)
	if err != nil {
		return oauth.Token{}, nil, err
	}
	t, err := d.OAuth.DeviceToken(ctx, e, secret.New(string(plain)), up.Provider.OAuth.Resources())
	return t, up, err
}

// undecided reads why there is no token: not yet, or never.
func (d *Desk) undecided(ctx context.Context, x Device, err error) error {
	te, asked := errors.AsType[*oauth.TokenError](err)
	again := func(interval int64) error {
		x.Code.Interval = min(interval, maxDeviceInterval)
		x.Next = d.Now().Add(time.Duration(x.Code.Interval) * time.Second)
		_, err := d.Store.SetDevice(ctx, x)
		return err
	}
	switch {
	case asked && te.Code == oauth.CodeAuthorizationPending:
		return again(x.Code.Interval)
	case asked && te.Code == oauth.CodeSlowDown:
		return again(x.Code.Interval + slowDown)
	case asked && te.Code == oauth.CodeAccessDenied:
		return d.overDevice(ctx, x, Refused, "you refused there; nothing was saved")
	case asked && te.Code == oauth.CodeExpiredToken:
		return d.overDevice(ctx, x, Expired, "the code was not entered in time")
	case fault.KindOf(err) == fault.Unavailable && (!asked || te.Failure == oauth.Temporary): // RFC 8628 section 3.5: more seldom then
		return again(2 * x.Code.Interval)
	}
	return d.overDevice(ctx, x, Refused, sentence(err))
}

func sentence(err error) string {
	if msg := fault.Message(err); msg != "" {
		return msg
	}
	return "something went wrong here; nothing was saved"
}

// overDevice ends it, and forgets the device code.
func (d *Desk) overDevice(ctx context.Context, x Device, s State, why string) error {
	x.Status, x.End.Why, x.Verifier = s, why, nil
	if _, err := d.Store.SetDevice(context.WithoutCancel(ctx), x); err != nil || s == Done {
		return err
	}
	return d.event(ctx, Visitor{Tenant: x.Tenant, User: x.User}, "connect.code_ended", audit.Record{Upstream: string(x.Upstream), Result: audit.ResultDenied, Detail: why})
}
