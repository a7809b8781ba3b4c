package broker

import (
	"net/http"
	"testing"

	"frontdesk.dev/frontdesk/internal/broker/booking"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
)

// nobody is a way out that may not be taken, and believes everybody.
type nobody struct{ t *testing.T }

func (n nobody) RoundTrip(*http.Request) (*http.Response, error) {
	n.t.Error("a request was sent")
	return nil, http.ErrNotSupported
}

func (nobody) Alive(*identity.Caller) bool { return true }

// TestMaskedSockets: where answers cannot be masked nothing is asked.
func TestMaskedSockets(t *testing.T) {
	l := &lease{broker: &Broker{Out: nobody{t}, Access: nobody{t}}, entry: &booking.Entry{}, masks: []string{"/email"}}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://api.test/socket", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Upgrade", "websocket")
	if _, err := l.Do(r); fault.KindOf(err) != fault.Denied {
		t.Error(err)
	}
}
